//! Cut anywhere, every sample is an error; what is accepted after a cut has the very same pixels.

use super::{MediaError, code, sample, samples, seen};

#[test]
fn every_prefix_of_every_sample_is_refused() {
    for (name, bytes) in samples() {
        let whole = seen(&bytes).unwrap();
        let end = bytes.len() - whole.trailing_bytes.unwrap_or(0) as usize;
        for cut in 0..end {
            match seen(&bytes[..cut]) {
                Err(MediaError::Empty) => assert_eq!(cut, 0),
                // BMP and WebP can end in padding that no pixel needs.
                Ok(looked) => {
                    assert!(end - cut <= 2, "{name} cut at {cut} of {end} is accepted");
                    assert_eq!(
                        looked.views[0].picture.rgb(),
                        whole.views[0].picture.rgb(),
                        "{name} at {cut}"
                    );
                }
                // Two bytes of "BM", four of "RIFF" are not enough to know what was begun.
                Err(MediaError::Unsupported { .. }) => assert!(cut < 18, "{name} at {cut}"),
                Err(e) => assert_eq!(e.code(), "image_truncated", "{name} cut at {cut} of {end}: {e}"),
            }
        }
    }
}

/// The hole is inside: the end is there, so only the decoder can tell.
#[test]
fn a_baseline_jpeg_with_the_end_of_its_scan_missing_is_truncated() {
    for name in [
        "baseline_420.jpg",
        "baseline_444.jpg",
        "restarts.jpg",
        "noise.jpg",
        "gray.jpg",
        "rgb.jpg",
        "cmyk.jpg",
    ] {
        let bytes = sample(name);
        let scan = bytes.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap() + 20;
        let end = bytes.len() - 2;
        let mut refused = 0;
        for keep in 0..20 {
            let cut = scan + (end - 40 - scan) * keep / 20;
            let holed = [&bytes[..cut], &[0xff, 0xd9]].concat();
            match code(&holed) {
                "image_truncated" | "image_corrupt" => refused += 1,
                other => panic!("{name} cut at {cut} of {end} and ended: {other}"),
            }
        }
        assert_eq!(refused, 20, "{name}");
    }
}

#[test]
fn a_progressive_jpeg_without_any_scan_of_a_component_is_corrupt() {
    let bytes = sample("progressive.jpg");
    let second_scan = bytes.windows(2).enumerate().filter(|(_, w)| *w == [0xff, 0xda]).nth(1).unwrap().0;
    // The first scan carries all components coarsely: a small picture, but a whole one.
    assert_eq!(code(&[&bytes[..second_scan], &[0xff, 0xd9]].concat()), "accepted");
    let first_scan = bytes.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    assert_eq!(code(&[&bytes[..first_scan], &[0xff, 0xd9]].concat()), "image_corrupt");
}
