//! GIF: walk the blocks to the trailer and count the frames, then decode the first one onto its canvas.

use std::io::Cursor;
use std::num::NonZeroU64;

use image::metadata::Orientation;

use super::error::MediaError;
use super::pixels::Raster;
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/gif";

/// The first frame's place on the canvas.
pub(super) struct First {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, First), MediaError> {
    let truncated = || MediaError::Truncated { media_type: TYPE };
    let screen = bytes.get(6..13).ok_or_else(truncated)?;
    let (screen_width, screen_height) =
        (u16_at(screen, 0).ok_or_else(truncated)?, u16_at(screen, 2).ok_or_else(truncated)?);
    if screen_width > 0 && screen_height > 0 {
        limits.admit_size(screen_width, screen_height)?;
    }
    let mut pos = 13 + palette_len(screen[4]);
    let mut first: Option<First> = None;
    let mut frames_total: u32 = 0;
    // One step a block and every block takes bytes, so this ends with them; frames cost no memory.
    loop {
        match bytes.get(pos).ok_or_else(truncated)? {
            0x2c => {
                let descriptor = bytes.get(pos + 1..pos + 10).ok_or_else(truncated)?;
                let field = |at| u16_at(descriptor, at).ok_or_else(truncated);
                frames_total = frames_total.saturating_add(1);
                if first.is_none() {
                    first =
                        Some(First { left: field(0)?, top: field(2)?, width: field(4)?, height: field(6)? });
                }
                // Past the local palette and the byte with the code size.
                pos = skip_sub_blocks(bytes, pos + 10 + palette_len(descriptor[8]) + 1)
                    .ok_or_else(truncated)?;
            }
            0x21 => pos = skip_sub_blocks(bytes, pos + 2).ok_or_else(truncated)?,
            0x3b => break,
            other => {
                return Err(MediaError::corrupt(
                    TYPE,
                    format!("byte {pos} is {other:#04x}, which begins no block"),
                ));
            }
        }
    }
    let first = first.ok_or_else(|| MediaError::corrupt(TYPE, "it has no picture"))?;
    if first.width == 0 || first.height == 0 {
        return Err(MediaError::NoPixels { width: first.width, height: first.height });
    }
    // As browsers do it: a first frame that sticks out of the screen widens the screen.
    let width = screen_width.max(first.left + first.width);
    let height = screen_height.max(first.top + first.height);
    limits.admit_size(width, height)?;
    let frame = u64::from(first.width) * u64::from(first.height);
    let canvas = u64::from(width) * u64::from(height);
    let layout = Layout {
        width,
        height,
        frames_total,
        orientation: Orientation::NoTransforms,
        end: pos + 1,
        // The frame as indexes and as RGBA beside the canvas; later RGBA and two views.
        memory: (frame * 5 + canvas * 4).max(canvas * 10),
    };
    Ok((layout, first))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).map(u32::from)
}

fn palette_len(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// From a sub-block's length byte to just past the terminator.
fn skip_sub_blocks(bytes: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        match *bytes.get(pos)? {
            0 => return Some(pos + 1),
            length => pos += 1 + usize::from(length),
        }
    }
}

pub(super) fn decode(
    bytes: &[u8],
    layout: &Layout,
    first: &First,
    limits: &Limits,
) -> Result<Raster, MediaError> {
    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    options.set_memory_limit(::gif::MemoryLimit::Bytes(
        NonZeroU64::new(limits.memory_max).unwrap_or(NonZeroU64::MIN),
    ));
    let mut decoder = options.read_info(Cursor::new(&bytes[..layout.end])).map_err(map_error)?;
    let frame = decoder
        .next_frame_info()
        .map_err(map_error)?
        .ok_or_else(|| MediaError::corrupt(TYPE, "it has no picture"))?;
    if (u32::from(frame.width), u32::from(frame.height)) != (first.width, first.height) {
        return Err(MediaError::corrupt(TYPE, "two readers of its first frame disagree on its size"));
    }
    let mut pixels = vec![0; first.width as usize * first.height as usize * 4];
    decoder.read_into_buffer(&mut pixels).map_err(map_error)?;
    if (first.width, first.height) == (layout.width, layout.height) {
        return Ok(Raster::rgba(layout.width, layout.height, pixels));
    }
    // What the frame leaves uncovered is transparent, as browsers have it; the background colour is not used.
    let stride = layout.width as usize * 4;
    let mut canvas = vec![0; stride * layout.height as usize];
    let left = first.left as usize * 4;
    let rows = pixels.chunks_exact(first.width as usize * 4);
    for (to, from) in canvas.chunks_exact_mut(stride).skip(first.top as usize).zip(rows) {
        to[left..left + from.len()].copy_from_slice(from);
    }
    Ok(Raster::rgba(layout.width, layout.height, canvas))
}

fn map_error(error: ::gif::DecodingError) -> MediaError {
    match error {
        ::gif::DecodingError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::Truncated { media_type: TYPE }
        }
        // The decoder's words for data that ends before its pixels do.
        ::gif::DecodingError::Format(e) if e.to_string() == "image truncated" => {
            MediaError::Truncated { media_type: TYPE }
        }
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
