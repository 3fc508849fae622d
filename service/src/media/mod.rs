//! Bytes in, upright opaque pictures out: what a judge may look at, or a reason why nobody may.
//!
//! [`look`] is one pure, blocking function: sniff the type by content → walk the container (where
//! does the picture end, how big does it say it is, how many frames) → hold that against the limits
//! before a pixel is allocated → look at what follows the picture → decode strictly → compose the frames
//! as browsers do and choose among them ([`frames`]) → orient → lay transparency over white and over black.
//!
//! The walks are ours and the decoders are the crates under `image`, called directly: `image` decodes
//! a truncated JPEG to grey without a word, ignores its own limits for WebP, inflates text chunks, and
//! disposes of WebP frames as no browser does.
//! A picture that two decoders could read differently (contradicting flags, two images in one file)
//! is refused rather than guessed: what the judge sees must be what people will see. Where only the
//! colours are in doubt, the doubt is stated ([`Doubt`]) and a person decides.
//!
//! To add a format: one file with `walk` and `decode`, one variant in [`sniff::Format`].

mod bmp;
mod canvas;
mod error;
mod frames;
mod gif;
mod jpeg;
pub mod keep;
mod pdq;
mod pixels;
mod png;
mod sniff;
mod tiff;
mod trailing;
mod webp;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use image::metadata::Orientation;
use serde::{Deserialize, Serialize};
use shieldgate_models::Picture;

pub use error::{ErrorKind, MediaError};
use frames::{Reel, Shown};
pub use pdq::Pdq;
use sniff::Format;

use crate::verdict::Background;

/// Part of every judge digest: raise it whenever any picture may come out with other pixels or views,
/// so that a fixed decoder never serves old judgements.
pub const PIPELINE_VERSION: &str = "media-2";

/// What one picture may cost. Checked from the header, before anything is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub bytes_max: u64,
    /// Width × height.
    pub pixels_max: u64,
    pub side_max: u32,
    /// Estimated peak of decoding, beyond the input itself. Where a file has more frames than fit, fewer
    /// are kept.
    pub memory_max: u64,
    /// Distinct frames kept of one file.
    pub frames_max: u32,
    /// Pixels decoded, painted and compared over all frames of a file. The first frame is always seen; those
    /// that this leaves no room for stay unscored.
    pub frame_pixels_max: u64,
    /// CPU time; the other limits keep honest pictures far below. Held by whoever watches the decoder
    /// ([`crate::decoders`]), not by [`look`].
    pub cpu_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 20 << 20,
            pixels_max: 50_000_000,
            side_max: 30_000,
            memory_max: 1 << 30,
            frames_max: 16,
            frame_pixels_max: 250_000_000,
            cpu_max: Duration::from_secs(20),
        }
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
        let needed = layout.needed();
        if needed > self.memory_max {
            return Err(MediaError::TooMuchMemory { needed, memory_max: self.memory_max });
        }
        Ok(())
    }
}

/// One picture to judge. Several views of one frame differ in what lies under the transparency.
#[derive(Debug, Clone)]
pub struct View {
    pub picture: Picture,
    /// Index in the file, from 0; of several frames that look alike the first.
    pub frame: u32,
    /// When that frame is first shown: the sum of the delays before it, as the file states them. (Players
    /// stretch very short ones, a GIF's 10 ms to 100 ms.) 0 for the pages of a document.
    pub at_ms: u64,
    /// `None` where every pixel is opaque.
    pub background: Option<Background>,
}

/// Something that keeps what was seen from being sure to be what people will see: at least a review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Machine-readable and stable: `colour_unproven`.
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

/// What was found in the bytes, and the views to judge (never none).
#[derive(Debug, Clone)]
pub struct Looked {
    /// By content, never by the header.
    pub media_type: Cow<'static, str>,
    /// Of the first frame, after orientation. The pages of a TIFF may differ.
    pub width: u32,
    pub height: u32,
    /// Exact, counted in the container.
    pub frames_total: u32,
    /// How many of them look exactly like a frame among the views. Fewer than all means that
    /// [`Limits::frames_max`], memory or [`Limits::frame_pixels_max`] left some out.
    pub frames_scored: u32,
    /// Frames that differ from all before them; `None` where [`Limits::frame_pixels_max`] ended the count.
    pub frames_distinct: Option<u32>,
    /// Bytes after the picture's end that no decoder looked at; `None` where there are none.
    pub trailing_bytes: Option<u64>,
    pub doubts: Vec<Doubt>,
    /// Of the first view; `None` where a side is shorter than 5 pixels.
    pub pdq: Option<Pdq>,
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
    /// Estimated peak bytes of decoding, the views of one frame included, the input not.
    memory: u64,
    doubts: Vec<Doubt>,
}

impl Layout {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Memory, the hash included.
    fn needed(&self) -> u64 {
        self.memory.saturating_add(pdq::MEMORY)
    }
}

/// Blocking and pure: call it off the async threads. Never panics.
pub fn look(bytes: &[u8], limits: &Limits) -> Result<Looked, MediaError> {
    // The decoders index slices by values from the file. Known ways to panic are refused by the walks;
    // one that is not known must cost one request, not the service.
    catch_unwind(AssertUnwindSafe(|| look_unguarded(bytes, limits))).unwrap_or(Err(MediaError::DecoderFailed))
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
    let (layout, shown) = match format {
        Format::Jpeg => {
            let (layout, header) = jpeg::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let shown = Shown::still(jpeg::decode(bytes, &layout, &header)?, layout.orientation)?;
            (layout, shown)
        }
        Format::Png => {
            let (layout, animation) = png::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let shown = match animation {
                None => Shown::still(png::decode(bytes, &layout, limits)?, layout.orientation)?,
                Some(animation) => {
                    let mut reel = Reel::new(&layout, animation.duration_ms, limits);
                    png::decode_frames(bytes, &layout, &mut reel)?;
                    reel.finish()?
                }
            };
            (layout, shown)
        }
        Format::WebP => {
            let (layout, content) = webp::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let shown = match content {
                webp::Content::Still(header) => {
                    let raster = webp::decode(bytes, &layout, &header, limits)?;
                    Shown::still(raster, layout.orientation)?
                }
                webp::Content::Animation { duration_ms } => {
                    let mut reel = Reel::new(&layout, duration_ms, limits);
                    webp::decode_frames(bytes, &layout, limits, &mut reel)?;
                    reel.finish()?
                }
            };
            (layout, shown)
        }
        Format::Gif => {
            let (layout, duration_ms) = gif::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let mut reel = Reel::new(&layout, duration_ms, limits);
            gif::decode_frames(bytes, &layout, limits, &mut reel)?;
            (layout, reel.finish()?)
        }
        Format::Bmp => {
            let layout = bmp::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let shown = Shown::still(bmp::decode(bytes, &layout)?, layout.orientation)?;
            (layout, shown)
        }
        Format::Tiff => {
            let (layout, pages) = tiff::walk(bytes, limits)?;
            admit(bytes, &layout, limits)?;
            let largest = pages.iter().map(tiff::Page::pixels).max().unwrap_or(0);
            let mut reel = Reel::of_pages(&layout, largest, 0, limits);
            tiff::decode(bytes, &pages, limits, &mut reel)?;
            (layout, reel.finish()?)
        }
    };
    let trailing = (bytes.len() - layout.end) as u64;
    Ok(Looked {
        media_type: Cow::Borrowed(format.media_type()),
        width: shown.width,
        height: shown.height,
        frames_total: layout.frames_total,
        frames_scored: shown.frames_scored,
        frames_distinct: shown.frames_distinct,
        trailing_bytes: (trailing > 0).then_some(trailing),
        doubts: layout.doubts,
        pdq: shown.views.first().and_then(|view| Pdq::of(&view.picture)),
        views: shown.views,
    })
}

/// Between walk and decode: everything that can be refused without a pixel.
fn admit(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<(), MediaError> {
    limits.admit_memory(layout)?;
    trailing::inspect(bytes, layout.end)
}
