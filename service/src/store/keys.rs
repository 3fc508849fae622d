//! `api_keys`: who may call, for which project, with which scopes. The key itself is never here.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{Place, signed, utc};
use super::{Grouped, Result, Sha256, Store, StoreError};

#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    pub id: Uuid,
    pub project: String,
    pub name: String,
    /// The first characters of the key, for people to tell their keys apart.
    pub prefix: String,
    /// SHA-256 of the key.
    pub hash: Sha256,
    /// Of `moderate`, `read`, `review`, `admin`; at least one.
    pub scopes: Vec<String>,
    /// Submissions a second, in each process; none: no limit.
    pub rate_per_second: Option<f32>,
    /// Submissions a day (UTC), in all processes; none: no limit.
    pub daily_quota: Option<u64>,
    pub created_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    project: String,
    name: String,
    prefix: String,
    hash: Vec<u8>,
    scopes: Vec<String>,
    rate_per_second: Option<f32>,
    daily_quota: Option<i64>,
    created_at: OffsetDateTime,
    revoked_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for ApiKey {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let place = Place::new("api_keys", row.id);
        Ok(Self {
            id: row.id,
            project: row.project,
            name: row.name,
            prefix: row.prefix,
            hash: place.sha256("hash", &row.hash)?,
            scopes: row.scopes,
            rate_per_second: row.rate_per_second,
            daily_quota: row.daily_quota.map(|quota| place.count("daily_quota", quota)).transpose()?,
            created_at: utc(row.created_at),
            revoked_at: row.revoked_at.map(utc),
        })
    }
}

#[tracing::instrument(name = "db.api_key.create", skip_all, fields(id = %new.id))]
pub async fn create(conn: &mut PgConnection, new: &ApiKey) -> Result<()> {
    let known = ["moderate", "read", "review", "admin"];
    if new.scopes.is_empty() {
        return Err(StoreError::unstorable("scopes", "there are none"));
    }
    if let Some(scope) = new.scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        return Err(StoreError::unstorable(
            "scopes",
            format!("`{scope}` is not one of {}", known.join(", ")),
        ));
    }
    sqlx::query(
        "insert into api_keys (id, project, name, prefix, hash, scopes, created_at, rate_per_second, daily_quota)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new.id)
    .bind(&new.project)
    .bind(&new.name)
    .bind(&new.prefix)
    .bind(new.hash)
    .bind(&new.scopes)
    .bind(new.created_at)
    .bind(new.rate_per_second)
    .bind(new.daily_quota.map(|quota| signed("daily_quota", quota)).transpose()?)
    .execute(conn)
    .await?;
    Ok(())
}

/// The SHA-256 of a key that a caller showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub Sha256);

impl Grouped for Shown {
    type Done = Option<ApiKey>;
    type Error = StoreError;

    async fn together(store: &Store, group: &[Self]) -> Result<Vec<Option<ApiKey>>> {
        store.read(async |conn| shown(conn, group).await).await
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

/// The key of each; a revoked one is no key.
#[tracing::instrument(name = "db.api_key.shown", skip_all, fields(count = shown.len()))]
pub async fn shown(conn: &mut PgConnection, shown: &[Shown]) -> Result<Vec<Option<ApiKey>>> {
    let rows: Vec<Row> = sqlx::query_as("select * from api_keys where hash = any($1) and revoked_at is null")
        .bind(shown.iter().map(|shown| shown.0.as_slice()).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    let keys = rows.into_iter().map(ApiKey::try_from).collect::<Result<Vec<_>>>()?;
    Ok(shown.iter().map(|shown| keys.iter().find(|key| key.hash == shown.0).cloned()).collect())
}

/// Revoked ones too, newest first; of one project or of all.
#[tracing::instrument(name = "db.api_key.list", skip_all)]
pub async fn list(conn: &mut PgConnection, project: Option<&str>) -> Result<Vec<ApiKey>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select * from api_keys where $1::text is null or project = $1 order by created_at desc, id desc",
    )
    .bind(project)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// None: there is no such key, or it was revoked before.
#[tracing::instrument(name = "db.api_key.revoke", skip_all, fields(%id))]
pub async fn revoke(
    conn: &mut PgConnection,
    project: &str,
    id: Uuid,
    at: OffsetDateTime,
) -> Result<Option<ApiKey>> {
    let row: Option<Row> = sqlx::query_as(
        "update api_keys set revoked_at = $3
         where project = $1 and id = $2 and revoked_at is null
         returning *",
    )
    .bind(project)
    .bind(id)
    .bind(at)
    .fetch_optional(conn)
    .await?;
    row.map(ApiKey::try_from).transpose()
}
