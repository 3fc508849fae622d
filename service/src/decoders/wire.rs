//! What a decoder and the service tell each other: a header of JSON behind its length, then bytes.
//!
//! ```text
//! hello    u32 length · {"confinement": …}
//! question u32 length · {"bytes": n, "limits": …} · n bytes of the file
//! answer   u32 length · {"looked": {…, "views": [{"width": …}, …]}} · each view's RGB in their order
//!                     · {"refused": …}
//! ```
//!
//! Lengths are little-endian. Both ends are the same binary, so nothing is versioned; but the service does not
//! trust an answer: whoever has taken a decoder over writes what they like.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::confine::Confinement;
use crate::media::{Doubt, Limits, Looked, MediaError, Pdq, View};
use crate::verdict::Background;

/// Of any header: an animation of the most frames stays far below.
pub(super) const HEADER_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) confinement: Confinement,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) bytes: u64,
    pub(super) limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Looked(Found),
    Refused(MediaError),
}

/// [`Looked`] without pixels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Found {
    media_type: Cow<'static, str>,
    width: u32,
    height: u32,
    frames_total: u32,
    frames_scored: u32,
    frames_distinct: Option<u32>,
    trailing_bytes: Option<u64>,
    doubts: Vec<Doubt>,
    pdq: Option<Pdq>,
    pub(super) views: Vec<Shape>,
}

/// [`View`] without pixels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frame: u32,
    pub(super) at_ms: u64,
    pub(super) background: Option<Background>,
}

impl Shape {
    /// Of its RGB; none where it cannot be.
    pub(super) fn bytes(&self, limits: &Limits) -> Option<usize> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        if pixels == 0 || pixels > limits.pixels_max {
            return None;
        }
        usize::try_from(pixels * 3).ok()
    }
}

impl Found {
    pub(super) fn of(looked: &Looked) -> Self {
        let shape = |view: &View| Shape {
            width: view.picture.width(),
            height: view.picture.height(),
            frame: view.frame,
            at_ms: view.at_ms,
            background: view.background,
        };
        Self {
            media_type: looked.media_type.clone(),
            width: looked.width,
            height: looked.height,
            frames_total: looked.frames_total,
            frames_scored: looked.frames_scored,
            frames_distinct: looked.frames_distinct,
            trailing_bytes: looked.trailing_bytes,
            doubts: looked.doubts.clone(),
            pdq: looked.pdq,
            views: looked.views.iter().map(shape).collect(),
        }
    }

    pub(super) fn with(self, views: Vec<View>) -> Looked {
        Looked {
            media_type: self.media_type,
            width: self.width,
            height: self.height,
            frames_total: self.frames_total,
            frames_scored: self.frames_scored,
            frames_distinct: self.frames_distinct,
            trailing_bytes: self.trailing_bytes,
            doubts: self.doubts,
            pdq: self.pdq,
            views,
        }
    }
}

/// Length and header, ready to be written.
pub(super) fn framed<T: Serialize>(header: &T) -> serde_json::Result<Vec<u8>> {
    let mut framed = vec![0; 4];
    serde_json::to_writer(&mut framed, header)?;
    let length = u32::try_from(framed.len() - 4).unwrap_or(u32::MAX);
    framed[..4].copy_from_slice(&length.to_le_bytes());
    Ok(framed)
}

/// None: no header is so long.
pub(super) fn length(prefix: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(prefix)).ok().filter(|length| *length <= HEADER_BYTES_MAX)
}
