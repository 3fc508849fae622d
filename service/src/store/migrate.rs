//! The migrations, embedded, and whether a database has them.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::StoreError;
use super::partitions::{self, MONTHS_AHEAD, Made};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Of ours alone; sqlx takes another one while it migrates.
const LOCK: i64 = 0x7368_6965_6c64_6731;

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("cannot connect to migrate; check that the database is up and the owner's URL is right")]
    Connect(#[source] sqlx::Error),
    #[error(
        "the migrations do not fit this database; migrate as the owner of its tables, with this or a newer `shieldgate`"
    )]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("the migrations are in, but what follows them failed; run `shieldgate migrate` again")]
    Afterwards(#[source] StoreError),
}

#[derive(Debug)]
pub struct Migrated {
    /// False: no role `shieldgate_service` exists and we may not create one, so only the owner can serve.
    pub service_role: bool,
    pub partitions: Vec<Made>,
}

/// Brings the database up to date, gives the service's role its rights and makes partitions. Harmless
/// when repeated, and when several processes do it at once.
#[tracing::instrument(name = "db.schema.migrate", skip_all)]
pub async fn migrate(owner: &PgConnectOptions, now: OffsetDateTime) -> Result<Migrated, MigrateError> {
    let mut conn = PgConnection::connect_with(owner).await.map_err(MigrateError::Connect)?;
    // Two grants on one table at once fail with "tuple concurrently updated", so the whole is one at a
    // time. The lock ends with the connection.
    sqlx::query("select pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut conn)
        .await
        .map_err(MigrateError::Connect)?;
    MIGRATOR.run(&mut conn).await.map_err(MigrateError::Migrate)?;
    let migrated = afterwards(&mut conn, now).await.map_err(MigrateError::Afterwards)?;
    conn.close().await.map_err(|error| MigrateError::Afterwards(error.into()))?;
    Ok(migrated)
}

async fn afterwards(conn: &mut PgConnection, now: OffsetDateTime) -> super::Result<Migrated> {
    let service_role = sqlx::query_scalar("select grant_service_rights()").fetch_one(&mut *conn).await?;
    let partitions = partitions::ensure(conn, now, MONTHS_AHEAD).await?;
    Ok(Migrated { service_role, partitions })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    Current,
    /// Nothing of ours is there.
    Empty,
    /// These migrations are missing: run `shieldgate migrate`.
    Behind(Vec<i64>),
    /// A newer `shieldgate` was here; these migrations are unknown to this one.
    Ahead(Vec<i64>),
    /// This migration is not the one that was applied: somebody edited history.
    Edited(i64),
    /// This migration broke off half-way.
    Broken(i64),
}

/// Whether this binary and this database fit; reads only, so the service's role may ask.
#[tracing::instrument(name = "db.schema.check", skip_all)]
pub async fn schema(conn: &mut PgConnection) -> super::Result<Schema> {
    let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *conn)
        .await?;
    if !there {
        return Ok(Schema::Empty);
    }
    let applied: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("select version, checksum, success from _sqlx_migrations order by version")
            .fetch_all(conn)
            .await?;
    if applied.is_empty() {
        return Ok(Schema::Empty);
    }
    let mut ahead = Vec::new();
    for (version, checksum, success) in &applied {
        if !success {
            return Ok(Schema::Broken(*version));
        }
        match MIGRATOR.iter().find(|ours| ours.version == *version) {
            None => ahead.push(*version),
            Some(ours) if ours.checksum.as_ref() != checksum.as_slice() => {
                return Ok(Schema::Edited(*version));
            }
            Some(_) => {}
        }
    }
    if !ahead.is_empty() {
        return Ok(Schema::Ahead(ahead));
    }
    let behind: Vec<i64> = MIGRATOR
        .iter()
        .map(|ours| ours.version)
        .filter(|version| !applied.iter().any(|(applied, ..)| applied == version))
        .collect();
    Ok(if behind.is_empty() { Schema::Current } else { Schema::Behind(behind) })
}

/// For the private cluster, whose only way in is its own socket: lets the service log in as
/// `shieldgate_service` instead of as the owner. To be called as the owner, after [`migrate`].
#[tracing::instrument(name = "db.schema.let_service_log_in", skip_all)]
pub async fn let_service_log_in(conn: &mut PgConnection) -> super::Result<()> {
    sqlx::query("alter role shieldgate_service login").execute(conn).await?;
    Ok(())
}
