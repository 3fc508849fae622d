//! Decoded pixels on their way to pictures: orientation applied, transparency laid over backgrounds.

use std::sync::Arc;

use image::metadata::Orientation;
use shieldgate_models::Picture;

use super::error::MediaError;
use crate::verdict::Background;

/// 8-bit pixels, rows top to bottom, no padding.
pub(super) struct Raster {
    width: u32,
    height: u32,
    samples: Samples,
}

enum Samples {
    /// Already where a [`Picture`] wants it, so that the common case copies nothing.
    Rgb(Arc<[u8]>),
    Rgba(Vec<u8>),
}

/// A zeroed buffer that can be filled in place through `Arc::get_mut` and shared without a copy.
pub(super) fn shared(len: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0u8, len).collect()
}

/// Fills a fresh shared buffer.
pub(super) fn fill_shared<E>(
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Arc<[u8]>, E> {
    let mut buffer = shared(len);
    // Nobody else holds it yet, so this always is Some.
    if let Some(slice) = Arc::get_mut(&mut buffer) {
        fill(slice)?;
    }
    Ok(buffer)
}

impl Raster {
    pub(super) fn rgb(width: u32, height: u32, rgb: Arc<[u8]>) -> Self {
        Self { width, height, samples: Samples::Rgb(rgb) }
    }

    pub(super) fn rgba(width: u32, height: u32, rgba: Vec<u8>) -> Self {
        Self { width, height, samples: Samples::Rgba(rgba) }
    }

    pub(super) fn gray(width: u32, height: u32, gray: &[u8]) -> Self {
        let rgb = fill_shared::<std::convert::Infallible>(gray.len() * 3, |out| {
            for (pixel, &value) in out.chunks_exact_mut(3).zip(gray) {
                pixel.fill(value);
            }
            Ok(())
        });
        match rgb {
            Ok(rgb) => Self::rgb(width, height, rgb),
            Err(never) => match never {},
        }
    }

    pub(super) fn gray_alpha(width: u32, height: u32, gray_alpha: &[u8]) -> Self {
        let mut rgba = vec![0; gray_alpha.len() * 2];
        for (pixel, pair) in rgba.chunks_exact_mut(4).zip(gray_alpha.chunks_exact(2)) {
            pixel.copy_from_slice(&[pair[0], pair[0], pair[0], pair[1]]);
        }
        Self::rgba(width, height, rgba)
    }

    pub(super) fn width(&self) -> u32 {
        self.width
    }

    pub(super) fn height(&self) -> u32 {
        self.height
    }

    pub(super) fn oriented(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let (width, height) = (self.width, self.height);
        let turn = Turn::new(width as usize, height as usize, orientation);
        let samples = match self.samples {
            Samples::Rgb(rgb) => {
                let mut out = shared(rgb.len());
                if let Some(out) = Arc::get_mut(&mut out) {
                    turn.copy::<3>(&rgb, out);
                }
                Samples::Rgb(out)
            }
            Samples::Rgba(rgba) => {
                let mut out = vec![0; rgba.len()];
                turn.copy::<4>(&rgba, &mut out);
                Samples::Rgba(out)
            }
        };
        if turn.transposed {
            Self { width: height, height: width, samples }
        } else {
            Self { width, height, samples }
        }
    }

    /// See [`over_backgrounds`].
    pub(super) fn pictures(&self) -> Result<Vec<(Picture, Option<Background>)>, MediaError> {
        match &self.samples {
            Samples::Rgb(rgb) => Ok(vec![(picture(self.width, self.height, Arc::clone(rgb))?, None)]),
            Samples::Rgba(rgba) => over_backgrounds(self.width, self.height, rgba),
        }
    }

    pub(super) fn into_rgba(self) -> Vec<u8> {
        match self.samples {
            Samples::Rgba(rgba) => rgba,
            Samples::Rgb(rgb) => {
                rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, u8::MAX]).collect()
            }
        }
    }
}

/// One picture where every pixel is opaque; else one over white and one over black, since a drawing in
/// either colour on transparency can be seen on one of them only.
pub(super) fn over_backgrounds(
    width: u32,
    height: u32,
    rgba: &[u8],
) -> Result<Vec<(Picture, Option<Background>)>, MediaError> {
    let laid = |background| picture(width, height, over(rgba, background));
    if rgba.as_chunks::<4>().0.iter().all(|pixel| pixel[3] == u8::MAX) {
        return Ok(vec![(laid(0)?, None)]);
    }
    Ok(vec![(laid(u8::MAX)?, Some(Background::White)), (laid(0)?, Some(Background::Black))])
}

fn picture(width: u32, height: u32, rgb: Arc<[u8]>) -> Result<Picture, MediaError> {
    Picture::new(width, height, rgb).map_err(|e| MediaError::corrupt("image", e.to_string()))
}

/// Straight (not premultiplied) alpha over one level of grey, rounded to nearest.
fn over(rgba: &[u8], background: u8) -> Arc<[u8]> {
    let mut out = shared(rgba.len() / 4 * 3);
    if let Some(out) = Arc::get_mut(&mut out) {
        let background = u32::from(background);
        for (to, &[r, g, b, a]) in out.as_chunks_mut::<3>().0.iter_mut().zip(rgba.as_chunks::<4>().0) {
            let under = background * u32::from(255 - a) + 128;
            // At most 255 × 255 + 128, for which this equals a division by 255, rounded.
            let lay = |from: u8| {
                let sum = u32::from(from) * u32::from(a) + under;
                ((sum + (sum >> 8)) >> 8) as u8
            };
            *to = [lay(r), lay(g), lay(b)];
        }
    }
    out
}

/// Where each output pixel comes from: start + x × step_x + y × step_y, in input pixels.
struct Turn {
    transposed: bool,
    out_width: usize,
    start: isize,
    step_x: isize,
    step_y: isize,
}

impl Turn {
    fn new(width: usize, height: usize, orientation: Orientation) -> Self {
        // Sides are at most 2^31 and their product is held by a buffer, so none of this overflows.
        let (w, h) = (width as isize, height as isize);
        let (right, bottom) = (w - 1, (h - 1) * w);
        let (transposed, start, step_x, step_y) = match orientation {
            Orientation::NoTransforms => (false, 0, 1, w),
            Orientation::FlipHorizontal => (false, right, -1, w),
            Orientation::Rotate180 => (false, bottom + right, -1, -w),
            Orientation::FlipVertical => (false, bottom, 1, -w),
            Orientation::Rotate90FlipH => (true, 0, w, 1),
            Orientation::Rotate90 => (true, bottom, -w, 1),
            Orientation::Rotate270FlipH => (true, bottom + right, -w, -1),
            Orientation::Rotate270 => (true, right, w, -1),
        };
        Self { transposed, out_width: if transposed { height } else { width }, start, step_x, step_y }
    }

    fn copy<const N: usize>(&self, from: &[u8], to: &mut [u8]) {
        let from = from.as_chunks::<N>().0;
        for (y, row) in to.chunks_exact_mut(self.out_width * N).enumerate() {
            let mut source = self.start + y as isize * self.step_y;
            for pixel in row.as_chunks_mut::<N>().0 {
                *pixel = from[source as usize];
                source += self.step_x;
            }
        }
    }
}
