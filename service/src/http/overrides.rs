//! `/v1/overrides`: decisions for given bytes, and the kill switch of a whole policy.

use std::time::Duration;

use crate::store::PgConnection;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{Caller, Scope};
use super::problem::{ApiError, Problem};
use super::{State, cursor, limit, query, sha256, time};
use crate::store::overrides::{self, Filter, Override};
use crate::store::{audit, policies};
use crate::timestamp;
use crate::verdict::Action;

const REASON_BYTES_MAX: usize = 1000;
const POLICY_BYTES_MAX: usize = 64;

/// At least one of `sha256` and `policy` must stand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOverride {
    /// The content it is for, 64 hex digits; absent for every content of one policy (the kill switch).
    sha256: Option<String>,
    /// The policy it is for; absent for all policies.
    policy: Option<String>,
    action: Action,
    reason: String,
    /// RFC 3339, in the future; absent for no end.
    expires_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverrideView {
    id: Uuid,
    sha256: Option<String>,
    policy: Option<String>,
    action: Action,
    reason: String,
    created_by: String,
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
    deleted_by: Option<String>,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    deleted_at: Option<OffsetDateTime>,
}

/// A page of overrides, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverridePage {
    data: Vec<OverrideView>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Asked {
    sha256: Option<String>,
    policy: Option<String>,
    /// Only those in force now (`true`); all, ended ones too, where absent.
    in_force: Option<bool>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl From<Override> for OverrideView {
    fn from(row: Override) -> Self {
        Self {
            id: row.id,
            sha256: row.sha256.map(|bytes| shieldgate_models::Digest::from_bytes(bytes).hex()),
            policy: row.policy,
            action: row.action,
            reason: row.reason,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            deleted_by: row.deleted_by,
            deleted_at: row.deleted_at,
        }
    }
}

fn entry(row: &Override, act: &str, actor: String, at: OffsetDateTime) -> audit::Entry {
    let sha256 = row.sha256.map(|bytes| shieldgate_models::Digest::from_bytes(bytes).hex());
    audit::Entry {
        id: Uuid::now_v7(),
        at,
        project: row.project.clone(),
        actor,
        act: act.to_owned(),
        target: Some(row.id.to_string()),
        hashes: json!({"content": sha256}),
        detail: json!({
            "policy": row.policy,
            "action": row.action,
            "reason": row.reason,
            "expires_at": row.expires_at.and_then(|at| timestamp::format(at).ok()),
        }),
    }
}

/// Override a content, or switch a policy off
#[utoipa::path(
    tag = "overrides",
    request_body = NewOverride,
    responses(
        (status = 201, body = OverrideView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not `Content-Type: application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[post("/v1/overrides")]
pub(super) async fn create_override(
    caller: Caller,
    state: web::Data<State>,
    body: web::Json<NewOverride>,
) -> Result<HttpResponse, ApiError> {
    caller.require(&[Scope::Admin])?;
    let new = body.into_inner();
    let now = timestamp::now();
    if new.sha256.is_none() && new.policy.is_none() {
        let detail = "name `sha256` (a content), `policy` (its kill switch), or both";
        return Err(ApiError::unacceptable("override_of_nothing", detail));
    }
    let reason = new.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let detail = format!("`reason` is 1 to {REASON_BYTES_MAX} bytes: people will ask");
        return Err(ApiError::unacceptable("reason_invalid", detail).at("reason"));
    }
    if new.policy.as_ref().is_some_and(|policy| policy.is_empty() || policy.len() > POLICY_BYTES_MAX) {
        return Err(ApiError::unacceptable("policy_invalid", "`policy` is a policy id").at("policy"));
    }
    let expires_at = time(new.expires_at.as_deref(), "expires_at")?;
    if expires_at.is_some_and(|at| at <= now + Duration::from_secs(1)) {
        return Err(
            ApiError::unacceptable("expiry_past", "`expires_at` is not in the future").at("expires_at")
        );
    }
    let row = Override {
        id: Uuid::now_v7(),
        project: caller.project().to_owned(),
        sha256: sha256(new.sha256.as_deref())?,
        policy: new.policy,
        action: new.action,
        reason: reason.to_owned(),
        created_by: caller.actor(),
        created_at: now,
        expires_at,
        deleted_by: None,
        deleted_at: None,
    };
    let write = async |conn: &mut PgConnection| {
        if let Some(policy) = &row.policy
            && policies::versions(conn, caller.project(), Some(policy)).await?.is_empty()
        {
            // A slip of the pen in an incident must not look like a switch that was thrown.
            let detail = "this project has no such policy; `GET /v1/policies` lists them";
            return Err(ApiError::unacceptable("policy_unknown", detail).at("policy"));
        }
        overrides::create(conn, &row).await?;
        audit::append(conn, &[entry(&row, "override.created", caller.actor(), now)]).await?;
        Ok(())
    };
    state.moderator.store.write(write).await?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(OverrideView::from(row)))
}

/// Overrides, newest first
#[utoipa::path(
    tag = "overrides",
    params(Asked),
    responses(
        (status = 200, body = OverridePage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/overrides")]
pub(super) async fn override_list(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<web::Json<OverridePage>, ApiError> {
    caller.require(&[Scope::Admin])?;
    let asked: Asked = query(&request)?;
    let filter = Filter {
        sha256: sha256(asked.sha256.as_deref())?,
        policy: asked.policy,
        in_force_at: asked.in_force.unwrap_or(false).then(timestamp::now),
    };
    let (cursor, limit) = (cursor(asked.cursor.as_deref())?, limit(asked.limit)?);
    let store = &state.moderator.store;
    let page = store
        .read(async |conn| overrides::list(conn, caller.project(), &filter, cursor, limit).await)
        .await?;
    Ok(web::Json(OverridePage {
        data: page.data.into_iter().map(OverrideView::from).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// End an override
#[utoipa::path(
    tag = "overrides",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = OverrideView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[delete("/v1/overrides/{id}")]
pub(super) async fn delete_override(
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<String>,
) -> Result<web::Json<OverrideView>, ApiError> {
    caller.require(&[Scope::Admin])?;
    let (id, now) = (super::uuid(&id)?, timestamp::now());
    let write = async |conn: &mut PgConnection| {
        let row = overrides::delete(conn, caller.project(), id, &caller.actor(), now).await?;
        let row = row.ok_or_else(|| ApiError::not_found("override with this id that is not deleted"))?;
        audit::append(conn, &[entry(&row, "override.deleted", caller.actor(), now)]).await?;
        Ok::<_, ApiError>(row)
    };
    let row = state.moderator.store.write(write).await?;
    Ok(web::Json(row.into()))
}
