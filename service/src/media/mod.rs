//! Bytes in, upright opaque pictures out: what a judge may look at, or a reason why nobody may.
//!
//! [`look`] is one pure, blocking function: sniff the type by content → walk the container (where
//! does the picture end, how big does it say it is, how many frames) → hold that against the limits
//! before a pixel is allocated → look at what follows the picture → decode strictly → orient → lay
//! transparency over white and over black.
//!
//! The walks are ours and the decoders are the crates under `image`, called directly: `image` decodes
//! a truncated JPEG to grey without a word, ignores its own limits for WebP and inflates text chunks.
//! A picture that two decoders could read differently (contradicting flags, two images in one file)
//! is refused rather than guessed: what the judge sees must be what people will see.
//!
//! To add a format: one file with `walk` and `decode`, one variant in [`sniff::Format`].

mod bmp;
mod error;
mod gif;
mod jpeg;
pub mod keep;
mod pixels;
mod png;
mod sniff;
mod trailing;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use shieldgate_models::Picture;

pub use error::{ErrorKind, MediaError};
use sniff::Format;

use crate::verdict::Background;

/// Part of every judge digest: raise it whenever any picture may come out with other pixels or views,
/// so that a fixed decoder never serves old judgements.
pub const PIPELINE_VERSION: &str = "media-1";

/// What one picture may cost. Checked from the header, before anything is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub bytes_max: u64,
    /// Width × height.
    pub pixels_max: u64,
    pub side_max: u32,
    /// Estimated peak of decoding, beyond the input itself.
    pub memory_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 20 << 20, pixels_max: 50_000_000, side_max: 30_000, memory_max: 1 << 30 }
    }
}

impl Limits {
    /// Called by every walk as soon as it knows the size a header claims.
    fn admit_size(&self, width: u32, height: u32) -> Result<(), MediaError> {
        if width == 0 || height == 0 {
            return Err(MediaError::NoPixels { width, height });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.pixels_max {
            return Err(MediaError::TooManyPixels { width, height, pixels_max: self.pixels_max });
        }
        if width.max(height) > self.side_max {
            return Err(MediaError::SideTooLong { width, height, side_max: self.side_max });
        }
        Ok(())
    }

    fn admit_memory(&self, layout: &Layout) -> Result<(), MediaError> {
        if layout.memory > self.memory_max {
            return Err(MediaError::TooMuchMemory { needed: layout.memory, memory_max: self.memory_max });
        }
        Ok(())
    }
}

/// One picture to judge. Several views of one frame differ in what lies under the transparency.
#[derive(Debug, Clone)]
pub struct View {
    pub picture: Picture,
    /// Index of the frame, from 0.
    pub frame: u32,
    pub at_ms: u64,
    /// `None` where every pixel is opaque.
    pub background: Option<Background>,
}

/// What was found in the bytes, and the views to judge (never none).
#[derive(Debug, Clone)]
pub struct Looked {
    /// By content, never by the header.
    pub media_type: &'static str,
    /// After orientation.
    pub width: u32,
    pub height: u32,
    /// Exact, counted in the container; only frame 0 is among the views for now.
    pub frames_total: u32,
    /// Bytes after the picture's end that no decoder looked at; `None` where there are none.
    pub trailing_bytes: Option<u64>,
    pub views: Vec<View>,
}

/// What a walk over the container learns without decoding.
struct Layout {
    width: u32,
    height: u32,
    frames_total: u32,
    orientation: Orientation,
    /// Where the picture ends; what follows is trailing data.
    end: usize,
    /// Estimated peak bytes of decoding, the views included, the input not.
    memory: u64,
}

impl Layout {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Blocking and pure: call it off the async threads. Never panics.
pub fn look(bytes: &[u8], limits: &Limits) -> Result<Looked, MediaError> {
    // The decoders index slices by values from the file. Known ways to panic are refused by the walks;
    // one that is not known must cost one request, not the service.
    catch_unwind(AssertUnwindSafe(|| look_unguarded(bytes, limits)))
        .unwrap_or(Err(MediaError::DecoderPanicked))
}

fn look_unguarded(bytes: &[u8], limits: &Limits) -> Result<Looked, MediaError> {
    let actual = bytes.len() as u64;
    if actual == 0 {
        return Err(MediaError::Empty);
    }
    if actual > limits.bytes_max {
        return Err(MediaError::TooManyBytes { bytes: actual, bytes_max: limits.bytes_max });
    }
    let format = sniff::sniff(bytes)?;
    let (layout, raster) = match format {
        Format::Jpeg => {
            let (layout, header) = jpeg::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let raster = jpeg::decode(bytes, &layout, &header)?;
            (layout, raster)
        }
        Format::Png => {
            let layout = png::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let raster = png::decode(bytes, &layout, limits)?;
            (layout, raster)
        }
        Format::WebP => {
            let (layout, header) = webp::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let raster = webp::decode(bytes, &layout, &header, limits)?;
            (layout, raster)
        }
        Format::Gif => {
            let (layout, first) = gif::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let raster = gif::decode(bytes, &layout, &first, limits)?;
            (layout, raster)
        }
        Format::Bmp => {
            let layout = bmp::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let raster = bmp::decode(bytes, &layout)?;
            (layout, raster)
        }
    };
    let raster = raster.oriented(layout.orientation);
    let (width, height) = (raster.width(), raster.height());
    let views = raster
        .into_pictures()?
        .into_iter()
        .map(|(picture, background)| View { picture, frame: 0, at_ms: 0, background })
        .collect();
    let trailing = (bytes.len() - layout.end) as u64;
    Ok(Looked {
        media_type: format.media_type(),
        width,
        height,
        frames_total: layout.frames_total,
        trailing_bytes: (trailing > 0).then_some(trailing),
        views,
    })
}

/// Between walk and decode: everything that can be refused without a pixel.
fn admit(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<(), MediaError> {
    limits.admit_memory(layout)?;
    trailing::inspect(bytes, layout.end)
}
