//! Why bytes were not looked at: one variant a reason, each with a stable machine code.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What the caller answers. The HTTP layer maps these to 400, 415, 413 and 422.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is nothing to look at.
    Malformed,
    /// Not an image of a kind we decode.
    Unsupported,
    /// More bytes than allowed.
    TooLarge,
    /// An image by its first bytes, but not one to accept.
    Unacceptable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MediaError {
    #[error("the body is empty; send the bytes of one image")]
    Empty,
    #[error("this is {found}, not a supported image (JPEG, PNG, WebP, GIF, BMP, TIFF); {hint}")]
    Unsupported { found: Cow<'static, str>, hint: Cow<'static, str> },
    #[error("this {media_type} uses {feature}, which is not supported; convert it upstream to a common form")]
    UnsupportedVariant { media_type: Cow<'static, str>, feature: Cow<'static, str> },
    #[error("the image has {bytes} bytes, at most {bytes_max} are accepted")]
    TooManyBytes { bytes: u64, bytes_max: u64 },
    #[error("the header claims {width}×{height} pixels, which is none")]
    NoPixels { width: u32, height: u32 },
    #[error("{width}×{height} is more than the {pixels_max} pixels accepted; scale it down upstream")]
    TooManyPixels { width: u32, height: u32, pixels_max: u64 },
    #[error("{width}×{height} has a side longer than the {side_max} pixels accepted; scale it down upstream")]
    SideTooLong { width: u32, height: u32, side_max: u32 },
    #[error(
        "decoding would need about {needed} bytes of memory, at most {memory_max} are allowed for one picture"
    )]
    TooMuchMemory { needed: u64, memory_max: u64 },
    #[error(
        "a JPEG of {width}×{height} with {scans} scans takes too long to decode; save it with fewer scans"
    )]
    TooManyScans { width: u32, height: u32, scans: u32 },
    #[error("the {media_type} ends before its picture does; the upload was probably cut short")]
    Truncated { media_type: Cow<'static, str> },
    #[error("the {media_type} is corrupt: {fact}")]
    Corrupt { media_type: Cow<'static, str>, fact: String },
    #[error("the decoder failed on this image")]
    DecoderFailed,
    #[error("decoding took more than {seconds} s; save the image in a simpler form")]
    TooSlow { seconds: u64 },
    #[error("a {found} is appended to the image, at byte {offset}; send the image alone")]
    AppendedArchive { found: Cow<'static, str>, offset: u64 },
    #[error("{found} is appended to the image, at byte {offset}; send the image alone")]
    AppendedScript { found: Cow<'static, str>, offset: u64 },
}

impl MediaError {
    pub(super) fn corrupt(media_type: &'static str, fact: impl Into<String>) -> Self {
        Self::Corrupt { media_type: Cow::Borrowed(media_type), fact: fact.into() }
    }

    pub(super) const fn truncated(media_type: &'static str) -> Self {
        Self::Truncated { media_type: Cow::Borrowed(media_type) }
    }

    pub(super) const fn variant(media_type: &'static str, feature: &'static str) -> Self {
        Self::UnsupportedVariant { media_type: Cow::Borrowed(media_type), feature: Cow::Borrowed(feature) }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Malformed,
            Self::Unsupported { .. } | Self::UnsupportedVariant { .. } => ErrorKind::Unsupported,
            Self::TooManyBytes { .. } => ErrorKind::TooLarge,
            Self::NoPixels { .. }
            | Self::TooManyPixels { .. }
            | Self::SideTooLong { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyScans { .. }
            | Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::DecoderFailed
            | Self::TooSlow { .. }
            | Self::AppendedArchive { .. }
            | Self::AppendedScript { .. } => ErrorKind::Unacceptable,
        }
    }

    /// Machine-readable and stable: clients branch on it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
            Self::Unsupported { .. } => "image_type_unsupported",
            Self::UnsupportedVariant { .. } => "image_variant_unsupported",
            Self::TooManyBytes { .. } => "image_too_many_bytes",
            Self::NoPixels { .. } => "image_no_pixels",
            Self::TooManyPixels { .. } => "image_too_many_pixels",
            Self::SideTooLong { .. } => "image_side_too_long",
            Self::TooMuchMemory { .. } => "image_too_much_memory",
            Self::TooManyScans { .. } => "image_too_many_scans",
            Self::Truncated { .. } => "image_truncated",
            Self::Corrupt { .. } => "image_corrupt",
            Self::DecoderFailed => "image_undecodable",
            Self::TooSlow { .. } => "image_too_slow",
            Self::AppendedArchive { .. } => "appended_archive",
            Self::AppendedScript { .. } => "appended_script",
        }
    }
}
