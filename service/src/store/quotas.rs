//! `key_usage`: how much of its daily quota a key has taken, in all processes together.

use sqlx::PgConnection;
use time::Date;
use uuid::Uuid;

use super::{Result, StoreError};

/// Takes up to `wanted` of what is left for `day`; 0 where nothing is. Of two at once the second waits
/// for the first, so that together they never take more than the quota.
#[tracing::instrument(name = "db.quota.take", skip_all, fields(%key_id))]
pub async fn take(conn: &mut PgConnection, key_id: Uuid, day: Date, quota: u64, wanted: u64) -> Result<u64> {
    sqlx::query("insert into key_usage (key_id, day, taken) values ($1, $2, 0) on conflict do nothing")
        .bind(key_id)
        .bind(day)
        .execute(&mut *conn)
        .await?;
    let portion: i64 = sqlx::query_scalar(
        "update key_usage usage set taken = usage.taken + now.portion
         from (select least($4, greatest($3 - taken, 0)) as portion
               from key_usage where key_id = $1 and day = $2
               -- Reads the row as the one before left it.
               for update) now
         where usage.key_id = $1 and usage.day = $2
         returning now.portion",
    )
    .bind(key_id)
    .bind(day)
    .bind(count("daily_quota", quota)?)
    .bind(count("wanted", wanted)?)
    .fetch_one(conn)
    .await?;
    Ok(portion.try_into().unwrap_or(0))
}

/// What was taken and not used.
#[tracing::instrument(name = "db.quota.give_back", skip_all, fields(%key_id))]
pub async fn give_back(conn: &mut PgConnection, key_id: Uuid, day: Date, unused: u64) -> Result<()> {
    sqlx::query("update key_usage set taken = greatest(taken - $3, 0) where key_id = $1 and day = $2")
        .bind(key_id)
        .bind(day)
        .bind(count("unused", unused)?)
        .execute(conn)
        .await?;
    Ok(())
}

/// Days before `day` are over.
#[tracing::instrument(name = "db.quota.sweep", skip_all)]
pub async fn sweep(conn: &mut PgConnection, day: Date) -> Result<u64> {
    let done = sqlx::query("delete from key_usage where day < $1").bind(day).execute(conn).await?;
    Ok(done.rows_affected())
}

fn count(what: &'static str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| StoreError::unstorable(what, "it is too large"))
}
