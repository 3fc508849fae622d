//! Partitions made ahead of need, by the one function in the database that may make them.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Result;

/// Well ahead: once a month's rows lie in the default partition, its own can no longer be made.
pub const MONTHS_AHEAD: i32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub table: String,
    pub partition: String,
    /// `Some(why)`: it could not be made. Inserts go on, into the default partition; say so and try later.
    pub refused: Option<String>,
}

/// Makes what is missing for the month of `now` and `months_ahead` more. To be called at start and daily;
/// says what it made and what it could not.
#[tracing::instrument(name = "db.partitions.ensure", skip_all)]
pub async fn ensure(conn: &mut PgConnection, now: OffsetDateTime, months_ahead: i32) -> Result<Vec<Made>> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("select parent_name, partition_name, outcome from ensure_partitions($1, $2)")
            .bind(now)
            .bind(months_ahead)
            .fetch_all(conn)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(table, partition, outcome)| Made {
            table,
            partition,
            refused: (outcome != "created").then_some(outcome),
        })
        .collect())
}

/// Tables whose default partition holds rows: harmless to them, but worth an alarm, for the month they
/// belong to has no partition.
#[tracing::instrument(name = "db.partitions.astray", skip_all)]
pub async fn astray(conn: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select tables_astray()").fetch_one(conn).await?)
}
