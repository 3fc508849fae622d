//! Pictures: files of the house, and small ones made on the spot.

use std::io::Cursor;
use std::path::PathBuf;

use image::codecs::gif::GifEncoder;
use image::{Delay, DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

fn house() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Vec<u8> {
    let path = house().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

/// A photograph of the golden set (lossless PNG), by name: `astronaut`, `cat`, `coffee`, …
pub fn golden(name: &str) -> Vec<u8> {
    read(&format!("models/tests/open_nsfw/{name}.png"))
}

/// What the model's own package gives for a golden photograph, squashed to 224 × 224.
pub fn golden_probability(name: &str) -> f64 {
    let text = read("models/tests/open_nsfw/golden.json");
    let golden: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    golden[name]["squash"].as_f64().unwrap_or_else(|| panic!("no golden value of `{name}`"))
}

/// A photograph, allowed by the shipped policies.
pub fn coffee() -> Vec<u8> {
    golden("coffee")
}

/// A file of the media tests: `exif_6.jpg`, `rgba.png`, …
pub fn media(name: &str) -> Vec<u8> {
    read(&format!("service/tests/media/{name}"))
}

/// A sample picture that is shown by `make run`.
pub fn shown(name: &str) -> Vec<u8> {
    read(&format!("service/samples/{name}"))
}

/// A small PNG whose bytes, and so whose hash, differ by `seed`.
pub fn unique(seed: u32) -> Vec<u8> {
    let [_, r, g, b] = seed.to_be_bytes();
    png(&RgbImage::from_fn(16, 16, |x, y| Rgb([r ^ (x as u8), g ^ (y as u8), b])).into())
}

pub fn png(picture: &DynamicImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

pub fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("memory takes everything");
    bytes.into_inner()
}

/// An animation of one grey level a frame, each shown for so many milliseconds.
pub fn gif_of(frames: &[(u8, u16)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for (level, ms) in frames {
        let picture = RgbaImage::from_pixel(24, 16, Rgba([*level, *level, *level, 255]));
        let shown = Delay::from_numer_denom_ms(u32::from(*ms), 1);
        let frame = Frame::from_parts(picture, 0, 0, shown);
        encoder.encode_frame(frame).expect("memory takes everything");
    }
    drop(encoder);
    bytes
}

/// Every picture of the media tests, by name.
pub fn all_media() -> Vec<(String, Vec<u8>)> {
    let folder = house().join("service/tests/media");
    let pictures = ["jpg", "png", "gif", "webp", "bmp", "tif"];
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("is committed")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|kind| pictures.iter().any(|known| kind == *known)))
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("is readable"))
        })
        .collect();
    all.sort();
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// An animation of so many frames.
pub fn gif(frames: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for index in 0..frames {
        let shade = index.wrapping_mul(60);
        let picture = RgbaImage::from_pixel(24, 16, Rgba([shade, 200 - shade / 2, 90, 255]));
        encoder.encode_frame(Frame::new(picture)).expect("memory takes everything");
    }
    drop(encoder);
    bytes
}
