//! Times as the wire and Postgres agree on them: RFC 3339, UTC, exactly six decimals.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const MICROSECONDS: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Now, cut to the microseconds that Postgres keeps, so that what is answered equals what is read back.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

pub fn format(at: OffsetDateTime) -> Result<String, time::error::Format> {
    at.to_offset(UtcOffset::UTC).format(MICROSECONDS)
}

/// Any RFC 3339 time, cut to microseconds.
pub fn parse(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    let at = OffsetDateTime::parse(text, &Rfc3339)?.to_offset(UtcOffset::UTC);
    Ok(at.replace_microsecond(at.microsecond()).unwrap_or(at))
}

pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at).map_err(S::Error::custom)?)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// The same for times that may be absent.
pub mod option {
    use super::{OffsetDateTime, Serializer, ser_error};

    pub fn serialize<S: Serializer>(at: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_some(&super::format(*at).map_err(ser_error)?),
            None => serializer.serialize_none(),
        }
    }
}

fn ser_error<E: serde::ser::Error>(error: time::error::Format) -> E {
    E::custom(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire() {
        let at = now();
        let text = format(at).expect("formats");
        assert_eq!(text.len(), "2026-11-24T23:10:49.123456Z".len());
        assert_eq!(parse(&text).expect("parses"), at);
    }
}
