//! WebP: walk the RIFF chunks, refuse what decoders read differently, then decode.

mod decode;

use image::metadata::Orientation;

pub(super) use self::decode::{decode, decode_frames};
use super::canvas::{Blend, Dispose, Rect};
use super::error::MediaError;
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/webp";

const ALPHA: u8 = 0x10;
const ANIMATION: u8 = 0x02;
/// Where the flags of an extended file stand.
const FLAGS_AT: usize = 20;

pub(super) enum Content {
    Still(Header),
    Animation { duration_ms: u64 },
}

/// What decoding a still picture needs to know beyond the [`Layout`].
pub(super) struct Header {
    /// The flags an extended file should have had.
    flags: Option<u8>,
    /// A lossless picture that says it has no transparency.
    says_opaque: bool,
}

/// One frame of an animation.
struct Frame<'a> {
    place: Rect,
    delay_ms: u32,
    blend: Blend,
    dispose: Dispose,
    /// In front of a lossy picture.
    alpha: Option<Chunk<'a>>,
    picture: Chunk<'a>,
    stream: Bitstream,
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
    MediaError::truncated(TYPE)
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, Content), MediaError> {
    let claimed = u32_at(bytes, 4).ok_or_else(truncated)? as usize;
    let head = bytes.get(..bytes.len().min(30)).unwrap_or_default();
    // The size first: a header alone may claim a picture too large.
    if head.get(12..16) == Some(b"VP8X") {
        let (width, height) = canvas_size(head.get(20..30).ok_or_else(truncated)?);
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

fn walk_chunks(bytes: &[u8], end: usize, limits: &Limits) -> Result<(Layout, Content), MediaError> {
    let riff = bytes.get(12..end).ok_or_else(|| corrupt("its RIFF size is too small"))?;
    let (first, rest) = split_chunk(riff)?.ok_or_else(|| corrupt("it has no picture"))?;
    Ok(match first.kind {
        b"VP8 " | b"VP8L" => {
            let stream = bitstream(&first)?;
            limits.admit_size(stream.width, stream.height)?;
            // A simple file is one chunk; its alpha bit is a promise that readers keep to.
            let layout = still(stream.width, stream.height, Orientation::NoTransforms, end);
            (layout, Content::Still(Header { flags: None, says_opaque: false }))
        }
        b"VP8X" if first.body.len() >= 10 => extended(first.body, rest, limits, end)?,
        _ => return Err(corrupt("its first chunk is no picture and no extended header")),
    })
}

fn still(width: u32, height: u32, orientation: Orientation, end: usize) -> Layout {
    let pixels = u64::from(width) * u64::from(height);
    // Lossless alpha, lossy planes and RGBA, before the views.
    Layout { width, height, frames_total: 1, orientation, end, memory: pixels * 14, doubts: Vec::new() }
}

fn extended(
    vp8x: &[u8],
    mut rest: &[u8],
    limits: &Limits,
    end: usize,
) -> Result<(Layout, Content), MediaError> {
    let (width, height) = canvas_size(vp8x);
    limits.admit_size(width, height)?;
    let flags = vp8x[0];
    let animated = flags & ANIMATION != 0;
    let mut orientation = None;
    let mut picture: Option<Bitstream> = None;
    let mut alpha_chunk = false;
    let (mut frames, mut duration_ms, mut largest) = (0u32, 0, 0);
    while let Some((chunk, after)) = split_chunk(rest)? {
        rest = after;
        match chunk.kind {
            b"VP8 " | b"VP8L" if picture.is_some() || animated => {
                return Err(corrupt("it holds more pictures than its header says"));
            }
            b"VP8 " | b"VP8L" => picture = Some(bitstream(&chunk)?),
            b"ALPH" if picture.is_some() || alpha_chunk => {
                return Err(corrupt("transparency comes after its picture or twice"));
            }
            b"ALPH" => alpha_chunk = true,
            b"ANMF" if !animated => {
                return Err(corrupt("it holds an animation its header does not announce"));
            }
            b"ANMF" => {
                let frame = frame(chunk.body, width, height)?;
                frames = frames.saturating_add(1);
                duration_ms += u64::from(frame.delay_ms);
                largest = largest.max(frame.place.pixels());
            }
            b"EXIF" if orientation.is_none() => {
                let exif = chunk.body.strip_prefix(b"Exif\0\0").unwrap_or(chunk.body);
                orientation = Some(Orientation::from_exif_chunk(exif));
            }
            _ => {}
        }
    }
    let orientation = orientation.flatten().unwrap_or(Orientation::NoTransforms);
    if animated {
        if frames == 0 {
            return Err(corrupt("it has no picture"));
        }
        let pixels = u64::from(width) * u64::from(height);
        let turned = if orientation == Orientation::NoTransforms { 0 } else { 4 };
        // A frame as a still picture of its own, one that may be RGB made RGBA, the canvas, two views.
        let memory = largest * 18 + pixels * (10 + turned);
        let layout =
            Layout { width, height, frames_total: frames, orientation, end, memory, doubts: Vec::new() };
        return Ok((layout, Content::Animation { duration_ms }));
    }
    let picture = picture.ok_or_else(|| corrupt("it has no picture"))?;
    if (picture.width, picture.height) != (width, height) {
        return Err(corrupt("its picture has another size than its canvas"));
    }
    let has_alpha = if picture.lossless { picture.alpha } else { alpha_chunk };
    if has_alpha && flags & ALPHA == 0 {
        return Err(corrupt("it has transparency that its header denies"));
    }
    let lossy_opaque = !picture.lossless && !alpha_chunk;
    let flags = if lossy_opaque { flags & !ALPHA } else { flags };
    let says_opaque = picture.lossless && !picture.alpha;
    let header = Header { flags: Some(flags), says_opaque };
    Ok((still(width, height, orientation, end), Content::Still(header)))
}

/// The decoder allocates what a bitstream claims before it compares, so compare here.
fn frame(body: &[u8], width: u32, height: u32) -> Result<Frame<'_>, MediaError> {
    let short = || corrupt("a frame is too short");
    let field = |at| u24_at(body, at).ok_or_else(short);
    let place = Rect { left: field(0)? * 2, top: field(3)? * 2, width: field(6)? + 1, height: field(9)? + 1 };
    if place.left + place.width > width || place.top + place.height > height {
        return Err(corrupt("a frame lies outside the canvas"));
    }
    let delay_ms = field(12)?;
    let flags = *body.get(15).ok_or_else(short)?;
    let mut rest = body.get(16..).ok_or_else(short)?;
    let mut alpha = None;
    let mut picture = None;
    while let Some((chunk, after)) = split_chunk(rest)? {
        rest = after;
        match chunk.kind {
            b"ALPH" if alpha.is_some() || picture.is_some() => {
                return Err(corrupt("a frame's transparency comes after its picture or twice"));
            }
            b"ALPH" => alpha = Some(chunk),
            b"VP8 " | b"VP8L" if picture.is_some() => return Err(corrupt("a frame holds two pictures")),
            b"VP8 " | b"VP8L" => {
                let stream = bitstream(&chunk)?;
                if (stream.width, stream.height) != (place.width, place.height) {
                    return Err(corrupt("a frame's picture has another size than the frame"));
                }
                picture = Some((chunk, stream));
            }
            _ => {}
        }
    }
    let (picture, stream) = picture.ok_or_else(|| corrupt("a frame has no picture"))?;
    if stream.lossless && alpha.is_some() {
        return Err(corrupt("a frame has transparency twice"));
    }
    Ok(Frame {
        place,
        delay_ms,
        blend: if flags & 2 == 0 { Blend::Over } else { Blend::Replace },
        // Browsers clear to nothing; the background colour is not used.
        dispose: if flags & 1 == 0 { Dispose::Keep } else { Dispose::Clear },
        alpha,
        picture,
        stream,
    })
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

fn canvas_size(vp8x: &[u8]) -> (u32, u32) {
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
