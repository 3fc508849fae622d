//! Which frames of a file are judged: every distinct one, or a bounded choice that leaves nothing unlike
//! the rest out.
//!
//! One pass and bounded memory: frames are offered in order, exact duplicates are counted and dropped, and
//! as soon as there is one too many, of the two most alike the later one goes. Alike means near in colour
//! (the largest difference between the mean colours of any cell) and near in time, so that what is kept is
//! spread over time, and a single odd frame among a thousand similar ones stays.

use std::collections::HashMap;
use std::hash::RandomState;

use image::metadata::Orientation;
use shieldgate_models::Picture;

use super::canvas::{Canvas, Patch};
use super::error::MediaError;
use super::pixels::Raster;
use super::{Layout, Limits, View};
use crate::verdict::Background;

/// What a frame costs beside its pixels, as so many pixels: decoders are set up anew for each.
const FRAME_COST: u64 = 1000;
/// A kept frame may need two pictures.
const VIEW_BYTES: u64 = 6;
/// Apart in colour by all there is counts as much as apart in time by the whole file.
const FARTHEST: u32 = 255;

/// What a judge may look at, and how much of the file that is.
pub(super) struct Shown {
    pub width: u32,
    pub height: u32,
    pub views: Vec<View>,
    pub frames_scored: u32,
    /// `None` where a bound stopped the count.
    pub frames_distinct: Option<u32>,
}

impl Shown {
    pub(super) fn still(raster: Raster, orientation: Orientation) -> Result<Self, MediaError> {
        let raster = raster.oriented(orientation);
        Ok(Self {
            width: raster.width(),
            height: raster.height(),
            views: views(raster.pictures()?, 0, 0),
            frames_scored: 1,
            frames_distinct: Some(1),
        })
    }
}

fn views(pictures: Vec<(Picture, Option<Background>)>, frame: u32, at_ms: u64) -> Vec<View> {
    pictures.into_iter().map(|(picture, background)| View { picture, frame, at_ms, background }).collect()
}

struct Kept {
    identity: u64,
    /// From 0 to [`FARTHEST`]: when in the file it is first shown.
    position: u32,
    signature: Vec<[u8; 4]>,
    /// How far it is from each one kept before it.
    apart: Vec<u32>,
    views: Vec<View>,
}

impl Kept {
    fn apart_from(&self, other: &Self) -> u32 {
        let colour = if self.signature.len() == other.signature.len() {
            let cells = self.signature.iter().zip(&other.signature);
            let worst = cells.flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| a.abs_diff(*b)).max();
            u32::from(worst.unwrap_or(0))
        } else {
            FARTHEST
        };
        colour + self.position.abs_diff(other.position)
    }
}

/// Frames as they come, and those kept so far.
pub(super) struct Reel<'l> {
    limits: &'l Limits,
    orientation: Orientation,
    frames_total: u32,
    duration_ms: u64,
    key: RandomState,
    canvas: Option<Canvas>,
    kept: Vec<Kept>,
    kept_max: usize,
    /// How many frames show each picture, by its identity.
    counts: HashMap<u64, u32>,
    next: u32,
    spent: u64,
    stopped: bool,
}

impl<'l> Reel<'l> {
    /// `duration_ms`: how long the file's frames take together, by its own account.
    pub(super) fn new(layout: &Layout, duration_ms: u64, limits: &'l Limits) -> Self {
        Self::of_pages(layout, layout.pixels(), duration_ms, limits)
    }

    /// `largest`: pixels of the largest picture that may be kept.
    pub(super) fn of_pages(layout: &Layout, largest: u64, duration_ms: u64, limits: &'l Limits) -> Self {
        // The layout's memory has room for one kept frame.
        let room = limits.memory_max.saturating_sub(layout.needed()) / (largest.max(1) * VIEW_BYTES);
        let kept_max = usize::try_from(room).unwrap_or(usize::MAX).saturating_add(1);
        Self {
            limits,
            orientation: layout.orientation,
            frames_total: layout.frames_total,
            duration_ms,
            key: RandomState::new(),
            canvas: None,
            kept: Vec::new(),
            kept_max: kept_max.min(limits.frames_max.max(1) as usize),
            counts: HashMap::new(),
            next: 0,
            spent: 0,
            stopped: false,
        }
    }

    /// Whether the next frame, of so many pixels, may be decoded. The first one always may; once one may
    /// not, none may any more, and the frames that remain count as not scored.
    pub(super) fn admits(&mut self, pixels: u64) -> bool {
        let spent = self.spent.saturating_add(pixels + FRAME_COST);
        self.stopped |= self.next > 0 && spent > self.limits.frame_pixels_max;
        if !self.stopped {
            self.spent = spent;
        }
        !self.stopped
    }

    /// A frame of an animation: painted on the canvas, which is then what people see.
    pub(super) fn patch(
        &mut self,
        size: (u32, u32),
        patch: &Patch<'_>,
        at_ms: u64,
    ) -> Result<(), MediaError> {
        let mut canvas = self.canvas.take().unwrap_or_else(|| Canvas::new(size.0, size.1, self.key.clone()));
        self.spent = self.spent.saturating_add(canvas.show(patch));
        let result = self.offer(size, &canvas, at_ms);
        self.canvas = Some(canvas);
        result
    }

    /// A page of its own, of any size.
    pub(super) fn page(&mut self, raster: Raster) -> Result<(), MediaError> {
        let size = (raster.width(), raster.height());
        let canvas = Canvas::of(size.0, size.1, raster.into_rgba(), self.key.clone());
        self.spent = self.spent.saturating_add(canvas.pixels());
        self.offer(size, &canvas, 0)
    }

    fn offer(&mut self, size: (u32, u32), canvas: &Canvas, at_ms: u64) -> Result<(), MediaError> {
        let frame = self.next;
        self.next = self.next.saturating_add(1);
        let identity = canvas.identity();
        let count = self.counts.entry(identity).or_insert(0);
        *count = count.saturating_add(1);
        if *count > 1 {
            return Ok(());
        }
        let mut candidate = Kept {
            identity,
            position: self.position(frame, at_ms),
            signature: canvas.signature(),
            apart: Vec::new(),
            views: Vec::new(),
        };
        candidate.apart = self.kept.iter().map(|kept| candidate.apart_from(kept)).collect();
        self.kept.push(candidate);
        if self.kept.len() > self.kept_max {
            let dropped = self.most_alike();
            self.kept.remove(dropped);
            if dropped == self.kept.len() {
                return Ok(());
            }
            for later in &mut self.kept[dropped..] {
                later.apart.remove(dropped);
            }
        }
        self.spent = self.spent.saturating_add(canvas.pixels());
        let pictures = if self.orientation == Orientation::NoTransforms {
            super::pixels::over_backgrounds(size.0, size.1, canvas.rgba())?
        } else {
            Raster::rgba(size.0, size.1, canvas.rgba().to_vec()).oriented(self.orientation).pictures()?
        };
        if let Some(candidate) = self.kept.last_mut() {
            candidate.views = views(pictures, frame, at_ms);
        }
        Ok(())
    }

    fn position(&self, frame: u32, at_ms: u64) -> u32 {
        let (at, of) = match self.duration_ms {
            0 => (u64::from(frame), u64::from(self.frames_total)),
            duration => (at_ms, duration),
        };
        let scaled = u128::from(at) * u128::from(FARTHEST) / u128::from(of.max(1));
        u32::try_from(scaled).unwrap_or(FARTHEST).min(FARTHEST)
    }

    /// The later one of the two frames most alike; of several such pairs the one with the newest frame,
    /// whose picture need then not be made. Never the first frame.
    fn most_alike(&self) -> usize {
        let nearest = |kept: &Kept| kept.apart.iter().min().copied().unwrap_or(u32::MAX);
        let later = self.kept.iter().enumerate().skip(1);
        later.min_by_key(|(at, kept)| (nearest(kept), std::cmp::Reverse(*at))).map_or(0, |(at, _)| at)
    }

    pub(super) fn finish(self) -> Result<Shown, MediaError> {
        let scored = self.kept.iter().filter_map(|kept| self.counts.get(&kept.identity));
        let frames_scored = scored.fold(0, |sum: u32, count| sum.saturating_add(*count));
        let frames_distinct =
            if self.stopped { None } else { Some(u32::try_from(self.counts.len()).unwrap_or(u32::MAX)) };
        let views: Vec<View> = self.kept.into_iter().flat_map(|kept| kept.views).collect();
        let first = views.first().ok_or_else(|| MediaError::corrupt("image", "it has no picture"))?;
        Ok(Shown {
            width: first.picture.width(),
            height: first.picture.height(),
            views,
            frames_scored,
            frames_distinct,
        })
    }
}
