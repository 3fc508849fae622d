//! Keyset cursors: where a page ended, opaque to clients and refused where they do not belong.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// A page, and where the next one begins. Rows that come in meanwhile do not shift it: the position is
/// the last row's key, never a count.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// None: this was the last page.
    pub next_cursor: Option<Cursor>,
}

/// Which list a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Verdicts = b'v' as isize,
    Overrides = b'o' as isize,
    Audit = b'a' as isize,
}

/// Text by `Display`, back by `parse()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    list: List,
    position: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor of this list; take `next_cursor` as it came, or none to begin at the newest")]
pub struct CursorError;

const VERSION: u8 = 1;

impl Cursor {
    pub(super) fn after_id(list: List, id: Uuid) -> Self {
        Self { list, position: id.as_u128() }
    }

    pub(super) fn after_seq(list: List, seq: i64) -> Self {
        Self { list, position: u128::from(seq.unsigned_abs()) }
    }

    pub(super) fn id(self, list: List) -> Result<Uuid, CursorError> {
        if self.list == list { Ok(Uuid::from_u128(self.position)) } else { Err(CursorError) }
    }

    pub(super) fn seq(self, list: List) -> Result<i64, CursorError> {
        if self.list != list {
            return Err(CursorError);
        }
        i64::try_from(self.position).map_err(|_| CursorError)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 18];
        bytes[0] = VERSION;
        bytes[1] = self.list as u8;
        bytes[2..].copy_from_slice(&self.position.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        // 18 bytes are 24 characters; a longer text is not decoded at all.
        if text.len() != 24 {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let [VERSION, list, position @ ..] = bytes.as_slice() else {
            return Err(CursorError);
        };
        let list = match list {
            b'v' => List::Verdicts,
            b'o' => List::Overrides,
            b'a' => List::Audit,
            _ => return Err(CursorError),
        };
        Ok(Self { list, position: u128::from_be_bytes(position.try_into().map_err(|_| CursorError)?) })
    }
}

/// Cuts the one row too many that was asked for to see whether there is a next page.
pub(super) fn page<T>(mut data: Vec<T>, limit: usize, cursor_of: impl Fn(&T) -> Cursor) -> Page<T> {
    let more = data.len() > limit;
    data.truncate(limit);
    let next_cursor = if more { data.last().map(cursor_of) } else { None };
    Page { data, next_cursor }
}

/// The contract's 1..=200.
pub(super) fn bounded(limit: u32) -> usize {
    usize::try_from(limit.clamp(1, 200)).unwrap_or(200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let cursor = Cursor::after_id(List::Verdicts, id);
        let again: Cursor = cursor.to_string().parse().expect("parses");
        assert_eq!(again.id(List::Verdicts), Ok(id));
        assert_eq!(again.id(List::Overrides), Err(CursorError));
        let audit: Cursor = Cursor::after_seq(List::Audit, i64::MAX).to_string().parse().expect("parses");
        assert_eq!(audit.seq(List::Audit), Ok(i64::MAX));
    }

    #[test]
    fn garbage_is_refused() {
        let good = Cursor::after_id(List::Verdicts, Uuid::nil()).to_string();
        let other_version = format!("Ag{}", &good[2..]);
        for text in [
            "",
            "x",
            "AXY",
            &good[1..],
            &format!("{good}A"),
            &other_version,
            "😀😀😀😀😀😀",
            "========================",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
        // A position beyond what a sequence can reach.
        let beyond = Cursor { list: List::Audit, position: u128::MAX }.to_string();
        assert_eq!(beyond.parse::<Cursor>().expect("parses").seq(List::Audit), Err(CursorError));
    }
}
