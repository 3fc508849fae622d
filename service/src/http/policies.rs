//! `/v1/policies`: what is in force, new versions, and their activation.

use crate::store::PgConnection;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, get, post, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::State;
use super::auth::{Caller, Scope};
use super::problem::{ApiError, Problem};
use crate::policy::lifecycle::{self, LifecycleError, Moved};
use crate::policy::{Policy, is_id};
use crate::store::policies::{self, PolicyVersion, State as VersionState};
use crate::store::verdicts::{self, Pair};
use crate::timestamp;
use crate::verdict::Action;

/// One version of one policy.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    /// Hash of the canonical content, 64 hex digits.
    version: String,
    #[schema(value_type = String, example = "active")]
    state: VersionState,
    imported_by: String,
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    imported_at: OffsetDateTime,
    state_by: String,
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    state_at: OffsetDateTime,
    #[schema(value_type = Policy)]
    body: serde_json::Value,
}

/// A policy and its versions, the active one first, then the newest.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyView {
    id: String,
    /// The active version; null where none is.
    active: Option<String>,
    /// How the version in the shadow compares with the active one; only where one policy is asked for and
    /// has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowView>,
    versions: Vec<VersionView>,
}

/// What the active version and the one in the shadow said of the same submissions, the newest 100 000.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShadowView {
    version: String,
    /// In the shadow since then; earlier submissions are not compared.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    since: OffsetDateTime,
    compared: u64,
    /// Both said the same.
    agreed: u64,
    /// The shadow's action was the more severe one: what an activation would flag in addition.
    stricter: u64,
    /// The shadow's action was the less severe one: what an activation would let through.
    milder: u64,
    pairs: Vec<PairView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PairView {
    active: Action,
    shadow: Action,
    count: u64,
}

impl ShadowView {
    fn new(version: &PolicyVersion, pairs: &[Pair]) -> Self {
        let count = |is: fn(&Pair) -> bool| pairs.iter().filter(|pair| is(pair)).map(|pair| pair.count).sum();
        Self {
            version: version.version.clone(),
            since: version.state_at,
            compared: count(|_| true),
            agreed: count(|pair| pair.shadow == pair.active),
            stricter: count(|pair| pair.shadow > pair.active),
            milder: count(|pair| pair.shadow < pair.active),
            pairs: pairs
                .iter()
                .map(|pair| PairView { active: pair.active, shadow: pair.shadow, count: pair.count })
                .collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyList {
    /// With the twenty newest versions of each; `GET /v1/policies/{id}` has more.
    data: Vec<PolicyView>,
    /// Always null: a project's policies are one page.
    next_cursor: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Activation {
    /// `active` (the default) or `shadow`: judged and recorded, without effect.
    #[serde(default)]
    state: Option<String>,
}

/// What became of a version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Change {
    policy: String,
    version: String,
    #[schema(value_type = String, example = "active")]
    state: VersionState,
    /// The version that was active before.
    displaced: Option<String>,
}

fn grouped(versions: Vec<PolicyVersion>) -> Vec<PolicyView> {
    let mut views: Vec<PolicyView> = Vec::new();
    for version in versions {
        if views.last().is_none_or(|last| last.id != version.policy) {
            views.push(PolicyView {
                id: version.policy.clone(),
                active: None,
                shadow: None,
                versions: Vec::new(),
            });
        }
        if let Some(view) = views.last_mut() {
            if version.state == VersionState::Active {
                view.active = Some(version.version.clone());
            }
            view.versions.push(VersionView {
                version: version.version,
                state: version.state,
                imported_by: version.imported_by,
                imported_at: version.imported_at,
                state_by: version.state_by,
                state_at: version.state_at,
                body: version.body,
            });
        }
    }
    views
}

/// All policies of the project
#[utoipa::path(
    tag = "policies",
    responses(
        (status = 200, body = PolicyList),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/policies")]
pub(super) async fn policy_list(
    caller: Caller,
    state: web::Data<State>,
) -> Result<web::Json<PolicyList>, ApiError> {
    caller.require(&[Scope::Read])?;
    let store = &state.moderator.store;
    let versions = store.read(async |conn| policies::versions(conn, caller.project(), None).await).await?;
    Ok(web::Json(PolicyList { data: grouped(versions), next_cursor: None }))
}

/// One policy and its versions
#[utoipa::path(
    tag = "policies",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = PolicyView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[get("/v1/policies/{id}")]
pub(super) async fn policy_by_id(
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<String>,
) -> Result<web::Json<PolicyView>, ApiError> {
    caller.require(&[Scope::Read])?;
    let missing = || ApiError::not_found("policy with this id");
    if !is_id(&id) {
        return Err(missing());
    }
    let read = async |conn: &mut PgConnection| {
        let versions = policies::versions(conn, caller.project(), Some(&id)).await?;
        let Some(shadow) = versions.iter().find(|version| version.state == VersionState::Shadow) else {
            return Ok((versions, None));
        };
        let named = policies::Named { project: caller.project(), policy: &id, version: &shadow.version };
        let pairs = verdicts::compare(conn, named, shadow.state_at).await?;
        let shadow = ShadowView::new(shadow, &pairs);
        Ok((versions, Some(shadow)))
    };
    let (versions, shadow) = state.moderator.store.read(read).await?;
    let view = grouped(versions).pop().ok_or_else(missing)?;
    Ok(web::Json(PolicyView { shadow, ..view }))
}

/// Import a version as draft
///
/// The body is the policy as JSON, with the fields of a policy file. The same content is the same version.
#[utoipa::path(
    tag = "policies",
    params(("id" = String, Path)),
    request_body = Policy,
    responses(
        (status = 200, description = "This version was there already", body = Change),
        (status = 201, description = "Imported as draft", body = Change),
        (status = 400, description = "No JSON, or not a policy", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not `Content-Type: application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A policy that can't be meant", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[post("/v1/policies/{id}/versions")]
pub(super) async fn import_version(
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<String>,
    body: web::Json<Policy>,
) -> Result<HttpResponse, ApiError> {
    caller.require(&[Scope::Admin])?;
    let policy = body.into_inner();
    if policy.id != *id {
        let detail = format!("the body is policy `{}`, the address names another", policy.id);
        return Err(ApiError::unacceptable("policy_id_differs", detail).at("id"));
    }
    let faults: Vec<String> =
        policy.faults().iter().map(|fault| format!("{}: {}", fault.at, fault.message)).collect();
    if !faults.is_empty() {
        return Err(ApiError::unacceptable("policy_invalid", faults.join("; ")));
    }
    let (store, actor, now) = (&state.moderator.store, caller.actor(), timestamp::now());
    let imported = store
        .write(async |conn| lifecycle::import(conn, caller.project(), &policy, &actor, now).await)
        .await?;
    let status = if imported.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(HttpResponse::build(status).json(Change {
        policy: policy.id,
        version: imported.version,
        state: imported.state,
        displaced: None,
    }))
}

/// Activate a version, or put it in the shadow
///
/// Running processes judge by it from their next request on. Activating an older version is the rollback. A
/// version in the shadow is judged after the answer, and `GET /v1/policies/{id}` compares it with the active one.
#[utoipa::path(
    tag = "policies",
    params(("id" = String, Path), ("version" = String, Path)),
    request_body(content = Option<Activation>),
    responses(
        (status = 200, body = Change),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A state that is not offered, or a judge that is not installed", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[post("/v1/policies/{id}/versions/{version}/activate")]
pub(super) async fn activate_version(
    caller: Caller,
    state: web::Data<State>,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> Result<web::Json<Change>, ApiError> {
    caller.require(&[Scope::Admin])?;
    let (id, version) = path.into_inner();
    // Absent means active; what is there and can't be read must not mean it too.
    let asked = if body.is_empty() { Activation::default() } else { activation(&body)? };
    let wanted = match asked.state.as_deref() {
        None | Some("active") => VersionState::Active,
        Some("shadow") => VersionState::Shadow,
        Some(other) => {
            let detail = format!("state `{other}` is not offered; `active` and `shadow` are");
            return Err(ApiError::unacceptable("state_not_offered", detail).at("state"));
        }
    };
    let named = policies::Named { project: caller.project(), policy: &id, version: &version };
    let (actor, now) = (caller.actor(), timestamp::now());
    let write = async |conn: &mut PgConnection| {
        let found = policies::version(conn, named).await?;
        let found = found.ok_or_else(|| ApiError::not_found("such version of this policy"))?;
        // A version that nothing here can judge would turn every upload into a 503.
        let policy: Policy = serde_json::from_value(found.body).map_err(|error| {
            let detail = format!("this version was made by another shieldgate: {error}");
            ApiError::unacceptable("policy_invalid", detail)
        })?;
        crate::moderate::policies::resolve(policy, found.version, &state.moderator.scheduler)
            .map_err(|error| ApiError::unacceptable("judge_missing", error.to_string()))?;
        let moved = lifecycle::set_state(conn, named, wanted, &actor, now).await?;
        Ok::<Moved, ApiError>(moved)
    };
    let moved = state.moderator.store.write(write).await?;
    Ok(web::Json(Change { policy: id, version, state: wanted, displaced: moved.displaced }))
}

fn activation(body: &[u8]) -> Result<Activation, ApiError> {
    // By way of an object: serde would read `[]` as one whose members are all absent.
    serde_json::from_slice::<serde_json::Map<_, _>>(body)
        .and_then(|members| serde_json::from_value(members.into()))
        .map_err(|error| {
            ApiError::malformed("json_invalid", format!("the body is not the expected JSON: {error}"))
        })
}

impl From<LifecycleError> for ApiError {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Store(error) => error.into(),
            LifecycleError::Unknown { .. } => Self::not_found("such version of this policy"),
            LifecycleError::Canonical(error) => Self::unacceptable("policy_invalid", error.to_string()),
        }
    }
}
