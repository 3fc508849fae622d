//! JPEG: walk the markers to the true end of the picture, then decode it strictly.

mod colour;

use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use self::colour::Claims;
use super::error::MediaError;
use super::pixels::{Raster, fill_shared};
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/jpeg";

/// Each scan visits every block, so a few kilobytes of scans can cost minutes. Encoders write about
/// ten; at this product the worst case measured stays within seconds.
const SCAN_PIXELS_MAX: u64 = 1_500_000_000;
const SCANS_MAX: u32 = 100;

/// What decoding needs to know beyond the [`Layout`].
pub(super) struct Header {
    progressive: bool,
    /// Where the end-of-image marker stands.
    eoi: usize,
}

struct Frame {
    width: u32,
    height: u32,
    progressive: bool,
    components: Vec<u8>,
}

/// What the scans so far covered.
#[derive(Default)]
struct Scans {
    count: u32,
    /// Bit per component: its (first) DC scan was seen.
    seen: u8,
    interleaved_whole: bool,
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, Header), MediaError> {
    let truncated = || MediaError::truncated(TYPE);
    let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
    let mut frame: Option<Frame> = None;
    let mut scans = Scans::default();
    let mut claims = Claims::default();
    let mut orientation = None;
    let mut pos = 2; // past SOI, which the sniffer saw
    loop {
        let (at, marker, after) = next_marker(bytes, pos).ok_or_else(truncated)?;
        pos = after;
        match marker {
            0xd9 => {
                let frame = frame.ok_or_else(|| corrupt("it ends before any picture data"))?;
                scans.check_complete(&frame)?;
                return Ok(finish(at, after, frame, &scans, orientation, &claims));
            }
            // TEM and stray restart markers stand alone.
            0x01 | 0xd0..=0xd7 => continue,
            0xd8 => return Err(corrupt("a second picture begins inside the first")),
            _ => {}
        }
        let length = usize::from(u16_at(bytes, pos).ok_or_else(truncated)?);
        if length < 2 {
            return Err(corrupt("a segment is shorter than its own length field"));
        }
        let body = bytes.get(pos + 2..pos + length).ok_or_else(truncated)?;
        pos += length;
        match marker {
            0xc0..=0xc2 => {
                if frame.is_some() {
                    return Err(corrupt("it has two frame headers"));
                }
                frame = Some(frame_header(body, marker == 0xc2, limits)?);
            }
            0xc3 | 0xc5..=0xc7 | 0xcd..=0xcf => {
                return Err(unsupported("lossless or hierarchical coding"));
            }
            0xc8..=0xcc if marker != 0xc4 => return Err(unsupported("arithmetic coding")),
            0xdc => return Err(unsupported("a height defined after the picture (DNL)")),
            0xe0 => claims.app0(body),
            0xee => claims.app14(body),
            0xe1 if orientation.is_none() => {
                orientation = body.strip_prefix(b"Exif\0\0").map(Orientation::from_exif_chunk);
            }
            0xda => {
                let frame = frame.as_ref().ok_or_else(|| corrupt("a scan comes before the frame header"))?;
                scans.add(body, frame)?;
                pos = entropy_end(bytes, pos).ok_or_else(truncated)?;
            }
            _ => {}
        }
    }
}

fn finish(
    at: usize,
    after: usize,
    frame: Frame,
    scans: &Scans,
    orientation: Option<Option<Orientation>>,
    claims: &Claims,
) -> (Layout, Header) {
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    let orientation = orientation.flatten().unwrap_or(Orientation::NoTransforms);
    let turned = if orientation == Orientation::NoTransforms { 0 } else { 3 };
    // Without all components in one scan the decoder keeps every coefficient, two bytes each.
    let kept =
        if frame.progressive || !scans.interleaved_whole { 2 * frame.components.len() as u64 } else { 0 };
    let layout = Layout {
        width: frame.width,
        height: frame.height,
        frames_total: 1,
        orientation,
        end: after,
        memory: pixels * 3 + pixels * kept.max(turned) + after as u64,
        doubts: claims.doubts(&frame.components),
    };
    (layout, Header { progressive: frame.progressive, eoi: at })
}

fn unsupported(feature: &'static str) -> MediaError {
    MediaError::variant(TYPE, feature)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
}

/// The next marker from `pos` on: where it begins, which it is, where it ends. Skips fill bytes.
fn next_marker(bytes: &[u8], mut pos: usize) -> Option<(usize, u8, usize)> {
    loop {
        let at = pos + bytes.get(pos..)?.iter().position(|&b| b == 0xff)?;
        let code = at + bytes.get(at..)?.iter().position(|&b| b != 0xff)?;
        match bytes.get(code)? {
            0 => pos = code + 1,
            &marker => return Some((code - 1, marker, code + 1)),
        }
    }
}

/// Where entropy-coded data ends: at the next marker that is no restart marker.
fn entropy_end(bytes: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        let (at, marker, after) = next_marker(bytes, pos)?;
        if !(0xd0..=0xd7).contains(&marker) {
            return Some(at);
        }
        pos = after;
    }
}

fn frame_header(body: &[u8], progressive: bool, limits: &Limits) -> Result<Frame, MediaError> {
    let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
    let [precision, h1, h0, w1, w0, count, specs @ ..] = body else {
        return Err(corrupt("its frame header is too short"));
    };
    let (width, height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
    limits.admit_size(width.into(), height.into())?;
    if *precision != 8 {
        return Err(unsupported("more than 8 bits a sample"));
    }
    if !matches!(count, 1 | 3 | 4) {
        return Err(unsupported("a number of colour components other than 1, 3 or 4"));
    }
    if specs.len() != usize::from(*count) * 3 {
        return Err(corrupt("its frame header lists another number of components than it states"));
    }
    for spec in specs.chunks_exact(3) {
        let (h, v) = (spec[1] >> 4, spec[1] & 15);
        if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
            return Err(corrupt("a sampling factor is not in 1 to 4"));
        }
    }
    let components: Vec<u8> = specs.chunks_exact(3).map(|spec| spec[0]).collect();
    if (1..components.len()).any(|i| components[..i].contains(&components[i])) {
        return Err(corrupt("two components have one name"));
    }
    Ok(Frame { width: width.into(), height: height.into(), progressive, components })
}

impl Scans {
    fn add(&mut self, body: &[u8], frame: &Frame) -> Result<(), MediaError> {
        let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
        let count = usize::from(*body.first().ok_or_else(|| corrupt("a scan header is empty"))?);
        let (specs, [first, _, approximation]) = body
            .get(1..)
            .and_then(|rest| rest.split_last_chunk::<3>())
            .ok_or_else(|| corrupt("a scan header is too short"))?;
        if specs.len() != count * 2 || count == 0 {
            return Err(corrupt("a scan header lists another number of components than it states"));
        }
        self.count += 1;
        let pixels = u64::from(frame.width) * u64::from(frame.height);
        if self.count > SCANS_MAX || u64::from(self.count) * pixels > SCAN_PIXELS_MAX.max(pixels * 3) {
            return Err(MediaError::TooManyScans {
                width: frame.width,
                height: frame.height,
                scans: self.count,
            });
        }
        for spec in specs.chunks_exact(2) {
            let index = frame
                .components
                .iter()
                .position(|id| *id == spec[0])
                .ok_or_else(|| corrupt("a scan names a component that the frame does not have"))?;
            let bit = 1 << index;
            // A baseline component comes once, whole; the decoder would stop or start over at a second.
            if !frame.progressive && self.seen & bit != 0 {
                return Err(corrupt("a component is coded twice"));
            }
            if !frame.progressive || (*first == 0 && approximation >> 4 == 0) {
                self.seen |= bit;
            }
        }
        self.interleaved_whole |= count == frame.components.len();
        Ok(())
    }

    /// A component that no scan carries would be decoded as grey.
    fn check_complete(&self, frame: &Frame) -> Result<(), MediaError> {
        if self.seen.count_ones() as usize == frame.components.len() {
            return Ok(());
        }
        Err(MediaError::corrupt(
            TYPE,
            format!(
                "of {} colour components only {} are coded",
                frame.components.len(),
                self.seen.count_ones()
            ),
        ))
    }
}

pub(super) fn decode(bytes: &[u8], layout: &Layout, header: &Header) -> Result<Raster, MediaError> {
    let (width, height) = (layout.width, layout.height);
    // A baseline decoder that meets the end marker early takes the rest for zero bits and says nothing.
    // Without the marker it runs out of data instead, which strict mode reports. The padding is more
    // than it reads ahead, so a complete picture never runs out.
    let padded;
    let input = if header.progressive {
        &bytes[..layout.end]
    } else {
        padded = [&bytes[..header.eoi], &[0; 16]].concat();
        &padded
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width as usize)
        .set_max_height(height as usize)
        .jpeg_set_max_scans(SCANS_MAX as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(input), options);
    decoder.decode_headers().map_err(map_error)?;
    let expected = layout.pixels() as usize * 3;
    if decoder.dimensions() != Some((width as usize, height as usize))
        || decoder.output_buffer_size() != Some(expected)
    {
        return Err(MediaError::corrupt(TYPE, "two readers of its header disagree on its size"));
    }
    let rgb = fill_shared(expected, |out| decoder.decode_into(out)).map_err(map_error)?;
    Ok(Raster::rgb(width, height, rgb))
}

fn map_error(error: DecodeErrors) -> MediaError {
    match error {
        DecodeErrors::ExhaustedData => MediaError::truncated(TYPE),
        DecodeErrors::FormatStatic("Premature end of buffer") => MediaError::truncated(TYPE),
        DecodeErrors::Unsupported(_) => unsupported("a coding that our decoder does not know"),
        other => MediaError::corrupt(TYPE, format!("{other:?}")),
    }
}
