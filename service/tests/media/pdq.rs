//! PDQ against Meta's own code: equal wherever the pixels are.

use serde_json::Value;
use shieldgate::media::Pdq;
use shieldgate_models::Picture;

use super::{folder, sample, seen};

fn golden() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(folder().join("golden/pdq.json")).unwrap();
    let Value::Object(entries) = serde_json::from_str(&text).unwrap() else { panic!("no table") };
    assert!(entries.len() >= 80, "hashes are missing");
    entries
}

fn hash(entry: &Value, field: &str) -> Pdq {
    let digits = entry[field].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..32).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect();
    Pdq { hash: bytes.try_into().unwrap(), quality: entry["quality"].as_u64().unwrap() as u8 }
}

/// As `pdq.py` draws it.
fn pattern(width: u32, height: u32) -> Picture {
    let pixel = |x: u32, y: u32| [(x * x / 7 + y * 3) as u8, (x * 5 + y * y / 11) as u8, (x * y / 13) as u8];
    let rgb: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Picture::new(width, height, rgb).unwrap()
}

#[test]
fn drawings_hash_bit_for_bit() {
    let entries = golden();
    let drawings = entries.iter().filter_map(|(name, entry)| Some((name.strip_prefix("pattern ")?, entry)));
    let mut checked = 0;
    for (size, entry) in drawings {
        let (width, height) = size.split_once('x').unwrap();
        let picture = pattern(width.parse().unwrap(), height.parse().unwrap());
        assert_eq!(Pdq::of(&picture), Some(hash(entry, "hash")), "{size}");
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[test]
fn samples_hash_bit_for_bit_and_jpegs_nearly() {
    let mut worst = 0;
    for (name, entry) in &golden() {
        if name.starts_with("pattern ") {
            continue;
        }
        let bytes = match name.strip_prefix("samples/") {
            Some(name) => std::fs::read(folder().join("../../samples").join(name)).unwrap(),
            None => sample(name),
        };
        let expected = hash(entry, "hash");
        let Some(actual) = seen(&bytes).unwrap().pdq else {
            // Too small: the reference writes zeros.
            assert_eq!(expected, Pdq { hash: [0; 32], quality: 0 }, "{name}");
            continue;
        };
        let distance = actual.distance(&expected);
        if name.ends_with(".jpg") {
            // Another inverse transform: our pixels differ from libjpeg-turbo's.
            worst = worst.max(distance);
            assert!(distance <= 10 && actual.quality.abs_diff(expected.quality) <= 1, "{name}: {distance}");
        } else {
            assert_eq!(actual, expected, "{name}");
        }
    }
    println!("JPEG: at most {worst} bits");
}

/// Tools that smooth before they sample, or do not sample, still find our photographs.
#[test]
fn photographs_are_near_whatever_sampled_them() {
    for (name, entry) in golden().iter().filter(|(name, _)| name.starts_with("samples/")) {
        for field in ["whole", "smooth"] {
            if entry.get(field).is_some() {
                let distance = hash(entry, "hash").distance(&hash(entry, field));
                assert!(distance <= 10, "{name}, {field}: {distance}");
            }
        }
    }
}

/// A camera's picture; the best of three, since others work on this machine.
#[test]
fn hashing_costs_little_beside_decoding() {
    let photo = image::RgbImage::from_fn(4000, 3000, |x, y| {
        image::Rgb([(x * y / 997) as u8, (x / 3 + y / 5) as u8, (x ^ y) as u8])
    });
    let jpeg = super::build::encoded(photo, image::ImageFormat::Jpeg);
    let timed = |work: &dyn Fn()| {
        let once = || {
            let started = std::time::Instant::now();
            work();
            started.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let view = seen(&jpeg).unwrap().views.remove(0);
    let whole = timed(&|| drop(seen(&jpeg).unwrap()));
    let hashing = timed(&|| assert!(Pdq::of(&view.picture).is_some()));
    let smaller = pattern(512, 512);
    println!(
        "12 megapixels: {whole:?}, of which PDQ {hashing:?}; 512 × 512: {:?}",
        timed(&|| assert!(Pdq::of(&smaller).is_some()))
    );
    assert!(hashing * 5 < whole, "{hashing:?} of {whole:?}");
}

#[test]
fn what_is_too_small_or_flat_says_so() {
    assert_eq!(Pdq::of(&pattern(4, 900)), None);
    assert_eq!(Pdq::of(&pattern(900, 4)), None);
    let flat = Picture::new(300, 200, vec![77; 300 * 200 * 3]).unwrap();
    assert_eq!(Pdq::of(&flat).unwrap().quality, 0);
    let shown = Pdq { hash: [0xa5; 32], quality: 1 }.to_string();
    assert_eq!(shown, "a5".repeat(32));
}
