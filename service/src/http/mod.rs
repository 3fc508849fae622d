//! The wire: routes, keys, bodies, errors.
//!
//! To add an endpoint: one file (or one function in its subject's file) with handler, wire types and
//! `#[utoipa::path]`; a line in [`routes`] and one in [`Document`]; a test over HTTP in `tests/`.
//! Handlers return `Result<_, ApiError>`; the middleware in `request_id` gives every error its shape.

mod audit;
pub mod auth;
mod body;
mod docs;
mod image_url;
mod images;
mod intake;
mod limits;
mod moderations;
mod openai;
mod operations;
mod overrides;
mod peer;
mod policies;
mod problem;
mod request_id;
mod texts;
mod unrouted;
mod verdicts;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use ::time::OffsetDateTime;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpServer, web};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use uuid::Uuid;

use self::body::Bodies;
use self::limits::Limits;
use self::problem::ApiError;
use crate::fetch::Fetcher;
use crate::moderate::Moderator;
use crate::store::keys::Shown;
use crate::store::{Cursor, Group, Sha256};
use crate::telemetry::Metrics;
use crate::timestamp;

/// JSON bodies (policies, overrides) are small.
const JSON_BYTES_MAX: usize = 128 * 1024;

/// How long a client may take for its request line and headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Within a collector's usual minute.
const OBSERVED_EVERY: Duration = Duration::from_secs(10);

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Clone)]
pub struct HttpConfig {
    pub body_bytes_max: u64,
    /// All bodies together.
    pub body_budget_bytes: u64,
    pub body_timeout: Duration,
    /// Submissions worked on at once; more are refused with 429.
    pub in_flight_max: usize,
    /// The same for the bulk lane.
    pub bulk_in_flight_max: usize,
    pub request_timeout: Duration,
    pub connections_max: usize,
    pub workers: usize,
    /// Serve `/metrics` beside the API, not on a listener of its own.
    pub metrics_here: bool,
    /// How long open requests may take to end at shutdown.
    pub shutdown_grace: Duration,
    pub runtime: String,
    pub device: String,
}

/// Groups of callers whose keys are looked up at once.
const KEY_READS_AT_ONCE: usize = 1;

/// What every handler may use.
pub struct State {
    moderator: Arc<Moderator>,
    metrics: Arc<Metrics>,
    keys: Group<Shown>,
    bodies: Bodies,
    /// None: image URLs are not fetched.
    fetcher: Option<Fetcher>,
    limits: Limits,
    in_flight: Semaphore,
    /// Apart, so that bulk work can't take the places of interactive work.
    bulk_in_flight: Semaphore,
    request_timeout: Duration,
    runtime: String,
    device: String,
}

impl State {
    pub fn new(
        moderator: Moderator,
        metrics: Arc<Metrics>,
        fetcher: Option<Fetcher>,
        config: &HttpConfig,
    ) -> Self {
        Self {
            keys: Group::start(&moderator.store, KEY_READS_AT_ONCE),
            moderator: Arc::new(moderator),
            metrics,
            bodies: Bodies::new(config.body_bytes_max, config.body_budget_bytes, config.body_timeout),
            fetcher,
            limits: Limits::default(),
            in_flight: Semaphore::new(config.in_flight_max.max(1)),
            bulk_in_flight: Semaphore::new(config.bulk_in_flight_max.max(1)),
            request_timeout: config.request_timeout,
            runtime: config.runtime.clone(),
            device: config.device.clone(),
        }
    }

    /// What can only be looked at: connections, queues.
    fn observe(&self) {
        let (open, idle) = self.moderator.store.connections();
        self.metrics.connections(open, idle);
        for seat in self.moderator.scheduler.seats() {
            self.metrics.judge(&seat);
        }
        self.metrics.decoders_failed(self.moderator.decoders.take_failed());
    }

    /// What this process took of others' share and did not use.
    pub async fn give_back(&self) {
        self.limits.give_back(&self.moderator.store).await;
    }
}

/// Keeps the gauges fresh for a collector, which nobody asks for; ends when it is aborted.
pub async fn observe(state: web::Data<State>) {
    loop {
        state.observe();
        tokio::time::sleep(OBSERVED_EVERY).await;
    }
}

/// Serves on an open listener until it is told to stop; the handle stops it.
pub fn serve(listener: TcpListener, state: web::Data<State>, config: &HttpConfig) -> std::io::Result<Server> {
    let metrics_here = config.metrics_here;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(json_config())
            .wrap(from_fn(request_id::around))
            .configure(|config| {
                if metrics_here {
                    config.service(operations::metrics);
                }
            })
            .configure(routes)
    })
    .on_connect(peer::remember)
    .workers(config.workers.max(1))
    // The framework's bound is each worker's.
    .max_connections(config.connections_max.div_ceil(config.workers.max(1)))
    .client_request_timeout(HEAD_TIMEOUT)
    .shutdown_timeout(config.shutdown_grace.as_secs().max(1))
    // Signals are ours: the scheduler, telemetry and Postgres must stop in their order.
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

/// Metrics and health on a listener of their own, which the outside need not reach.
pub fn serve_metrics(listener: TcpListener, state: web::Data<State>) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(request_id::around))
            .service(operations::metrics)
            .service(operations::healthz)
            .service(operations::readyz)
            .default_service(web::route().to(unrouted::unrouted))
    })
    .workers(1)
    .client_request_timeout(HEAD_TIMEOUT)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(images::moderate_image)
        .service(texts::moderate_text)
        .service(moderations::create_moderation)
        .service(verdicts::verdict_list)
        .service(verdicts::verdict_by_id)
        .service(policies::policy_list)
        .service(policies::policy_by_id)
        .service(policies::import_version)
        .service(policies::activate_version)
        .service(overrides::create_override)
        .service(overrides::override_list)
        .service(overrides::delete_override)
        .service(audit::audit_list)
        .service(operations::healthz)
        .service(operations::readyz)
        .service(operations::openapi)
        .service(operations::index)
        .service(docs::docs)
        .service(docs::docs_file)
        .default_service(web::route().to(unrouted::unrouted));
}

/// The framework would answer in plain text.
fn json_config() -> web::JsonConfig {
    web::JsonConfig::default().limit(JSON_BYTES_MAX).error_handler(|error, _| {
        use actix_web::error::JsonPayloadError as E;
        match &error {
            E::Overflow { .. } | E::OverflowKnownLength { .. } => ApiError::new(
                actix_web::http::StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("a JSON body has at most {JSON_BYTES_MAX} bytes"),
            ),
            E::ContentType => ApiError::new(
                actix_web::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_type_unsupported",
                "send JSON with `Content-Type: application/json`",
            ),
            _ => ApiError::malformed("json_invalid", format!("the body is not the expected JSON: {error}")),
        }
        .into()
    })
}

/// OpenAPI 3.1, made from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "shieldgate",
        description = "A self-hosted content-safety gate: every upload gets a verdict per policy, and every verdict is on record.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        images::moderate_image,
        texts::moderate_text,
        moderations::create_moderation,
        verdicts::verdict_list,
        verdicts::verdict_by_id,
        policies::policy_list,
        policies::policy_by_id,
        policies::import_version,
        policies::activate_version,
        overrides::create_override,
        overrides::override_list,
        overrides::delete_override,
        audit::audit_list,
        operations::healthz,
        operations::readyz,
        operations::metrics,
        operations::openapi,
    ),
    modifiers(&BearerKey)
)]
pub struct Document;

struct BearerKey;

impl utoipa::Modify for BearerKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("sg_…").build();
        document
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    let text = request.query_string();
    let unreadable =
        |why: &str| ApiError::malformed("query_invalid", format!("the query can't be read: {why}"));
    // The parser would put a replacement character, and so another id than the client's.
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| unreadable("it is not UTF-8"))?;
    // Nothing on record holds one, and Postgres would refuse to look for it.
    if decoded.contains('\0') {
        return Err(unreadable("it holds a zero character"));
    }
    web::Query::<T>::from_query(text)
        .map(web::Query::into_inner)
        .map_err(|error| unreadable(&error.to_string()))
}

fn limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(_) => {
            Err(ApiError::malformed("limit_invalid", format!("`limit` is 1 to {LIMIT_MAX}")).at("limit"))
        }
    }
}

fn cursor(text: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let parsed = text.map(str::parse::<Cursor>).transpose();
    parsed.map_err(|error| ApiError::malformed("cursor_invalid", error.to_string()).at("cursor"))
}

fn time(text: Option<&str>, name: &'static str) -> Result<Option<OffsetDateTime>, ApiError> {
    text.map(timestamp::parse).transpose().map_err(|_| {
        let detail = format!("`{name}` is a time as RFC 3339 writes it, like 2026-11-24T10:00:00Z");
        ApiError::malformed("time_invalid", detail).at(name)
    })
}

fn sha256(text: Option<&str>) -> Result<Option<Sha256>, ApiError> {
    let parse = |text: &str| shieldgate_models::Digest::parse(text).map(|digest| *digest.as_bytes());
    match text {
        None => Ok(None),
        Some(text) => parse(text)
            .map(Some)
            .ok_or_else(|| ApiError::malformed("sha256_invalid", "`sha256` is 64 hex digits").at("sha256")),
    }
}

fn uuid(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::malformed("id_invalid", "the id is not a UUID").at("id"))
}
