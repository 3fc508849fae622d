//! The picture an animation paints on: frames laid over each other as browsers do it, and what tells one
//! shown picture from another.
//!
//! The canvas is divided into [`GRID`] × [`GRID`] cells, each with a hash and a mean colour of its own, so
//! that a frame costs what it changes and not what the canvas measures.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Cells along each side.
const GRID: usize = 16;

/// A part of the canvas; it may stick out, and what does is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn clipped(self, width: usize, height: usize) -> Clip {
        let (left, top) = ((self.left as usize).min(width), (self.top as usize).min(height));
        Clip {
            left,
            top,
            right: left.saturating_add(self.width as usize).min(width),
            bottom: top.saturating_add(self.height as usize).min(height),
        }
    }
}

/// How a frame's pixels meet those below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blend {
    /// They take their place, transparency included.
    Replace,
    Over,
}

/// What becomes of a frame before the next one is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispose {
    Keep,
    /// Its place becomes transparent. (Browsers use no background colour.)
    Clear,
    /// Its place becomes what it was.
    Restore,
}

/// One frame as its file holds it.
pub(super) struct Patch<'a> {
    pub place: Rect,
    pub blend: Blend,
    pub dispose: Dispose,
    /// Straight alpha; at least `place.height` rows.
    pub rgba: &'a [u8],
    /// Pixels from one row to the next.
    pub stride: usize,
}

/// Within the canvas.
#[derive(Debug, Clone, Copy)]
struct Clip {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    hash: u64,
    /// Red, green, blue, alpha.
    mean: [u8; 4],
}

enum Undo {
    Nothing,
    Clear(Clip),
    Restore(Clip, Vec<u8>),
}

pub(super) struct Canvas {
    width: usize,
    height: usize,
    rgba: Vec<u8>,
    undo: Undo,
    cell_width: usize,
    cell_height: usize,
    cells: Vec<Cell>,
    /// Secret and of this process: nobody can build two pictures beforehand that hash alike, so that
    /// one would hide behind the other.
    key: RandomState,
}

impl Canvas {
    /// Transparent, sides not zero.
    pub(super) fn new(width: u32, height: u32, key: RandomState) -> Self {
        let pixels = width as usize * height as usize;
        Self::of(width, height, vec![0; pixels * 4], key)
    }

    /// Showing `rgba`.
    pub(super) fn of(width: u32, height: u32, rgba: Vec<u8>, key: RandomState) -> Self {
        let (width, height) = (width as usize, height as usize);
        let (cell_width, cell_height) = (width.div_ceil(GRID).max(1), height.div_ceil(GRID).max(1));
        let cells = width.div_ceil(cell_width) * height.div_ceil(cell_height);
        let mut canvas = Self {
            width,
            height,
            rgba,
            undo: Undo::Nothing,
            cell_width,
            cell_height,
            cells: vec![Cell::default(); cells],
            key,
        };
        canvas.refresh(Clip { left: 0, top: 0, right: width, bottom: height });
        canvas
    }

    /// Undoes what the last frame asked for and paints this one. Returns the pixels touched.
    pub(super) fn show(&mut self, patch: &Patch<'_>) -> u64 {
        let mut touched = 0;
        match std::mem::replace(&mut self.undo, Undo::Nothing) {
            Undo::Nothing => {}
            Undo::Clear(clip) => {
                self.rows(clip, |_, row| row.fill(0));
                touched += self.refresh(clip);
            }
            Undo::Restore(clip, saved) => {
                let bytes = (clip.right - clip.left) * 4;
                self.rows(clip, |y, row| row.copy_from_slice(&saved[y * bytes..][..bytes]));
                touched += self.refresh(clip);
            }
        }
        let clip = patch.place.clipped(self.width, self.height);
        if clip.left == clip.right || clip.top == clip.bottom {
            return touched;
        }
        self.undo = match patch.dispose {
            Dispose::Keep => Undo::Nothing,
            Dispose::Clear => Undo::Clear(clip),
            Dispose::Restore => {
                let mut saved = Vec::with_capacity((clip.right - clip.left) * (clip.bottom - clip.top) * 4);
                self.rows(clip, |_, row| saved.extend_from_slice(row));
                Undo::Restore(clip, saved)
            }
        };
        self.rows(clip, |y, row| {
            let from = &patch.rgba[y * patch.stride * 4..][..row.len()];
            let pixels = row.as_chunks_mut::<4>().0.iter_mut().zip(from.as_chunks::<4>().0);
            match patch.blend {
                // What is wholly transparent has no colour, so that two such pixels are alike.
                Blend::Replace => {
                    pixels.for_each(|(to, from)| *to = if from[3] == 0 { [0; 4] } else { *from })
                }
                Blend::Over => pixels.for_each(|(to, from)| lay_over(to, *from)),
            }
        });
        touched + self.refresh(clip)
    }

    /// Calls `act` with the number and the pixels of each row inside `clip`.
    fn rows(&mut self, clip: Clip, mut act: impl FnMut(usize, &mut [u8])) {
        let rows = self.rgba.chunks_exact_mut(self.width * 4).take(clip.bottom).skip(clip.top);
        for (y, row) in rows.enumerate() {
            act(y, &mut row[clip.left * 4..clip.right * 4]);
        }
    }

    /// Looks again at the cells that `clip` touches.
    fn refresh(&mut self, clip: Clip) -> u64 {
        let across = self.width.div_ceil(self.cell_width);
        let mut touched = 0;
        for y in clip.top / self.cell_height..clip.bottom.div_ceil(self.cell_height) {
            for x in clip.left / self.cell_width..clip.right.div_ceil(self.cell_width) {
                let (left, top) = (x * self.cell_width, y * self.cell_height);
                let right = (left + self.cell_width).min(self.width);
                let bottom = (top + self.cell_height).min(self.height);
                let mut hasher = self.key.build_hasher();
                hasher.write_usize(y * across + x);
                let mut sums = [0u64; 4];
                for row in self.rgba.chunks_exact(self.width * 4).take(bottom).skip(top) {
                    let row = &row[left * 4..right * 4];
                    hasher.write(row);
                    for pixel in row.as_chunks::<4>().0 {
                        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
                    }
                }
                let pixels = ((right - left) * (bottom - top)) as u64;
                self.cells[y * across + x] =
                    Cell { hash: hasher.finish(), mean: sums.map(|sum| (sum / pixels) as u8) };
                touched += pixels;
            }
        }
        touched
    }

    /// Alike for pictures with the very same pixels, and for no others but by a chance of 2⁻⁶⁴.
    pub(super) fn identity(&self) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_usize(self.width);
        hasher.write_usize(self.height);
        self.cells.iter().for_each(|cell| hasher.write_u64(cell.hash));
        hasher.finish()
    }

    /// The mean colour of each cell.
    pub(super) fn signature(&self) -> Vec<[u8; 4]> {
        self.cells.iter().map(|cell| cell.mean).collect()
    }

    pub(super) fn pixels(&self) -> u64 {
        (self.width * self.height) as u64
    }

    pub(super) fn rgba(&self) -> &[u8] {
        &self.rgba
    }
}

/// Straight alpha over straight alpha, rounded to nearest.
fn lay_over(below: &mut [u8; 4], above: [u8; 4]) {
    match (above[3], below[3]) {
        (0, _) => {}
        (255, _) | (_, 0) => *below = above,
        (a, b) => {
            let (a, b) = (u32::from(a), u32::from(b));
            // In 255ths of a 255th: what each contributes.
            let (from_above, from_below) = (a * 255, b * (255 - a));
            let whole = from_above + from_below;
            for (to, from) in below[..3].iter_mut().zip(above) {
                let sum = u32::from(from) * from_above + u32::from(*to) * from_below;
                *to = ((sum + whole / 2) / whole) as u8;
            }
            below[3] = ((whole + 127) / 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(left: u32, top: u32, width: u32, height: u32) -> Rect {
        Rect { left, top, width, height }
    }

    fn paint(canvas: &mut Canvas, place: Rect, pixel: [u8; 4], blend: Blend, dispose: Dispose) -> u64 {
        let rgba = pixel.repeat(place.pixels() as usize);
        canvas.show(&Patch { place, blend, dispose, rgba: &rgba, stride: place.width as usize })
    }

    #[test]
    fn what_a_small_frame_costs_is_small() {
        let mut canvas = Canvas::new(1600, 1600, RandomState::new());
        let touched = paint(&mut canvas, place(5, 5, 1, 1), [9; 4], Blend::Replace, Dispose::Keep);
        assert_eq!(touched, 100 * 100);
    }

    #[test]
    fn the_same_pixels_are_the_same_picture_however_they_came_about() {
        let key = RandomState::new();
        let (red, blue) = ([255, 0, 0, 255], [0, 0, 255, 255]);
        let mut a = Canvas::new(40, 30, key.clone());
        let blank = a.identity();
        paint(&mut a, place(0, 0, 40, 30), red, Blend::Replace, Dispose::Keep);
        let all_red = a.identity();
        assert_ne!(blank, all_red);
        paint(&mut a, place(30, 20, 100, 100), blue, Blend::Over, Dispose::Restore);
        assert_ne!(a.identity(), all_red);
        paint(&mut a, place(99, 99, 1, 1), blue, Blend::Over, Dispose::Clear);
        assert_eq!(a.identity(), all_red, "restored, and what lies outside is not painted");
        paint(&mut a, place(0, 0, 40, 30), [1, 2, 3, 0], Blend::Over, Dispose::Clear);
        assert_eq!(a.identity(), all_red, "nothing over it");
        paint(&mut a, place(0, 0, 0, 0), red, Blend::Over, Dispose::Keep);
        assert_eq!(a.identity(), blank, "cleared");
        let whole = Canvas::of(40, 30, red.repeat(1200), key.clone());
        assert_eq!(whole.identity(), all_red);
        assert_ne!(Canvas::of(30, 40, red.repeat(1200), key).identity(), all_red);
    }

    #[test]
    fn one_level_in_one_pixel_is_another_picture() {
        let mut canvas = Canvas::new(64, 64, RandomState::new());
        let mut seen = std::collections::HashSet::from([canvas.identity()]);
        for level in 1..=255 {
            paint(&mut canvas, place(63, 63, 1, 1), [0, 0, level, 255], Blend::Replace, Dispose::Keep);
            assert!(seen.insert(canvas.identity()), "{level}");
        }
    }

    #[test]
    fn over_is_as_in_floating_point() {
        for (below, above) in [
            ([10, 200, 30, 255], [250, 0, 128, 128]),
            ([10, 200, 30, 60], [250, 0, 128, 128]),
            ([255, 255, 255, 1], [0, 0, 0, 254]),
            ([7, 8, 9, 0], [1, 2, 3, 4]),
        ] {
            let mut result = below;
            lay_over(&mut result, above);
            let (a, b) = (f64::from(above[3]) / 255.0, f64::from(below[3]) / 255.0);
            let alpha = a + b * (1.0 - a);
            for c in 0..3 {
                let exact = (f64::from(above[c]) * a + f64::from(below[c]) * b * (1.0 - a)) / alpha;
                assert!((f64::from(result[c]) - exact).abs() <= 0.501, "{below:?} {above:?} {result:?}");
            }
            assert!((f64::from(result[3]) - alpha * 255.0).abs() <= 0.501);
        }
    }
}
