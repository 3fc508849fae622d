//! `GET /v1/verdicts` and `GET /v1/verdicts/{id}`: what was decided, one by one or page by page.

use actix_web::{HttpRequest, get, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Caller, Scope};
use super::problem::{ApiError, Problem};
use super::{State, cursor, limit, query, sha256, time};
use crate::store::verdicts::{self, Filter};
use crate::verdict::{Action, Verdict};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Verdicts in which this policy answered.
    policy: Option<String>,
    action: Option<Action>,
    /// `upload`
    source: Option<String>,
    /// RFC 3339; `created_at` from here on.
    since: Option<String>,
    /// RFC 3339; `created_at` before this.
    until: Option<String>,
    /// 64 hex digits.
    sha256: Option<String>,
    /// The client's item id.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// A policy gave at least this probability, 0 to 1.
    min_probability: Option<f32>,
    /// Whether a person has decided about it.
    reviewed: Option<bool>,
    /// 1 to 200; 50 where absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of verdicts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerdictPage {
    data: Vec<Verdict>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// One verdict
#[utoipa::path(
    tag = "verdicts",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = Verdict),
        (status = 400, description = "Not a UUID", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/verdicts/{id}")]
pub(super) async fn verdict_by_id(
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<String>,
) -> Result<web::Json<Verdict>, ApiError> {
    caller.require(&[Scope::Moderate, Scope::Read])?;
    let id = super::uuid(&id)?;
    let store = &state.moderator.store;
    let verdict = store.read(async |conn| verdicts::by_id(conn, caller.project(), id).await).await?;
    Ok(web::Json(verdict.ok_or_else(|| ApiError::not_found("verdict with this id"))?))
}

/// Verdicts, newest first
#[utoipa::path(
    tag = "verdicts",
    params(Asked),
    responses(
        (status = 200, body = VerdictPage),
        (status = 400, description = "A filter or the cursor is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/verdicts")]
pub(super) async fn verdict_list(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<web::Json<VerdictPage>, ApiError> {
    caller.require(&[Scope::Read])?;
    let asked: Asked = query(&request)?;
    if asked.min_probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
        return Err(
            ApiError::malformed("filter_invalid", "`min_probability` is 0 to 1").at("min_probability")
        );
    }
    let filter = Filter {
        policy: asked.policy,
        action: asked.action,
        source: asked.source,
        since: time(asked.since.as_deref(), "since")?,
        until: time(asked.until.as_deref(), "until")?,
        sha256: sha256(asked.sha256.as_deref())?,
        reference: asked.reference,
        min_probability: asked.min_probability,
        reviewed: asked.reviewed,
    };
    let (cursor, limit) = (cursor(asked.cursor.as_deref())?, limit(asked.limit)?);
    let store = &state.moderator.store;
    let page =
        store.read(async |conn| verdicts::page(conn, caller.project(), &filter, cursor, limit).await).await?;
    Ok(web::Json(VerdictPage { data: page.data, next_cursor: page.next_cursor.map(|c| c.to_string()) }))
}
