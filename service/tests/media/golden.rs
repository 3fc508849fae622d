//! What we read from each sample against what Pillow reads.
//!
//! All but JPEG must be equal, lossy WebP too, 16-bit files (whose high bytes count), the inks of
//! a TIFF and every frame of an animation. JPEG is decoded by another inverse transform and upsampling
//! than libjpeg-turbo's: there a tolerance holds for the largest difference of any sample and for the mean
//! of each channel. A picture decoded too dark is an evasion, so the means matter most.

use image::DynamicImage;
use shieldgate::media::{Looked, View};
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
        // Divided by its alpha and multiplied again.
        "premultiplied.tif" => (1, 1, 0.5),
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

/// One frame's views against Pillow's reading of it.
fn compare_frame(name: &str, views: &[&View], expected: &DynamicImage) {
    match expected {
        DynamicImage::ImageRgba8(rgba) if rgba.pixels().any(|pixel| pixel[3] != 255) => {
            let [white, black] = views else { panic!("{name}: {} views", views.len()) };
            assert_eq!(white.background, Some(Background::White), "{name}");
            assert_eq!(black.background, Some(Background::Black), "{name}");
            compare(name, white, &over(rgba, 255.0));
            compare(name, black, &over(rgba, 0.0));
        }
        _ => {
            let [only] = views else { panic!("{name}: {} views", views.len()) };
            assert_eq!(only.background, None, "{name}");
            compare(name, only, &expected.to_rgb8());
        }
    }
}

fn of_frame(looked: &Looked, frame: u32) -> Vec<&View> {
    looked.views.iter().filter(|view| view.frame == frame).collect()
}

#[test]
fn every_sample_looks_as_pillow_sees_it() {
    for (name, bytes) in samples() {
        if name == "mpo.jpg" || name.starts_with("disposals") {
            continue; // in trailing.rs and below
        }
        let looked = seen(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = golden(&name);
        assert_eq!((looked.width, looked.height), (expected.width(), expected.height()), "{name}");
        // Pillow pads the last page.
        let trailing = if name == "pages.tif" { Some(14) } else { None };
        assert_eq!(looked.trailing_bytes, trailing, "{name}");
        compare_frame(&name, &of_frame(&looked, 0), &expected);
    }
}

#[test]
fn every_frame_is_composed_as_pillow_composes_it() {
    for name in ["disposals.gif", "disposals.png", "disposals.webp", "disposals_lossy.webp"] {
        let looked = seen(&sample(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (looked.frames_total, looked.frames_scored, looked.frames_distinct),
            (8, 8, Some(8)),
            "{name}"
        );
        for frame in 0..8 {
            compare_frame(name, &of_frame(&looked, frame), &golden(&format!("{name}.{frame}")));
        }
    }
}

#[test]
fn pages_are_frames() {
    let looked = seen(&sample("pages.tif")).unwrap();
    assert_eq!((looked.frames_total, looked.frames_scored, looked.frames_distinct), (4, 4, Some(3)));
    let sizes: Vec<_> =
        looked.views.iter().map(|v| (v.frame, v.at_ms, v.picture.width(), v.picture.height())).collect();
    assert_eq!(sizes, [(0, 0, 48, 32), (1, 0, 48, 32), (3, 0, 20, 30)], "the third is the second again");
}

/// Of CMYK both ways to store it are read as Pillow reads them; what is not proven is said.
#[test]
fn colours_in_doubt() {
    for (name, doubted) in [
        ("ycck.jpg", true),
        ("cmyk_no_adobe.jpg", true),
        ("cmyk.jpg", false),
        ("cmyk_progressive.jpg", false),
        ("cmyk.tif", false),
        ("rgb.jpg", false),
        ("baseline_420.jpg", false),
    ] {
        let codes: Vec<_> = seen(&sample(name)).unwrap().doubts.into_iter().map(|doubt| doubt.code).collect();
        assert_eq!(codes, if doubted { vec!["colour_unproven"] } else { vec![] }, "{name}");
    }
}

#[test]
fn frames_are_counted_and_seen() {
    for (name, frames) in [
        ("animated.gif", 3),
        ("animated.png", 3),
        // The still picture, and the animation it is no part of.
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
        assert_eq!(
            (looked.frames_scored, looked.views.last().unwrap().frame),
            (frames, frames - 1),
            "{name}"
        );
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
            "tif" => "image/tiff",
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
