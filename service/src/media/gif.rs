//! GIF: walk the blocks to the trailer and count the frames, then decode and paint one after the other.

use std::io::Cursor;
use std::num::NonZeroU64;

use image::metadata::Orientation;

use super::canvas::{Blend, Dispose, Patch, Rect};
use super::error::MediaError;
use super::frames::Reel;
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/gif";

/// What the container says about one frame.
struct Frame {
    place: Rect,
    /// Tens of milliseconds until the next one.
    delay: u16,
    dispose: Dispose,
}

/// The frames in a file's blocks, in order and without decoding: one step a block and every block takes
/// bytes, so this ends with them.
struct Frames<'a> {
    bytes: &'a [u8],
    pos: usize,
    delay: u16,
    dispose: Dispose,
}

fn truncated() -> MediaError {
    MediaError::truncated(TYPE)
}

impl<'a> Frames<'a> {
    /// Past the screen descriptor and its palette.
    fn new(bytes: &'a [u8]) -> Result<Self, MediaError> {
        let flags = *bytes.get(10).ok_or_else(truncated)?;
        Ok(Self { bytes, pos: 13 + palette_len(flags), delay: 0, dispose: Dispose::Keep })
    }

    /// `None` at the trailer, which `pos` is then past.
    fn next(&mut self) -> Result<Option<Frame>, MediaError> {
        let bytes = self.bytes;
        loop {
            let pos = self.pos;
            match bytes.get(pos).ok_or_else(truncated)? {
                0x2c => {
                    let descriptor = bytes.get(pos + 1..pos + 10).ok_or_else(truncated)?;
                    let field = |at| u16_at(descriptor, at).ok_or_else(truncated);
                    let place = Rect { left: field(0)?, top: field(2)?, width: field(4)?, height: field(6)? };
                    // Past the local palette and the byte with the code size.
                    let data = pos + 10 + palette_len(descriptor[8]) + 1;
                    self.pos = skip_sub_blocks(bytes, data).ok_or_else(truncated)?;
                    let delay = std::mem::take(&mut self.delay);
                    let dispose = std::mem::replace(&mut self.dispose, Dispose::Keep);
                    return Ok(Some(Frame { place, delay, dispose }));
                }
                0x21 => {
                    if let Some([0xf9, 4, flags, d0, d1, _, 0]) = bytes.get(pos + 1..pos + 8) {
                        self.delay = u16::from_le_bytes([*d0, *d1]);
                        self.dispose = match flags >> 2 & 7 {
                            2 => Dispose::Clear,
                            // Some encoders took the third bit for the number three; browsers follow them.
                            3 | 4 => Dispose::Restore,
                            _ => Dispose::Keep,
                        };
                    }
                    self.pos = skip_sub_blocks(bytes, pos + 2).ok_or_else(truncated)?;
                }
                0x3b => {
                    self.pos = pos + 1;
                    return Ok(None);
                }
                other => {
                    return Err(MediaError::corrupt(
                        TYPE,
                        format!("byte {pos} is {other:#04x}, which begins no block"),
                    ));
                }
            }
        }
    }
}

/// The layout, and how long the animation takes in milliseconds.
pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, u64), MediaError> {
    let screen = bytes.get(6..13).ok_or_else(truncated)?;
    let (screen_width, screen_height) =
        (u16_at(screen, 0).ok_or_else(truncated)?, u16_at(screen, 2).ok_or_else(truncated)?);
    if screen_width > 0 && screen_height > 0 {
        limits.admit_size(screen_width, screen_height)?;
    }
    let mut frames = Frames::new(bytes)?;
    let mut canvas: Option<(u32, u32)> = None;
    let (mut frames_total, mut duration_ms, mut largest, mut restores) = (0u32, 0, 0, false);
    while let Some(frame) = frames.next()? {
        // Also those that stick out are decoded whole.
        limits.admit_size(frame.place.width, frame.place.height)?;
        // As browsers do it: a first frame that sticks out of the screen widens the screen.
        canvas.get_or_insert((
            screen_width.max(frame.place.left + frame.place.width),
            screen_height.max(frame.place.top + frame.place.height),
        ));
        frames_total = frames_total.saturating_add(1);
        duration_ms += u64::from(frame.delay) * 10;
        largest = largest.max(frame.place.pixels());
        restores |= frame.dispose == Dispose::Restore;
    }
    let (width, height) = canvas.ok_or_else(|| MediaError::corrupt(TYPE, "it has no picture"))?;
    limits.admit_size(width, height)?;
    let pixels = u64::from(width) * u64::from(height);
    let layout = Layout {
        width,
        height,
        frames_total,
        orientation: Orientation::NoTransforms,
        end: frames.pos,
        // The frame as indexes and as RGBA; the canvas, what is under a passing frame, two views.
        memory: largest * 5 + pixels * (if restores { 14 } else { 10 }),
        doubts: Vec::new(),
    };
    Ok((layout, duration_ms))
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

pub(super) fn decode_frames(
    bytes: &[u8],
    layout: &Layout,
    limits: &Limits,
    reel: &mut Reel<'_>,
) -> Result<(), MediaError> {
    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    options.set_memory_limit(::gif::MemoryLimit::Bytes(
        NonZeroU64::new(limits.memory_max).unwrap_or(NonZeroU64::MIN),
    ));
    let mut decoder = options.read_info(Cursor::new(&bytes[..layout.end])).map_err(map_error)?;
    let mut frames = Frames::new(bytes)?;
    let mut rgba = Vec::new();
    let mut at_ms = 0;
    while let Some(frame) = frames.next()? {
        if !reel.admits(frame.place.pixels()) {
            return Ok(());
        }
        let coded = decoder
            .next_frame_info()
            .map_err(map_error)?
            .ok_or_else(|| MediaError::corrupt(TYPE, "two readers of it disagree on its frames"))?;
        if (u32::from(coded.width), u32::from(coded.height)) != (frame.place.width, frame.place.height) {
            return Err(MediaError::corrupt(TYPE, "two readers of a frame disagree on its size"));
        }
        rgba.resize(frame.place.pixels() as usize * 4, 0);
        decoder.read_into_buffer(&mut rgba).map_err(map_error)?;
        let patch = Patch {
            place: frame.place,
            blend: Blend::Over,
            dispose: frame.dispose,
            rgba: &rgba,
            stride: frame.place.width as usize,
        };
        reel.patch((layout.width, layout.height), &patch, at_ms)?;
        at_ms += u64::from(frame.delay) * 10;
    }
    Ok(())
}

fn map_error(error: ::gif::DecodingError) -> MediaError {
    match error {
        ::gif::DecodingError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => truncated(),
        // The decoder's words for data that ends before its pixels do.
        ::gif::DecodingError::Format(e) if e.to_string() == "image truncated" => truncated(),
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
