//! `overrides`: an operator's word above the judges, and the kill switch of a whole policy.

use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::cursor::{Cursor, List, Page, bounded, page};
use super::read::{Place, Word as _, utc};
use super::{Result, Sha256, StoreError};
use crate::verdict::Action;

#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    pub id: Uuid,
    pub project: String,
    /// None: the policy as a whole.
    pub sha256: Option<Sha256>,
    /// None: all policies. At least one of the two is set.
    pub policy: Option<String>,
    pub action: Action,
    pub reason: String,
    pub created_by: String,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    pub deleted_by: Option<String>,
    pub deleted_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) project: String,
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) policy: Option<String>,
    pub(super) action: String,
    pub(super) reason: String,
    pub(super) created_by: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) deleted_by: Option<String>,
    pub(super) deleted_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for Override {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let place = Place::new("overrides", row.id);
        Ok(Self {
            id: row.id,
            project: row.project,
            sha256: row.sha256.map(|sha256| place.sha256("sha256", &sha256)).transpose()?,
            policy: row.policy,
            action: place.word("action", &row.action)?,
            reason: row.reason,
            created_by: row.created_by,
            created_at: utc(row.created_at),
            expires_at: row.expires_at.map(utc),
            deleted_by: row.deleted_by,
            deleted_at: row.deleted_at.map(utc),
        })
    }
}

/// The caller audits it in the same transaction.
#[tracing::instrument(name = "db.override.create", skip_all, fields(id = %new.id))]
pub async fn create(conn: &mut PgConnection, new: &Override) -> Result<()> {
    if new.sha256.is_none() && new.policy.is_none() {
        return Err(StoreError::unstorable("override", "it names neither a SHA-256 nor a policy"));
    }
    if new.reason.is_empty() {
        return Err(StoreError::unstorable("reason", "it is empty"));
    }
    if new.expires_at.is_some_and(|expires_at| expires_at <= new.created_at) {
        return Err(StoreError::unstorable("expires_at", "it is not in the future"));
    }
    sqlx::query(
        "insert into overrides (id, project, sha256, policy, action, reason, created_by, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new.id)
    .bind(&new.project)
    .bind(new.sha256)
    .bind(&new.policy)
    .bind(new.action.word())
    .bind(&new.reason)
    .bind(&new.created_by)
    .bind(new.created_at)
    .bind(new.expires_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends it. None: there is no such override, or it was deleted before.
#[tracing::instrument(name = "db.override.delete", skip_all, fields(%id))]
pub async fn delete(
    conn: &mut PgConnection,
    project: &str,
    id: Uuid,
    by: &str,
    at: OffsetDateTime,
) -> Result<Option<Override>> {
    let row: Option<Row> = sqlx::query_as(
        "update overrides set deleted_by = $3, deleted_at = $4
         where project = $1 and id = $2 and deleted_at is null
         returning *",
    )
    .bind(project)
    .bind(id)
    .bind(by)
    .bind(at)
    .fetch_optional(conn)
    .await?;
    row.map(Override::try_from).transpose()
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub sha256: Option<Sha256>,
    pub policy: Option<String>,
    /// Only those in force at this time.
    pub in_force_at: Option<OffsetDateTime>,
}

/// Newest first.
#[tracing::instrument(name = "db.override.list", skip_all)]
pub async fn list(
    conn: &mut PgConnection,
    project: &str,
    filter: &Filter,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Page<Override>> {
    let limit = bounded(limit);
    let mut sql = QueryBuilder::<Postgres>::new("select * from overrides where project = ");
    sql.push_bind(project);
    if let Some(cursor) = cursor {
        sql.push(" and id < ").push_bind(cursor.id(List::Overrides)?);
    }
    if let Some(sha256) = filter.sha256 {
        sql.push(" and sha256 = ").push_bind(sha256);
    }
    if let Some(policy) = &filter.policy {
        sql.push(" and policy = ").push_bind(policy);
    }
    if let Some(at) = filter.in_force_at {
        sql.push(" and deleted_at is null and (expires_at is null or expires_at > ").push_bind(at).push(")");
    }
    sql.push(" order by id desc limit ").push_bind(i64::try_from(limit + 1).unwrap_or(i64::MAX));
    let rows: Vec<Row> = sql.build_query_as().fetch_all(conn).await?;
    let data = rows.into_iter().map(Override::try_from).collect::<Result<Vec<_>>>()?;
    Ok(page(data, limit, |last| Cursor::after_id(List::Overrides, last.id)))
}
