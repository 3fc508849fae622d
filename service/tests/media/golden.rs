//! What we read from each sample against what Pillow reads.
//!
//! All but JPEG must be equal, lossy WebP too. JPEG is decoded by another inverse transform and upsampling
//! than libjpeg-turbo's: there a tolerance holds for the largest difference of any sample and for the mean
//! of each channel. A picture decoded too dark is an evasion, so the means matter most.

use image::DynamicImage;
use shieldgate::media::View;
use shieldgate::verdict::Background;

use super::{folder, sample, samples, seen};

struct Tolerance {
    inside: u8,
    /// The last row and column: with chroma at half size and an odd number of chroma samples, ours are
    /// interpolated with the padding that the encoder put beyond the edge.
    edge: u8,
    mean: f64,
}

/// As measured on these samples, rounded up a little.
fn tolerance(name: &str) -> Tolerance {
    let (inside, edge, mean) = match name {
        "cmyk.jpg" | "cmyk_no_adobe.jpg" | "cmyk_progressive.jpg" | "ycck.jpg" => (3, 3, 0.1),
        "gray.jpg" | "gray_progressive.jpg" | "rgb.jpg" | "baseline_444.jpg" => (3, 3, 0.1),
        _ if name.ends_with(".jpg") => (4, 18, 0.5),
        _ => (0, 0, 0.0),
    };
    Tolerance { inside, edge, mean }
}

fn golden(name: &str) -> DynamicImage {
    image::open(folder().join("golden").join(format!("{name}.png"))).unwrap()
}

fn compare(name: &str, view: &View, expected: &[u8]) {
    let actual = view.picture.rgb();
    assert_eq!(actual.len(), expected.len(), "{name}: size");
    let (width, height) = (view.picture.width() as usize, view.picture.height() as usize);
    let (mut inside, mut edge) = (0, 0);
    for (i, (a, b)) in actual.iter().zip(expected).enumerate() {
        let (x, y) = (i / 3 % width, i / 3 / width);
        let at_edge = x + 1 == width || y + 1 == height;
        let worst = if at_edge { &mut edge } else { &mut inside };
        *worst = a.abs_diff(*b).max(*worst);
    }
    let means: Vec<f64> = (0..3)
        .map(|channel| {
            let sum: i64 = actual
                .iter()
                .zip(expected)
                .skip(channel)
                .step_by(3)
                .map(|(a, b)| i64::from(*a) - i64::from(*b))
                .sum();
            sum as f64 / (actual.len() / 3) as f64
        })
        .collect();
    println!("{name}: largest difference {inside} inside, {edge} at the edge, means {means:.3?}");
    let allowed = tolerance(name);
    assert!(inside <= allowed.inside, "{name}: differs by {inside} inside");
    assert!(edge <= allowed.edge, "{name}: differs by {edge} at the edge");
    assert!(means.iter().all(|m| m.abs() <= allowed.mean), "{name}: means differ by {means:?}");
}

/// Rounded as ours: to the nearest level.
fn over(rgba: &[u8], background: f64) -> Vec<u8> {
    rgba.chunks_exact(4)
        .flat_map(|p| {
            let alpha = f64::from(p[3]) / 255.0;
            [0, 1, 2].map(|c| (f64::from(p[c]) * alpha + background * (1.0 - alpha)).round() as u8)
        })
        .collect()
}

#[test]
fn every_sample_looks_as_pillow_sees_it() {
    for (name, bytes) in samples() {
        if name == "mpo.jpg" {
            continue; // in trailing.rs
        }
        let looked = seen(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = golden(&name);
        assert_eq!((looked.width, looked.height), (expected.width(), expected.height()), "{name}");
        assert_eq!(looked.trailing_bytes, None, "{name}");
        match &expected {
            DynamicImage::ImageRgba8(rgba) => {
                let [white, black] = looked.views.as_slice() else { panic!("{name}: {:?}", looked.views) };
                assert_eq!(white.background, Some(Background::White), "{name}");
                assert_eq!(black.background, Some(Background::Black), "{name}");
                compare(&name, white, &over(rgba, 255.0));
                compare(&name, black, &over(rgba, 0.0));
            }
            _ => {
                let [only] = looked.views.as_slice() else { panic!("{name}: {:?}", looked.views) };
                assert_eq!(only.background, None, "{name}");
                compare(&name, only, &expected.to_rgb8());
            }
        }
    }
}

#[test]
fn frames_are_counted_and_the_first_is_seen() {
    for (name, frames) in [
        ("animated.gif", 3),
        ("animated.png", 3),
        ("animated_default.png", 3),
        ("animated.webp", 3),
        ("still.gif", 1),
        ("palette.png", 1),
        ("lossy.webp", 1),
        ("baseline_420.jpg", 1),
        ("rgb24.bmp", 1),
    ] {
        let looked = seen(&sample(name)).unwrap();
        assert_eq!(looked.frames_total, frames, "{name}");
        assert!(looked.views.iter().all(|v| v.frame == 0 && v.at_ms == 0), "{name}");
    }
}

#[test]
fn the_type_is_by_content() {
    for (name, bytes) in samples() {
        let expected = match name.rsplit_once('.').unwrap().1 {
            "jpg" => "image/jpeg",
            "png" => "image/png",
            "webp" => "image/webp",
            "gif" => "image/gif",
            _ => "image/bmp",
        };
        assert_eq!(seen(&bytes).unwrap().media_type, expected, "{name}");
    }
}

/// Guards the golden test against samples that would pass unturned.
#[test]
fn exif_orientations_differ_as_they_should() {
    let views: Vec<_> = (1..=8).map(|o| seen(&sample(&format!("exif_{o}.jpg"))).unwrap()).collect();
    for (i, a) in views.iter().enumerate() {
        let turned = i >= 4;
        assert_eq!(a.width < a.height, turned, "orientation {}", i + 1);
        for (j, b) in views.iter().enumerate().skip(i + 1) {
            assert_ne!(a.views[0].picture.rgb(), b.views[0].picture.rgb(), "{} and {}", i + 1, j + 1);
        }
    }
}
