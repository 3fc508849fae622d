//! `GET /v1/audit`: who did what to what.

use actix_web::{HttpRequest, get, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{Caller, Scope};
use super::problem::{ApiError, Problem};
use super::{State, cursor, limit, query, time};
use crate::store::audit::{self, Filter};
use crate::timestamp;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Asked {
    actor: Option<String>,
    /// `verdict.recorded`, `policy.activated`, …
    act: Option<String>,
    target: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditEntry {
    /// Ascending, not gapless.
    seq: i64,
    id: Uuid,
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    at: OffsetDateTime,
    project: String,
    actor: String,
    act: String,
    target: Option<String>,
    #[schema(value_type = Object)]
    hashes: serde_json::Value,
    #[schema(value_type = Object)]
    detail: serde_json::Value,
    /// RFC 6962 leaf over the canonical entry without `seq`: `sha256:…`.
    leaf_hash: String,
}

/// A page of audit entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    data: Vec<AuditEntry>,
    next_cursor: Option<String>,
}

/// The audit log, newest first
#[utoipa::path(
    tag = "audit",
    params(Asked),
    responses(
        (status = 200, body = AuditPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/audit")]
pub(super) async fn audit_list(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<web::Json<AuditPage>, ApiError> {
    caller.require(&[Scope::Admin])?;
    let asked: Asked = query(&request)?;
    let filter = Filter {
        actor: asked.actor,
        act: asked.act,
        target: asked.target,
        since: time(asked.since.as_deref(), "since")?,
        until: time(asked.until.as_deref(), "until")?,
    };
    let (cursor, limit) = (cursor(asked.cursor.as_deref())?, limit(asked.limit)?);
    let store = &state.moderator.store;
    let page =
        store.read(async |conn| audit::page(conn, caller.project(), &filter, cursor, limit).await).await?;
    let data = page
        .data
        .into_iter()
        .map(|row| AuditEntry {
            seq: row.seq,
            id: row.entry.id,
            at: row.entry.at,
            project: row.entry.project,
            actor: row.entry.actor,
            act: row.entry.act,
            target: row.entry.target,
            hashes: row.entry.hashes,
            detail: row.entry.detail,
            leaf_hash: shieldgate_models::Digest::from_bytes(row.leaf_hash).to_string(),
        })
        .collect();
    Ok(web::Json(AuditPage { data, next_cursor: page.next_cursor.map(|cursor| cursor.to_string()) }))
}
