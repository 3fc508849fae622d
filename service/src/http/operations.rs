//! For operators and their tools, without a key: health, readiness, metrics, the API's description.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, get, route, web};
use serde::Serialize;
use utoipa::{OpenApi as _, ToSchema};

use super::problem::{ApiError, Problem};
use super::{Document, State};

/// A readiness probe that hangs is as bad as one that lies.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
}

/// One judge of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JudgeState {
    name: String,
    kind: String,
    digest: String,
    demo: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    status: &'static str,
    judges: Vec<JudgeState>,
    runtime: String,
    device: String,
}

/// The process is alive
#[utoipa::path(tag = "operations", responses((status = 200, body = Health)))]
#[route("/healthz", method = "GET", method = "HEAD")]
pub(super) async fn healthz() -> web::Json<Health> {
    web::Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Judges are loaded and Postgres is reachable
#[utoipa::path(
    tag = "operations",
    responses(
        (status = 200, body = Readiness),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
#[route("/readyz", method = "GET", method = "HEAD")]
pub(super) async fn readyz(state: web::Data<State>) -> Result<web::Json<Readiness>, ApiError> {
    let not_ready = |detail: String| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).after(PROBE_TIMEOUT)
    };
    let store = &state.moderator.store;
    tokio::time::timeout(PROBE_TIMEOUT, store.ping())
        .await
        .map_err(|_| not_ready("the database does not answer".to_owned()))??;
    let scheduler = &state.moderator.scheduler;
    let stuck = scheduler.stuck();
    if !stuck.is_empty() {
        return Err(not_ready(format!("stuck judges: {}", stuck.join(", "))));
    }
    let judges = scheduler
        .cards()
        .map(|card| JudgeState {
            name: card.name.clone(),
            kind: card.kind.to_owned(),
            digest: card.digest.to_string(),
            demo: card.demo,
        })
        .collect();
    let (runtime, device) = (state.runtime.clone(), state.device.clone());
    Ok(web::Json(Readiness { status: "ready", judges, runtime, device }))
}

/// Prometheus metrics
#[utoipa::path(
    tag = "operations",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
#[get("/metrics")]
pub(super) async fn metrics(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    state.observe();
    let text = state.metrics.render().map_err(|error| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "metrics_unavailable", error.to_string())
            .after(PROBE_TIMEOUT)
    })?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

/// This description
#[utoipa::path(tag = "operations", responses((status = 200, content_type = "application/json")))]
#[get("/openapi.json")]
pub(super) async fn openapi() -> web::Json<utoipa::openapi::OpenApi> {
    web::Json(Document::openapi())
}

/// Where a person who opens the address lands until there is a dashboard.
#[get("/")]
pub(super) async fn index() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::html()).body(
        "<!doctype html><html lang=en><meta charset=utf-8><title>shieldgate</title>\
         <h1>shieldgate</h1><p>The gate is running.</p><ul>\
         <li><a href=/docs>The API, to read and try</a>\
         <li><a href=/openapi.json>The API, as OpenAPI 3.1</a>\
         <li><a href=/readyz>Readiness and installed judges</a>\
         <li><a href=/metrics>Metrics</a></ul>",
    )
}
