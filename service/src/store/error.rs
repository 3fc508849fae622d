//! What can go wrong at the database, sorted by what a caller does about it.

use sqlx::postgres::PgDatabaseError;

use super::cursor::CursorError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was recorded, or nobody knows: the connection was lost, none was free in time, the
    /// server is starting or stopping, a statement failed. The whole transaction is void.
    #[error("the database did not answer as it should; try again, or run `shieldgate doctor`")]
    Unavailable {
        #[source]
        source: sqlx::Error,
    },
    /// What was to be written stands there already.
    #[error("{conflict}")]
    Conflict {
        conflict: Conflict,
        #[source]
        source: sqlx::Error,
    },
    /// The value comes from outside and Postgres cannot hold it: bad input, not an outage.
    #[error("`{what}` cannot be stored: {why}")]
    Unstorable { what: &'static str, why: String },
    /// Bad input as well.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A row that no version of ours would have written.
    #[error(
        "table `{table}`, column `{column}`, row `{row}` cannot be read back; do not edit the tables by hand"
    )]
    Inconsistent {
        table: &'static str,
        column: &'static str,
        row: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("a verdict with this id is already on record")]
    Verdict,
    #[error("an override with this id already exists")]
    Override,
    #[error("this API key already exists")]
    ApiKey,
    #[error("another version of this policy became active at the same moment")]
    PolicyState,
}

impl StoreError {
    /// For one whose fate was decided with others: the cause in words, for errors can't be shared.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { source: sqlx::Error::Protocol(why.into()) }
    }

    /// The database was not there to say anything, or said that it is leaving (SQLSTATE class 57).
    pub fn is_lost_connection(&self) -> bool {
        let Self::Unavailable { source } = self else { return false };
        let Some(error) = source.as_database_error() else { return true };
        error.code().is_some_and(|code| code.starts_with("57P"))
    }

    pub(super) fn unstorable(what: &'static str, why: impl Into<String>) -> Self {
        Self::Unstorable { what, why: why.into() }
    }

    pub(super) fn inconsistent(
        table: &'static str,
        column: &'static str,
        row: impl ToString,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Inconsistent { table, column, row: row.to_string(), source: source.into() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        let Some(error) = source.as_database_error() else {
            super::loss::note();
            return Self::Unavailable { source };
        };
        // A zero byte, raw in a string or as \u0000 in a jsonb document: the one thing that a client can
        // send and Postgres cannot take. Everything else in class 22 would be our mistake.
        if matches!(error.code().as_deref(), Some("22021" | "22P05")) {
            return Self::unstorable("text", "it holds a zero character");
        }
        let conflict = match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) if error.code() == "23505" => error.constraint().and_then(named),
            _ => None,
        };
        let error = match conflict {
            Some(conflict) => Self::Conflict { conflict, source },
            None => Self::Unavailable { source },
        };
        if error.is_lost_connection() {
            super::loss::note();
        }
        error
    }
}

/// A partition's constraint is called after the partition, `verdicts_2026_11_pkey`.
fn named(constraint: &str) -> Option<Conflict> {
    match constraint {
        "overrides_pkey" => Some(Conflict::Override),
        "api_keys_pkey" | "api_keys_hash" => Some(Conflict::ApiKey),
        "policy_versions_one_active" | "policy_versions_one_shadow" => Some(Conflict::PolicyState),
        // Either may be the first to notice.
        partition if partition.starts_with("verdicts_") || partition.starts_with("verdict_policies_") => {
            Some(Conflict::Verdict)
        }
        _ => None,
    }
}
