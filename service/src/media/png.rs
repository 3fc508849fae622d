//! PNG and APNG: walk the chunks to IEND, then decode without touching text chunks.

use std::io::Cursor;

use image::metadata::Orientation;

use super::canvas::{Blend, Dispose, Patch, Rect};
use super::error::MediaError;
use super::frames::Reel;
use super::pixels::{Raster, fill_shared};
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/png";

/// There is one, and the still picture may be its first frame.
pub(super) struct Animation {
    pub duration_ms: u64,
}

/// What a walk knows of an animation so far.
#[derive(Default)]
struct Control {
    /// What its header promises.
    announced: Option<u32>,
    frames: u32,
    default_is_frame: bool,
    duration_us: u64,
}

impl Control {
    /// A frame's header: the frame whose data follows.
    fn frame(&mut self, body: &[u8], pictured: bool, size: Option<(u32, u32)>) -> Result<(), MediaError> {
        let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
        if self.announced.is_none() {
            return Err(corrupt("it holds an animation its header does not announce"));
        }
        if !pictured {
            // The image data is then the animation's first frame, and must be a whole one.
            let claims = u32_at(body, 4).zip(u32_at(body, 8));
            let offset = u32_at(body, 12).zip(u32_at(body, 16));
            if self.default_is_frame || claims != size || offset != Some((0, 0)) {
                return Err(corrupt("its first animation frame does not fill the picture"));
            }
            self.default_is_frame = true;
        }
        self.frames = self.frames.saturating_add(1);
        let delay = body.get(20..24).ok_or_else(|| corrupt("a frame header is too short"))?;
        self.duration_us += delay_us([delay[0], delay[1]], [delay[2], delay[3]]);
        Ok(())
    }

    /// The number of frames, the still picture included, and whether there is an animation.
    fn finish(&self) -> Result<(u32, Option<Animation>), MediaError> {
        match self.announced {
            None => Ok((1, None)),
            Some(announced) if announced != self.frames => Err(MediaError::corrupt(
                TYPE,
                format!("its animation should have {announced} frames and has {}", self.frames),
            )),
            Some(announced) => {
                // The still picture is shown where animation is not, so it counts as one more.
                let still = u32::from(!self.default_is_frame);
                let animation = Animation { duration_ms: self.duration_us / 1000 };
                Ok((announced.saturating_add(still), Some(animation)))
            }
        }
    }
}

/// A fraction of a second, big-endian; hundredths where the denominator is 0.
fn delay_us(numerator: [u8; 2], denominator: [u8; 2]) -> u64 {
    let denominator = match u16::from_be_bytes(denominator) {
        0 => 100,
        denominator => u64::from(denominator),
    };
    u64::from(u16::from_be_bytes(numerator)) * 1_000_000 / denominator
}

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<(Layout, Option<Animation>), MediaError> {
    let truncated = || MediaError::truncated(TYPE);
    let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
    let mut size = None;
    let mut orientation = Orientation::NoTransforms;
    let mut pictured = false;
    let mut control = Control::default();
    let mut pos = 8; // past the signature
    loop {
        let length = u32_at(bytes, pos).ok_or_else(truncated)?;
        let kind = bytes.get(pos + 4..pos + 8).ok_or_else(truncated)?;
        if length > i32::MAX as u32 {
            return Err(corrupt("a chunk claims more than 2³¹ − 1 bytes"));
        }
        let body_end = pos + 8 + length as usize;
        // The size is wanted before the end is sought: a header alone may claim a picture too large.
        if size.is_none() {
            if kind != b"IHDR" || length != 13 {
                return Err(corrupt("it does not begin with an image header"));
            }
            let (width, height) =
                u32_at(bytes, pos + 8).zip(u32_at(bytes, pos + 12)).ok_or_else(truncated)?;
            limits.admit_size(width, height)?;
            size = Some((width, height));
        } else if kind == b"IHDR" {
            return Err(corrupt("it has two image headers"));
        }
        let body = bytes.get(pos + 8..body_end).ok_or_else(truncated)?;
        pos = body_end + 4; // past the checksum
        if pos > bytes.len() {
            return Err(truncated());
        }
        match kind {
            b"IDAT" => pictured = true,
            b"acTL" if pictured || control.announced.is_some() => {
                return Err(corrupt("its animation header comes after the picture or twice"));
            }
            b"acTL" => {
                control.announced =
                    Some(u32_at(body, 0).ok_or_else(|| corrupt("its animation header is too short"))?);
            }
            b"fcTL" => control.frame(body, pictured, size)?,
            b"eXIf" => {
                if let Some(found) = Orientation::from_exif_chunk(body) {
                    orientation = found;
                }
            }
            b"CgBI" => {
                return Err(MediaError::variant(TYPE, "Apple's CgBI form"));
            }
            b"IEND" => break,
            _ => {}
        }
    }
    let (width, height) = size.ok_or_else(truncated)?;
    if !pictured {
        return Err(corrupt("it ends before any picture data"));
    }
    let (frames_total, animation) = control.finish()?;
    let pixels = u64::from(width) * u64::from(height);
    // Still: RGBA and two RGB views of it, or RGBA twice while it is turned. Animated: a frame as decoded
    // and as RGBA, the canvas, what is under a passing frame, a turned copy, two views.
    let each = match (&animation, orientation) {
        (None, _) => 10,
        (Some(_), Orientation::NoTransforms) => 22,
        (Some(_), _) => 26,
    };
    let memory = pixels * each;
    let layout = Layout { width, height, frames_total, orientation, end: pos, memory, doubts: Vec::new() };
    Ok((layout, animation))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

/// A picture without animation. Of 16-bit samples the high byte is taken, as libpng's `png_set_strip_16` and
/// Pillow do; it is at most one level below the nearest.
pub(super) fn decode(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<Raster, MediaError> {
    let (width, height) = (layout.width, layout.height);
    let memory = usize::try_from(limits.memory_max).unwrap_or(usize::MAX);
    let mut decoder =
        ::png::Decoder::new_with_limits(Cursor::new(&bytes[..layout.end]), ::png::Limits { bytes: memory });
    // Nothing of theirs is wanted, and both inflate.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(::png::Transformations::EXPAND | ::png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(map_error)?;
    if reader.info().size() != (width, height) {
        return Err(MediaError::corrupt(TYPE, "two readers of its header disagree on its size"));
    }
    let (color, depth) = reader.output_color_type();
    let expected = layout.pixels() as usize * color.samples();
    if depth != ::png::BitDepth::Eight || reader.output_buffer_size() != Some(expected) {
        return Err(MediaError::corrupt(TYPE, "its pixels do not expand to 8 bits a sample"));
    }
    if color == ::png::ColorType::Rgb {
        let rgb = fill_shared(expected, |out| reader.next_frame(out).map(drop)).map_err(map_error)?;
        return Ok(Raster::rgb(width, height, rgb));
    }
    let mut out = vec![0; expected];
    reader.next_frame(&mut out).map_err(map_error)?;
    Ok(match color {
        ::png::ColorType::Rgba => Raster::rgba(width, height, out),
        ::png::ColorType::Grayscale => Raster::gray(width, height, &out),
        ::png::ColorType::GrayscaleAlpha => Raster::gray_alpha(width, height, &out),
        // EXPAND leaves no palette.
        ::png::ColorType::Rgb | ::png::ColorType::Indexed => {
            return Err(MediaError::corrupt(TYPE, "its palette is missing"));
        }
    })
}

/// The still picture, where it is no part of the animation, and then the animation.
pub(super) fn decode_frames(bytes: &[u8], layout: &Layout, reel: &mut Reel<'_>) -> Result<(), MediaError> {
    // The decoder counts a row for each frame against its limit and never gives it back. What it holds
    // is bounded by the size that the walk admitted and by the bytes at hand.
    let limits = ::png::Limits { bytes: usize::MAX };
    let mut decoder = ::png::Decoder::new_with_limits(Cursor::new(&bytes[..layout.end]), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(
        ::png::Transformations::EXPAND | ::png::Transformations::ALPHA | ::png::Transformations::STRIP_16,
    );
    let mut reader = decoder.read_info().map_err(map_error)?;
    let whole = Rect { left: 0, top: 0, width: layout.width, height: layout.height };
    if reader.info().size() != (whole.width, whole.height) {
        return Err(MediaError::corrupt(TYPE, "two readers of its header disagree on its size"));
    }
    let interlaced = reader.info().interlaced;
    let (color, depth) = reader.output_color_type();
    let samples = color.samples();
    let expected = layout.pixels() as usize * samples;
    if depth != ::png::BitDepth::Eight
        || !matches!(color, ::png::ColorType::GrayscaleAlpha | ::png::ColorType::Rgba)
        || reader.output_buffer_size() != Some(expected)
    {
        return Err(MediaError::corrupt(TYPE, "its pixels do not expand to 8 bits a sample"));
    }
    let mut decoded = vec![0; expected];
    let mut rgba = Vec::new();
    let mut at_us = 0;
    for index in 0..layout.frames_total {
        if index > 0 {
            // Only once the frame before is whole: what is left of its data is read, not skipped.
            reader.next_frame_info().map_err(map_error)?;
        }
        let control = reader.info().frame_control;
        let place = control.map_or(whole, |c| Rect {
            left: c.x_offset,
            top: c.y_offset,
            width: c.width,
            height: c.height,
        });
        if !reel.admits(place.pixels()) {
            return Ok(());
        }
        reader.next_frame(&mut decoded).map_err(map_error)?;
        // Interlaced rows are laid out as if each filled the picture.
        let stride = if interlaced { whole.width } else { place.width } as usize;
        let pixels = if samples == 4 {
            &decoded
        } else {
            rgba.clear();
            let used = &decoded.as_chunks::<2>().0[..stride * place.height as usize];
            rgba.extend(used.iter().flat_map(|&[gray, a]| [gray, gray, gray, a]));
            &rgba
        };
        let patch = Patch {
            place,
            blend: match control.map(|c| c.blend_op) {
                Some(::png::BlendOp::Over) => Blend::Over,
                Some(::png::BlendOp::Source) | None => Blend::Replace,
            },
            dispose: match control.map(|c| c.dispose_op) {
                Some(::png::DisposeOp::None) => Dispose::Keep,
                Some(::png::DisposeOp::Previous) => Dispose::Restore,
                // The animation begins on an empty canvas, also behind a still picture of its own.
                Some(::png::DisposeOp::Background) | None => Dispose::Clear,
            },
            rgba: pixels,
            stride,
        };
        reel.patch((whole.width, whole.height), &patch, at_us / 1000)?;
        if let Some(c) = control {
            at_us += delay_us(c.delay_num.to_be_bytes(), c.delay_den.to_be_bytes());
        }
    }
    Ok(())
}

fn map_error(error: ::png::DecodingError) -> MediaError {
    match error {
        ::png::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::truncated(TYPE)
        }
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
