//! Between columns and domain types: the words of the CHECK constraints, hashes, counts, times.

use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use super::{Result, Sha256, StoreError};
use crate::verdict::{Action, Background, Form, Outcome, Status};

/// An enum that is a word in Postgres.
pub(super) trait Word: Sized {
    fn word(&self) -> &'static str;
    fn from_word(word: &str) -> Option<Self>;
}

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $crate::store::read::Word for $type {
            fn word(&self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(super) use words;

words!(Action { Allow = "allow", Review = "review", Block = "block" });
words!(Outcome {
    Judged = "judged",
    Recalled = "recalled",
    OnError = "on_error",
    Override = "override",
    Shadow = "shadow",
});
words!(Background { White = "white", Black = "black" });
words!(Form { Written = "written", Folded = "folded" });
words!(Status { Pending = "pending", Done = "done", Failed = "failed" });

/// Where a value was read, so that what is wrong with it can be said.
pub(super) struct Place {
    pub(super) table: &'static str,
    pub(super) row: String,
}

impl Place {
    pub(super) fn new(table: &'static str, row: impl ToString) -> Self {
        Self { table, row: row.to_string() }
    }

    pub(super) fn wrong(
        &self,
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::inconsistent(self.table, column, &self.row, source)
    }

    pub(super) fn word<T: Word>(&self, column: &'static str, word: &str) -> Result<T> {
        T::from_word(word).ok_or_else(|| self.wrong(column, format!("`{word}` is not one of its words")))
    }

    pub(super) fn sha256(&self, column: &'static str, bytes: &[u8]) -> Result<Sha256> {
        bytes.try_into().map_err(|error: std::array::TryFromSliceError| self.wrong(column, error))
    }

    pub(super) fn count<T: TryFrom<i64>>(&self, column: &'static str, count: i64) -> Result<T> {
        T::try_from(count).map_err(|_| self.wrong(column, format!("`{count}` is out of range")))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.wrong(column, error))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// 64 lowercase hex digits: others would not come back as they went in.
pub(super) fn unhex(what: &'static str, text: &str) -> Result<Sha256> {
    let wrong = || StoreError::unstorable(what, format!("`{text}` is not 64 lowercase hex digits"));
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return Err(wrong());
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return Err(wrong()) };
        let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else {
            return Err(wrong());
        };
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

/// Postgres has no unsigned numbers.
pub(super) fn signed(what: &'static str, count: u64) -> Result<i64> {
    i64::try_from(count).map_err(|_| StoreError::unstorable(what, format!("`{count}` is above 2^63")))
}

pub(super) fn utc(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC)
}

/// The smallest id whose time prefix is not before `at`, as `uuid_floor` in the migrations.
pub(super) fn uuid_floor(at: OffsetDateTime) -> Uuid {
    let millis = at.unix_timestamp_nanos().div_euclid(1_000_000).clamp(0, (1 << 48) - 1);
    Uuid::from_u128((millis.unsigned_abs()) << 80)
}

pub(super) fn uuid_millis(id: Uuid) -> i128 {
    i128::try_from(id.as_u128() >> 80).unwrap_or(i128::MAX)
}

/// A `json` column's own characters, so that reading it can name the place where it is broken.
pub(super) struct JsonText(pub(super) String);

impl sqlx::Type<sqlx::Postgres> for JsonText {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        sqlx::postgres::PgTypeInfo::with_name("json")
    }
}

impl sqlx::Decode<'_, sqlx::Postgres> for JsonText {
    fn decode(value: sqlx::postgres::PgValueRef<'_>) -> std::result::Result<Self, sqlx::error::BoxDynError> {
        Ok(Self(value.as_str()?.to_owned()))
    }
}
