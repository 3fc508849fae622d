//! One upright, opaque picture: what media decoding hands to the judges.

use std::sync::Arc;

/// 8-bit RGB, rows top to bottom, no padding: `rgb.len() == width × height × 3`.
#[derive(Clone)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Arc<[u8]>,
}

#[derive(Debug, thiserror::Error)]
#[error("a {width}×{height} RGB picture has {expected} bytes, got {actual}")]
pub struct WrongLength {
    width: u32,
    height: u32,
    expected: u64,
    actual: u64,
}

impl Picture {
    pub fn new(width: u32, height: u32, rgb: impl Into<Arc<[u8]>>) -> Result<Self, WrongLength> {
        let rgb = rgb.into();
        let expected = u64::from(width) * u64::from(height) * 3;
        let actual = rgb.len() as u64;
        if width == 0 || height == 0 || expected != actual {
            return Err(WrongLength { width, height, expected, actual });
        }
        Ok(Self { width, height, rgb })
    }

    /// A picture made from another one; `rgb` has the length that the caller computed from the sides.
    pub(crate) fn from_pixels(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        debug_assert_eq!(rgb.len(), width as usize * height as usize * 3);
        Self { width, height, rgb: rgb.into() }
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether it has more pixels than a picture of these sides.
    pub(crate) fn is_larger_than(&self, width: u32, height: u32) -> bool {
        u64::from(self.width) * u64::from(self.height) > u64::from(width) * u64::from(height)
    }

    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

impl std::fmt::Debug for Picture {
    /// Never the pixels: content must not slip into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}×{})", self.width, self.height)
    }
}
