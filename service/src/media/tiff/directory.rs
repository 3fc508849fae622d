//! A TIFF's directory: numbered fields, each a list of numbers inside the directory or elsewhere in the file.

use super::{corrupt, truncated};
use crate::media::error::MediaError;

pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
pub(super) const BITS: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
pub(super) const FILL_ORDER: u16 = 266;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const ORIENTATION: u16 = 274;
pub(super) const SAMPLES: u16 = 277;
pub(super) const ROWS_PER_STRIP: u16 = 278;
pub(super) const STRIP_SIZES: u16 = 279;
pub(super) const PLANAR: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
pub(super) const COLOUR_MAP: u16 = 320;
pub(super) const TILE_WIDTH: u16 = 322;
pub(super) const TILE_HEIGHT: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_SIZES: u16 = 325;
pub(super) const SUB_DIRECTORIES: u16 = 330;
pub(super) const INK_SET: u16 = 332;
pub(super) const EXTRA_SAMPLES: u16 = 338;
pub(super) const SAMPLE_FORMAT: u16 = 339;
pub(super) const DNG_VERSION: u16 = 50_706;

/// From here on numbers belong to whoever registered them.
const PRIVATE: u16 = 32_768;

const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

impl Endian {
    pub(super) fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self == Self::Little { u16::from_le_bytes(field) } else { u16::from_be_bytes(field) })
    }

    pub(super) fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self == Self::Little { u32::from_le_bytes(field) } else { u32::from_be_bytes(field) })
    }
}

struct Field {
    tag: u16,
    kind: u16,
    count: usize,
    /// Where its values stand.
    at: usize,
}

pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    endian: Endian,
    /// By tag, each once.
    fields: Vec<Field>,
    /// Where the next directory stands; 0 after the last one.
    pub next: usize,
    /// Past the directory and the values of its fields.
    pub end: usize,
}

impl<'a> Directory<'a> {
    pub(super) fn read(bytes: &'a [u8], at: usize, endian: Endian) -> Result<Self, MediaError> {
        let count = usize::from(endian.u16_at(bytes, at).ok_or_else(truncated)?);
        let next_at = at + 2 + count * 12;
        let next = endian.u32_at(bytes, next_at).ok_or_else(truncated)? as usize;
        let mut end = next_at + 4;
        let mut fields = Vec::with_capacity(count);
        for index in 0..count {
            let entry = at + 2 + index * 12;
            let tag = endian.u16_at(bytes, entry).ok_or_else(truncated)?;
            let kind = endian.u16_at(bytes, entry + 2).ok_or_else(truncated)?;
            let size = match kind {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 => 8,
                // Readers skip what they do not know; in fields of the standard they might know it.
                _ if tag >= PRIVATE => continue,
                _ => return Err(corrupt("a field has a type that the format does not have")),
            };
            let count = endian.u32_at(bytes, entry + 4).ok_or_else(truncated)? as usize;
            let len = count.checked_mul(size).ok_or_else(truncated)?;
            let mut at = entry + 8;
            if len > 4 {
                at = endian.u32_at(bytes, at).ok_or_else(truncated)? as usize;
                let values_end = at.checked_add(len).ok_or_else(truncated)?;
                if values_end > bytes.len() {
                    return Err(truncated());
                }
                end = end.max(values_end);
            }
            fields.push(Field { tag, kind, count, at });
        }
        fields.sort_by_key(|field| field.tag);
        if fields.windows(2).any(|pair| pair[0].tag == pair[1].tag) {
            return Err(corrupt("a directory has a field twice"));
        }
        Ok(Self { bytes, endian, fields, next, end })
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn file_len(&self) -> usize {
        self.bytes.len()
    }

    fn field(&self, tag: u16) -> Option<&Field> {
        self.fields.binary_search_by_key(&tag, |field| field.tag).ok().map(|at| &self.fields[at])
    }

    /// How many values a field has; 0 where it is missing.
    pub(super) fn count(&self, tag: u16) -> usize {
        self.field(tag).map_or(0, |field| field.count)
    }

    /// One value of a field of whole numbers.
    pub(super) fn entry(&self, tag: u16, index: usize) -> Option<u32> {
        let field = self.field(tag).filter(|field| index < field.count)?;
        match field.kind {
            BYTE => self.bytes.get(field.at + index).copied().map(u32::from),
            SHORT => self.endian.u16_at(self.bytes, field.at + index * 2).map(u32::from),
            LONG => self.endian.u32_at(self.bytes, field.at + index * 4),
            _ => None,
        }
    }

    /// The value of a field that has one.
    pub(super) fn number(&self, tag: u16) -> Result<Option<u32>, MediaError> {
        match self.count(tag) {
            0 => Ok(None),
            1 => self.entry(tag, 0).map(Some).ok_or_else(|| corrupt("a field is no whole number")),
            _ => Err(corrupt("a field has more values than one")),
        }
    }

    pub(super) fn required(&self, tag: u16) -> Result<u32, MediaError> {
        self.number(tag)?.ok_or_else(|| corrupt("a field that every picture needs is missing"))
    }

    /// The value that all values of a field share: one a sample.
    pub(super) fn uniform(&self, tag: u16) -> Result<Option<u32>, MediaError> {
        let count = self.count(tag);
        if count == 0 {
            return Ok(None);
        }
        let values = |index| self.entry(tag, index).ok_or_else(|| corrupt("a field is no whole number"));
        let first = values(0)?;
        // More than the decoder takes samples.
        for index in 1..count.min(16) {
            if values(index)? != first {
                return Err(super::unsupported("samples of different kinds"));
            }
        }
        Ok(Some(first))
    }

    /// A 16-bit field's only value and where it stands.
    pub(super) fn short_field(&self, tag: u16) -> Result<Option<(u32, usize)>, MediaError> {
        match self.field(tag) {
            None => Ok(None),
            Some(field) if field.kind == SHORT && field.count == 1 => {
                Ok(self.entry(tag, 0).map(|value| (value, field.at)))
            }
            Some(_) => Err(corrupt("a field has not the type it should have")),
        }
    }
}
