//! What decoding costs in memory, counted at the allocator, and that bombs do not go off.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use shieldgate::media::{Limits, MediaError, look};

use super::build::{chunk, encoded, with_chunk};
use super::moving::{After, Frame, Kind, animation};
use super::{sample, seen};

thread_local! {
    // Of this thread alone, so that tests running beside do not count.
    static NOW: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: i64) {
    // A thread that is ending has no counters any more; nobody asks for them then.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both exist.
        count(size as i64);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as i64));
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Peak bytes above what was held when `work` began.
pub(super) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// The estimate that `memory_max` is held against, as a refusal states it.
fn estimate(bytes: &[u8]) -> i64 {
    match look(bytes, &Limits { memory_max: 0, ..Limits::default() }) {
        Err(MediaError::TooMuchMemory { needed, .. }) => needed as i64,
        other => panic!("no memory needed at all? {other:?}"),
    }
}

fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8]))
}

#[test]
fn the_estimate_covers_the_peak() {
    let (width, height) = (1200, 900);
    let rgb = scene(width, height);
    let rgba = RgbaImage::from_fn(width, height, |x, y| image::Rgba([x as u8, y as u8, 7, (x + y) as u8]));
    let gray = DynamicImage::ImageRgb8(rgb.clone()).to_luma8();
    let gray_alpha = DynamicImage::ImageRgba8(rgba.clone()).to_luma_alpha16();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("JPEG", encoded(rgb.clone(), ImageFormat::Jpeg)),
        ("gray JPEG", encoded(gray.clone(), ImageFormat::Jpeg)),
        ("PNG", encoded(rgb.clone(), ImageFormat::Png)),
        ("gray PNG", encoded(gray, ImageFormat::Png)),
        ("RGBA PNG", encoded(rgba.clone(), ImageFormat::Png)),
        ("16-bit gray and alpha PNG", encoded(DynamicImage::ImageLumaA16(gray_alpha), ImageFormat::Png)),
        ("WebP", encoded(rgb.clone(), ImageFormat::WebP)),
        ("RGBA WebP", encoded(rgba.clone(), ImageFormat::WebP)),
        ("GIF", encoded(rgba.clone(), ImageFormat::Gif)),
        ("BMP", encoded(rgb, ImageFormat::Bmp)),
        ("RGBA BMP", encoded(rgba, ImageFormat::Bmp)),
    ];
    let pixels = i64::from(width * height);
    for (name, bytes) in cases {
        let (looked, peak) = peak_of(|| seen(&bytes));
        looked.unwrap_or_else(|e| panic!("{name}: {e}"));
        let allowed = estimate(&bytes) + (1 << 20);
        println!(
            "{name}: peak {:.1} bytes a pixel, estimate {:.1}",
            peak as f64 / pixels as f64,
            allowed as f64 / pixels as f64
        );
        assert!(peak <= allowed, "{name}: peak {peak}, estimate {allowed}");
    }
}

/// Also where as many frames are kept as the limit on memory has room for.
#[test]
fn kept_frames_stay_within_the_limit() {
    let (width, height) = (600, 500);
    let frames: Vec<Frame> = (0..12)
        .map(|i| Frame::new((0, 0, width, height), [i * 20, 9, 9, 200 + i]).then(After::Clear))
        .collect();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("GIF", animation(Kind::Gif, (width, height), &frames)),
        ("APNG", animation(Kind::Apng, (width, height), &frames)),
        ("WebP", animation(Kind::WebP, (width, height), &frames)),
    ];
    let mut turned = cases[1].1.clone();
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    turned = with_chunk(&turned, &chunk(b"eXIf", exif));
    cases.push(("turned APNG", turned));
    let restoring: Vec<Frame> = frames.iter().map(|frame| frame.then(After::Restore)).collect();
    cases.push(("restoring GIF", animation(Kind::Gif, (width, height), &restoring)));
    cases.push(("restoring APNG", animation(Kind::Apng, (width, height), &restoring)));
    cases.push(("TIFF", super::bombs::tiff_pages(width, height, 12)));
    for (name, bytes) in cases {
        let needed = estimate(&bytes) as u64;
        for extra in [0, 3] {
            let memory_max = needed + extra * 6 * u64::from(width * height);
            let limits = Limits { memory_max, ..Limits::default() };
            let (looked, peak) = peak_of(|| look(&bytes, &limits));
            let looked = looked.unwrap_or_else(|e| panic!("{name}: {e}"));
            println!("{name}: {} frames kept, peak {peak}, limit {memory_max}", looked.frames_scored);
            assert!(peak as u64 <= memory_max + (1 << 20), "{name}: peak {peak}, limit {memory_max}");
            assert!(u64::from(looked.frames_scored) > extra, "{name}");
        }
    }
}

/// Small pictures have small overheads; this covers what no encoder here writes large.
#[test]
fn samples_stay_within_a_megabyte_of_the_estimate() {
    for (name, bytes) in super::samples() {
        let (_, peak) = peak_of(|| seen(&bytes));
        assert!(peak <= estimate(&bytes) + (1 << 20), "{name}: {peak}");
    }
}

/// A text chunk of some kilobytes that inflates to 64 MB, in the ways PNG has to deflate one.
#[test]
fn text_bombs_are_not_inflated() {
    let bomb = "A".repeat(64 << 20);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_ztxt_chunk("Comment".into(), bomb.clone()).unwrap();
    let mut writer = encoder.write_header().unwrap();
    let mut itxt = png::text_metadata::ITXtChunk::new("XML:com.adobe.xmp", bomb.clone());
    itxt.compressed = true;
    writer.write_text_chunk(&itxt).unwrap();
    writer.write_image_data(&[9; 8 * 8 * 3]).unwrap();
    writer.finish().unwrap();
    drop(bomb);
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    // Not text, but also deflated: a colour profile, with the very stream of the first bomb.
    let at = bytes.windows(4).position(|w| w == b"zTXt").unwrap();
    let len = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    let profile = chunk(b"iCCP", &bytes[at + 4..at + 4 + len]);
    let bytes = with_chunk(&bytes, &profile);
    let (looked, peak) = peak_of(|| seen(&bytes));
    assert_eq!(looked.unwrap().views[0].picture.rgb()[..3], [9, 9, 9]);
    assert!(peak < 2 << 20, "peak {peak}");
}

/// A palette of frames no bigger than a pixel and a header that promises little: nothing grows with
/// the number of frames.
#[test]
fn many_frames_cost_nothing() {
    let frames = super::build::gif_pixel(0, 0).repeat(300_000);
    let bytes = [&super::build::gif_header(10, 10)[..], &frames, &[0x3b]].concat();
    let (looked, peak) = peak_of(|| seen(&bytes));
    assert_eq!(looked.unwrap().frames_total, 300_000);
    assert!(peak < 1 << 20, "peak {peak}");
}

/// Refusals cost nothing worth naming, whatever the header claims.
#[test]
fn refusals_are_cheap() {
    let mut jpeg = sample("progressive.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0xff, 0x1f, 0xff]);
    let (refused, peak) = peak_of(|| seen(&jpeg));
    assert_eq!(refused.unwrap_err().code(), "image_too_many_pixels");
    assert!(peak < 1 << 16, "peak {peak}");
}
