//! Animations and documents made to cost much: bounded in time and memory, and said to be not wholly seen.

use std::time::{Duration, Instant};

use shieldgate::media::{Limits, Looked, MediaError, look};

use super::build::{gif_header, gif_pixel};
use super::memory::peak_of;
use super::moving::{After, Frame, KINDS, Kind, animation};
use super::{code, sample, seen};

/// What it costs at most. The figures are far above what was measured, for slow machines.
fn bounded(what: &str, bytes: &[u8], time: Duration, memory: i64) -> Result<Looked, MediaError> {
    let started = Instant::now();
    let (result, peak) = peak_of(|| seen(bytes));
    let took = started.elapsed();
    println!("{what}: {} bytes in, {took:?}, peak {:.1} MB", bytes.len(), peak as f64 / 1e6);
    assert!(took < time, "{what} took {took:?}");
    assert!(peak < memory, "{what} took {peak} bytes");
    result
}

#[test]
fn a_hundred_thousand_tiny_frames() {
    for kind in KINDS {
        let frames: Vec<Frame> = (0..1000u32)
            .map(|i| Frame::new((0, 0, 1, 1), [(i % 251) as u8, (i / 251) as u8, 7, 255]))
            .collect();
        let mut bytes = animation(kind, (1, 1), &frames);
        // Repeated as they are; APNG numbers its frames, so a thousand must do there.
        match kind {
            Kind::Gif => {
                let first = bytes.windows(3).position(|w| w == [0x21, 0xf9, 4]).unwrap();
                let middle = bytes[first..bytes.len() - 1].repeat(100);
                bytes.splice(first..bytes.len() - 1, middle);
            }
            Kind::WebP => {
                let first = bytes.windows(4).position(|w| w == b"ANMF").unwrap();
                let all = bytes[first..].repeat(100);
                bytes.splice(first.., all);
                let size = bytes.len() as u32 - 8;
                bytes[4..8].copy_from_slice(&size.to_le_bytes());
            }
            Kind::Apng => {}
        }
        let what = format!("{kind:?} of tiny frames");
        let looked = bounded(&what, &bytes, Duration::from_secs(8), 8 << 20).unwrap();
        let total = if kind == Kind::Apng { 1000 } else { 100_000 };
        assert_eq!((looked.frames_total, looked.views.len()), (total, 16), "{what}");
        assert_eq!(looked.frames_distinct, Some(1000), "{what}");
        assert!(looked.frames_scored < total, "{what}");
    }
}

/// Small frames that each change a large canvas: what is compared is what changed, not the canvas.
#[test]
fn tiny_frames_on_a_large_canvas() {
    for kind in KINDS {
        let (width, height) = (3000, 3000);
        let mut frames = vec![Frame::new((0, 0, width, height), [1, 2, 3, 255])];
        frames.extend((0..2000u32).map(|i| {
            let place = (i * 74 % 2998 / 2 * 2, i * 38 % 2998 / 2 * 2, 2, 2);
            Frame::new(place, [255, i as u8, 0, 255]).then(if i % 2 == 0 {
                After::Clear
            } else {
                After::Keep
            })
        }));
        let bytes = animation(kind, (width, height), &frames);
        let what = format!("{kind:?} of tiny frames on 9 megapixels");
        let looked = bounded(&what, &bytes, Duration::from_secs(60), 1100 << 20).unwrap();
        assert!(looked.frames_scored < looked.frames_total, "{what}");
        println!("{what}: {:?} distinct, {} scored", looked.frames_distinct, looked.frames_scored);
    }
}

/// A few hundred bytes a frame, megapixels to decode.
#[test]
fn frames_that_unpack_to_very_many_pixels_stop_at_the_bound() {
    for kind in KINDS {
        let whole = (0, 0, 2000, 1250);
        let frames: Vec<Frame> = (0..90).map(|i| Frame::new(whole, [i, 255 - i, 0, 255])).collect();
        let bytes = animation(kind, (2000, 1250), &frames);
        let what = format!("{kind:?} of large frames");
        let looked = bounded(&what, &bytes, Duration::from_secs(60), 1100 << 20).unwrap();
        assert_eq!(looked.frames_distinct, None, "{what}: the count was stopped");
        assert!(looked.frames_scored < looked.frames_total && looked.views.len() <= 16, "{what}");
        println!("{what}: {} scored of {}", looked.frames_scored, looked.frames_total);
    }
}

#[test]
fn the_bound_on_pixels_is_a_setting_and_the_first_frame_is_always_seen() {
    let frames: Vec<Frame> = (0..9).map(|i| Frame::new((0, 0, 50, 50), [i, 0, 0, 255])).collect();
    for kind in KINDS {
        let bytes = animation(kind, (50, 50), &frames);
        let limits = |frame_pixels_max| Limits { frame_pixels_max, ..Limits::default() };
        let none = look(&bytes, &limits(0)).unwrap();
        assert_eq!((none.frames_total, none.frames_scored, none.frames_distinct), (9, 1, None), "{kind:?}");
        let some = look(&bytes, &limits(30_000)).unwrap();
        assert!((2..9).contains(&some.frames_scored) && some.frames_distinct.is_none(), "{kind:?}");
        assert_eq!(look(&bytes, &limits(1_000_000)).unwrap().frames_distinct, Some(9), "{kind:?}");
    }
}

/// What lies behind the bound is counted, not read.
#[test]
fn gif_frames_beyond_any_number() {
    let frames = gif_pixel(0, 0).repeat(1_000_000);
    let bytes = [&gif_header(10, 10)[..], &frames, &[0x3b]].concat();
    let looked = bounded("a million frames", &bytes, Duration::from_secs(8), 2 << 20).unwrap();
    assert_eq!((looked.frames_total, looked.frames_distinct), (1_000_000, None));
    assert!(looked.frames_scored < 1_000_000);
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where the value of a field of the first page stands.
fn tiff_field(bytes: &[u8], tag: u16) -> usize {
    let at = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let fields = (0..count).map(|i| at + 2 + 12 * i);
    fields.into_iter().find(|at| bytes[*at..*at + 2] == tag.to_le_bytes()).unwrap() + 8
}

/// RGBA pages of one colour each, uncompressed, turned by a quarter.
pub(super) fn tiff_pages(width: u32, height: u32, pages: u8) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    for page in 0..pages {
        let fields: [(u16, u16, u32); 10] = [
            (256, 4, width),
            (257, 4, height),
            // One number for all four samples, as readers allow.
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 2),
            (273, 4, bytes.len() as u32 + 2 + 10 * 12 + 4),
            (274, 3, 6),
            (277, 3, 4),
            (279, 4, width * height * 4),
            (338, 3, 2),
        ];
        bytes.extend((fields.len() as u16).to_le_bytes());
        for (tag, kind, value) in fields {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        let data = [page * 20, 200, 9, 128].repeat((width * height) as usize);
        let next = if page + 1 == pages { 0 } else { bytes.len() + 4 + data.len() };
        bytes.extend((next as u32).to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

#[test]
fn tiff_pages_that_go_round_or_overlap() {
    let good = sample("planar.tif");
    let fields = usize::from(u16::from_le_bytes([good[8], good[9]]));
    let next = 10 + 12 * fields;
    let mut round = good.clone();
    put(&mut round, next, 8);
    assert_eq!(code(&round), "image_corrupt");
    let mut beyond = good.clone();
    put(&mut beyond, next, 1 << 30);
    assert_eq!(code(&beyond), "image_truncated");
    // Pages upon pages over the same pixels.
    let mut many = good.clone();
    let page = good[8..next].to_vec();
    let mut last = next;
    let mut pages = Vec::new();
    for page_number in 1..=30_000 {
        let at = many.len() as u32;
        put(&mut many, last, at);
        many.extend(&page);
        last = many.len();
        many.extend([0; 4]);
        if page_number == 10_000 {
            pages.clone_from(&many);
        }
    }
    let looked = bounded("10 000 pages over one picture", &pages, Duration::from_secs(8), 64 << 20).unwrap();
    assert_eq!((looked.frames_total, looked.frames_distinct, looked.views.len()), (10_001, Some(1), 1));
    let looked = bounded("30 000 pages over one picture", &many, Duration::from_secs(8), 64 << 20).unwrap();
    assert_eq!((looked.frames_total, looked.frames_distinct, looked.views.len()), (30_001, None, 1));
    // Directories of many fields that overlap each other.
    let mut dense = good.clone();
    put(&mut dense, next, good.len() as u32);
    dense.resize(good.len() + 2 + 65_535 * 12 + 4, 0);
    dense[good.len()..good.len() + 2].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(
        bounded("a directory of nothing", &dense, Duration::from_secs(4), 8 << 20).unwrap_err().code(),
        "image_corrupt"
    );
}

#[test]
fn tiff_headers_that_claim_too_much() {
    let good = sample("tiles.tif");
    for (tag, value, expected) in [
        (256, 100_000u32, "image_side_too_long"),
        (322, 0, "image_corrupt"),
        (322, 20_000, "image_corrupt"),
        (323, 1 << 30, "image_too_many_pixels"),
        (322, 16, "image_corrupt"),
    ] {
        let mut bytes = good.clone();
        let at = tiff_field(&bytes, tag);
        if matches!(tag, 322 | 323) {
            // Short in the sample: made long, which any reader takes.
            bytes[at - 6..at - 4].copy_from_slice(&4u16.to_le_bytes());
        }
        put(&mut bytes, at, value);
        let refused = bounded("a tile", &bytes, Duration::from_secs(1), 1 << 20).unwrap_err();
        assert_eq!(refused.code(), expected, "{tag} = {value}");
    }
    let mut jpeg = sample("planar.tif");
    let at = tiff_field(&jpeg, 259);
    jpeg[at] = 7;
    assert_eq!(code(&jpeg), "image_variant_unsupported");
}
