//! WebP: walk the RIFF chunks, refuse what decoders read differently, then decode the first frame.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;

use super::error::MediaError;
use super::pixels::{Raster, fill_shared};
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/webp";

const ALPHA: u8 = 0x10;
const ANIMATION: u8 = 0x02;
/// Where the flags of an extended file stand.
const FLAGS_AT: usize = 20;

pub(super) struct Header {
    /// The flags an extended file should have had.
    flags: Option<u8>,
    /// A lossless picture that says it has no transparency.
    says_opaque: bool,
}

/// The size and transparency a VP8 or VP8L bitstream itself claims.
struct Bitstream {
    width: u32,
    height: u32,
    lossless: bool,
    /// VP8L only; a hint.
    alpha: bool,
}

struct Chunk<'a> {
    kind: &'a [u8],
    body: &'a [u8],
}

fn corrupt(fact: &str) -> MediaError {
    MediaError::corrupt(TYPE, fact)
}

fn truncated() -> MediaError {
    MediaError::Truncated { media_type: TYPE }
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, Header), MediaError> {
    let claimed = u32_at(bytes, 4).ok_or_else(truncated)? as usize;
    let head = bytes.get(..bytes.len().min(30)).unwrap_or_default();
    // The size first: a header alone may claim a picture too large.
    if head.get(12..16) == Some(b"VP8X") {
        let (width, height) = canvas(head.get(20..30).ok_or_else(truncated)?);
        limits.admit_size(width, height)?;
    }
    // An odd last chunk is padded by one byte, which some writers count and leave out.
    let unpadded = claimed.checked_add(7) == Some(bytes.len());
    let end = claimed.saturating_add(8) - usize::from(unpadded);
    if end > bytes.len() {
        return Err(truncated());
    }
    walk_chunks(bytes, end, limits).map_err(|e| match e {
        // Then it was not the padding that is missing.
        MediaError::Corrupt { .. } if unpadded => truncated(),
        other => other,
    })
}

fn walk_chunks(bytes: &[u8], end: usize, limits: &Limits) -> Result<(Layout, Header), MediaError> {
    let riff = bytes.get(12..end).ok_or_else(|| corrupt("its RIFF size is too small"))?;
    let (first, rest) = split_chunk(riff)?.ok_or_else(|| corrupt("it has no picture"))?;
    let (layout, header) = match first.kind {
        b"VP8 " | b"VP8L" => {
            let stream = bitstream(&first)?;
            limits.admit_size(stream.width, stream.height)?;
            // A simple file is one chunk; its alpha bit is a promise that readers keep to.
            let layout = layout(stream.width, stream.height, 1, Orientation::NoTransforms, end);
            (layout, Header { flags: None, says_opaque: false })
        }
        b"VP8X" if first.body.len() >= 10 => extended(first.body, rest, limits, end)?,
        _ => return Err(corrupt("its first chunk is no picture and no extended header")),
    };
    Ok((layout, header))
}

fn layout(width: u32, height: u32, frames_total: u32, orientation: Orientation, end: usize) -> Layout {
    let pixels = u64::from(width) * u64::from(height);
    // Lossless alpha, lossy planes, RGBA, and a canvas for animations, before the views.
    Layout { width, height, frames_total, orientation, end, memory: pixels * 14 }
}

fn extended(
    vp8x: &[u8],
    mut rest: &[u8],
    limits: &Limits,
    end: usize,
) -> Result<(Layout, Header), MediaError> {
    let (width, height) = canvas(vp8x);
    limits.admit_size(width, height)?;
    let flags = vp8x[0];
    let animated = flags & ANIMATION != 0;
    let mut orientation = None;
    let mut still: Option<Bitstream> = None;
    let mut alpha_chunk = false;
    let mut frames: u32 = 0;
    while let Some((chunk, after)) = split_chunk(rest)? {
        rest = after;
        match chunk.kind {
            b"VP8 " | b"VP8L" if still.is_some() || animated => {
                return Err(corrupt("it holds more pictures than its header says"));
            }
            b"VP8 " | b"VP8L" => still = Some(bitstream(&chunk)?),
            b"ALPH" if still.is_some() || alpha_chunk => {
                return Err(corrupt("transparency comes after its picture or twice"));
            }
            b"ALPH" => alpha_chunk = true,
            b"ANMF" if !animated => {
                return Err(corrupt("it holds an animation its header does not announce"));
            }
            b"ANMF" => {
                if frames == 0 {
                    check_first_frame(chunk.body, width, height)?;
                }
                frames = frames.saturating_add(1);
            }
            b"EXIF" if orientation.is_none() => {
                let exif = chunk.body.strip_prefix(b"Exif\0\0").unwrap_or(chunk.body);
                orientation = Some(Orientation::from_exif_chunk(exif));
            }
            _ => {}
        }
    }
    let mut fixed = flags;
    let mut says_opaque = false;
    if animated {
        // What the first frame leaves uncovered is transparent, whatever the header says.
        fixed |= ALPHA;
    } else {
        let still = still.ok_or_else(|| corrupt("it has no picture"))?;
        if (still.width, still.height) != (width, height) {
            return Err(corrupt("its picture has another size than its canvas"));
        }
        let has_alpha = if still.lossless { still.alpha } else { alpha_chunk };
        if has_alpha && flags & ALPHA == 0 {
            return Err(corrupt("it has transparency that its header denies"));
        }
        if !still.lossless && !alpha_chunk {
            fixed &= !ALPHA;
        }
        says_opaque = still.lossless && !still.alpha;
    }
    if animated && frames == 0 {
        return Err(corrupt("it has no picture"));
    }
    let orientation = orientation.flatten().unwrap_or(Orientation::NoTransforms);
    let layout = layout(width, height, frames.max(1), orientation, end);
    Ok((layout, Header { flags: Some(fixed), says_opaque }))
}

/// The decoder allocates what a bitstream claims before it compares, so compare here.
fn check_first_frame(body: &[u8], width: u32, height: u32) -> Result<(), MediaError> {
    let short = || corrupt("its first frame is too short");
    let field = |at| u24_at(body, at).ok_or_else(short);
    let (left, top) = (field(0)? * 2, field(3)? * 2);
    let (frame_width, frame_height) = (field(6)? + 1, field(9)? + 1);
    if left + frame_width > width || top + frame_height > height {
        return Err(corrupt("its first frame lies outside the canvas"));
    }
    let mut rest = body.get(16..).ok_or_else(short)?;
    while let Some((chunk, after)) = split_chunk(rest)? {
        rest = after;
        if chunk.kind == b"VP8 " || chunk.kind == b"VP8L" {
            let stream = bitstream(&chunk)?;
            if (stream.width, stream.height) != (frame_width, frame_height) {
                return Err(corrupt("its first frame's picture has another size than the frame"));
            }
            return Ok(());
        }
    }
    Err(corrupt("its first frame has no picture"))
}

/// The first chunk and what follows it; `None` at the end.
fn split_chunk(riff: &[u8]) -> Result<Option<(Chunk<'_>, &[u8])>, MediaError> {
    if riff.is_empty() {
        return Ok(None);
    }
    let overlong = || corrupt("a chunk reaches past the end of the file");
    let size = u32_at(riff, 4).ok_or_else(overlong)? as usize;
    let body = size.checked_add(8).and_then(|end| riff.get(8..end)).ok_or_else(overlong)?;
    let next = (8 + size + (size & 1)).min(riff.len());
    Ok(Some((Chunk { kind: &riff[..4], body }, &riff[next..])))
}

fn canvas(vp8x: &[u8]) -> (u32, u32) {
    (u24_at(vp8x, 4).map_or(0, |v| v + 1), u24_at(vp8x, 7).map_or(0, |v| v + 1))
}

fn bitstream(chunk: &Chunk<'_>) -> Result<Bitstream, MediaError> {
    match (chunk.kind, chunk.body) {
        (b"VP8 ", [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) if tag & 1 == 0 => Ok(Bitstream {
            width: u32::from(u16::from_le_bytes([*w0, *w1]) & 0x3fff),
            height: u32::from(u16::from_le_bytes([*h0, *h1]) & 0x3fff),
            lossless: false,
            alpha: false,
        }),
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            Ok(Bitstream {
                width: (bits & 0x3fff) + 1,
                height: ((bits >> 14) & 0x3fff) + 1,
                lossless: true,
                alpha: bits >> 28 & 1 != 0,
            })
        }
        _ => Err(corrupt("its picture does not begin like one")),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 3).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0]))
}

pub(super) fn decode(
    bytes: &[u8],
    layout: &Layout,
    header: &Header,
    limits: &Limits,
) -> Result<Raster, MediaError> {
    // Only what the RIFF size covers: the decoder itself would read chunks from trailing data.
    let mut file = Cow::Borrowed(&bytes[..layout.end]);
    if let Some(flags) = header.flags
        && file[FLAGS_AT] != flags
    {
        file.to_mut()[FLAGS_AT] = flags;
    }
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(&*file)).map_err(map_error)?;
    decoder.set_memory_limit(usize::try_from(limits.memory_max).unwrap_or(usize::MAX));
    if decoder.dimensions() != (layout.width, layout.height) {
        return Err(corrupt("two readers of its header disagree on its size"));
    }
    let pixels = layout.pixels() as usize;
    if !decoder.has_alpha() {
        let rgb = fill_shared(pixels * 3, |out| decoder.read_image(out)).map_err(map_error)?;
        return Ok(Raster::rgb(layout.width, layout.height, rgb));
    }
    let mut rgba = vec![0; pixels * 4];
    decoder.read_image(&mut rgba).map_err(map_error)?;
    if header.says_opaque && rgba.chunks_exact(4).any(|p| p[3] != u8::MAX) {
        return Err(corrupt("it has transparency that its picture denies"));
    }
    Ok(Raster::rgba(layout.width, layout.height, rgba))
}

fn map_error(error: image_webp::DecodingError) -> MediaError {
    match error {
        image_webp::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => truncated(),
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
