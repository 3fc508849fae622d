//! Around every request: its id, its span, its line in the log, its metrics, and one shape for every error.

use std::fmt;
use std::future::{Ready, ready};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use opentelemetry::propagation::Extractor;
use tracing::Instrument as _;
use uuid::Uuid;

use super::State;
use super::problem::{ApiError, foreign};
use crate::telemetry::{describe_request, join_trace};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const BYTES_MAX: usize = 128;

/// The client's own where it sent a harmless one, else a UUIDv7.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromRequest for RequestId {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Self>().cloned();
        ready(Ok(known.unwrap_or_else(Self::new)))
    }
}

impl RequestId {
    fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    fn of(request: &ServiceRequest) -> Self {
        let harmless = |id: &&str| {
            (1..=BYTES_MAX).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/'))
        };
        let sent = request.headers().get(&HEADER).and_then(|value| value.to_str().ok());
        sent.filter(harmless).map_or_else(Self::new, |id| Self(id.to_owned()))
    }
}

pub(super) async fn around<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let began = Instant::now();
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let state = request.app_data::<web::Data<State>>().cloned();
    let span = tracing::info_span!(
        "http",
        request_id = %id,
        otel.kind = "server",
    );
    join_trace(&span, &TraceHeaders(request.headers()));

    // Handlers' and extractors' errors arrive here as responses that hold them.
    let mut response = next.call(request).instrument(span.clone()).await?.map_into_boxed_body();
    // The template, never the path or the query: they may hold what must not be logged.
    let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let status = response.status();
    let mut code = None;
    if status.is_client_error() || status.is_server_error() {
        let (request, inner) = response.into_parts();
        let (body, failed) = shaped(inner, &id, &span);
        code = failed;
        response = ServiceResponse::new(request, body);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    describe_request(&span, method.as_str(), &route, status.as_u16());
    let took = began.elapsed();
    if let Some(state) = state {
        state.metrics.answered(&method, &route, status, took);
    }
    span.in_scope(|| {
        let duration_ms = took.as_secs_f64() * 1e3;
        tracing::info!(%method, route, status = status.as_u16(), code, duration_ms, "answered");
    });
    Ok(response)
}

/// The caller's trace, as W3C Trace Context writes it.
struct TraceHeaders<'a>(&'a HeaderMap);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// One shape for our errors and the framework's; the cause goes to the log, once.
fn shaped(
    response: actix_web::HttpResponse<BoxBody>,
    id: &RequestId,
    span: &tracing::Span,
) -> (actix_web::HttpResponse<BoxBody>, Option<&'static str>) {
    if let Some(error) = response.error().and_then(|error| error.as_error::<ApiError>()) {
        if response.status().is_server_error() {
            span.in_scope(|| tracing::warn!(code = error.code(), error = error.chain(), "refused"));
        }
        return (error.response(&id.0), Some(error.code()));
    }
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/problem+json"));
    if is_problem {
        return (response, None);
    }
    let status = response.status();
    let detail = match (status, response.error()) {
        (status, Some(error)) if status.is_client_error() => error.to_string(),
        (status, error) => {
            span.in_scope(|| tracing::error!(?error, "an error without a shape of its own"));
            status.canonical_reason().unwrap_or("the request failed").to_owned()
        }
    };
    (foreign(status, &detail, &id.0), None)
}
