//! Decoding one picture, and an animation frame by frame, each as a still picture of its own: the decoder's
//! own composition clears disposed frames only where told a colour, and then in the wrong places.

use std::borrow::Cow;
use std::io::Cursor;

use super::{ALPHA, Chunk, FLAGS_AT, Frame, Header, TYPE, corrupt, frame, split_chunk, truncated};
use crate::media::canvas::Patch;
use crate::media::error::MediaError;
use crate::media::frames::Reel;
use crate::media::pixels::{Raster, fill_shared};
use crate::media::{Layout, Limits};

pub(in crate::media) fn decode(
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
    still(&file, (layout.width, layout.height), header.says_opaque, limits)
}

/// A whole file with one picture.
fn still(
    file: &[u8],
    (width, height): (u32, u32),
    says_opaque: bool,
    limits: &Limits,
) -> Result<Raster, MediaError> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).map_err(map_error)?;
    decoder.set_memory_limit(usize::try_from(limits.memory_max).unwrap_or(usize::MAX));
    if decoder.dimensions() != (width, height) {
        return Err(corrupt("two readers of its header disagree on its size"));
    }
    let pixels = width as usize * height as usize;
    if !decoder.has_alpha() {
        let rgb = fill_shared(pixels * 3, |out| decoder.read_image(out)).map_err(map_error)?;
        return Ok(Raster::rgb(width, height, rgb));
    }
    let mut rgba = vec![0; pixels * 4];
    decoder.read_image(&mut rgba).map_err(map_error)?;
    if says_opaque && rgba.chunks_exact(4).any(|p| p[3] != u8::MAX) {
        return Err(corrupt("it has transparency that its picture denies"));
    }
    Ok(Raster::rgba(width, height, rgba))
}

pub(in crate::media) fn decode_frames(
    bytes: &[u8],
    layout: &Layout,
    limits: &Limits,
    reel: &mut Reel<'_>,
) -> Result<(), MediaError> {
    let mut rest = bytes.get(12..layout.end).unwrap_or_default();
    let mut at_ms = 0;
    while let Some((chunk, after)) = split_chunk(rest)? {
        rest = after;
        if chunk.kind != b"ANMF" {
            continue;
        }
        let frame = frame(chunk.body, layout.width, layout.height)?;
        if !reel.admits(frame.place.pixels()) {
            return Ok(());
        }
        let size = (frame.place.width, frame.place.height);
        let says_opaque = frame.stream.lossless && !frame.stream.alpha;
        let rgba = still(&alone(&frame), size, says_opaque, limits)?.into_rgba();
        let patch = Patch {
            place: frame.place,
            blend: frame.blend,
            dispose: frame.dispose,
            rgba: &rgba,
            stride: size.0 as usize,
        };
        reel.patch((layout.width, layout.height), &patch, at_ms)?;
        at_ms += u64::from(frame.delay_ms);
    }
    Ok(())
}

/// The frame as an extended file, with transparency announced where there may be some.
fn alone(frame: &Frame<'_>) -> Vec<u8> {
    let flags = if frame.stream.lossless || frame.alpha.is_some() { ALPHA } else { 0 };
    let mut header = vec![flags, 0, 0, 0];
    header.extend(&(frame.place.width - 1).to_le_bytes()[..3]);
    header.extend(&(frame.place.height - 1).to_le_bytes()[..3]);
    let header = Chunk { kind: b"VP8X", body: &header };
    let mut riff = b"RIFF\0\0\0\0WEBP".to_vec();
    for chunk in [Some(&header), frame.alpha.as_ref(), Some(&frame.picture)].into_iter().flatten() {
        riff.extend(chunk.kind);
        // It was read from a field of this width.
        riff.extend(u32::try_from(chunk.body.len()).unwrap_or(u32::MAX).to_le_bytes());
        riff.extend(chunk.body);
        riff.resize(riff.len().next_multiple_of(2), 0);
    }
    let size = u32::try_from(riff.len() - 8).unwrap_or(u32::MAX);
    riff[4..8].copy_from_slice(&size.to_le_bytes());
    riff
}

fn map_error(error: image_webp::DecodingError) -> MediaError {
    match error {
        image_webp::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => truncated(),
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
