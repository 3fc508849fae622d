//! The one shape of every error on the wire: RFC 9457 members and the OpenAI `error` object in one body.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fetch::FetchError;
use crate::media::ErrorKind;
use crate::moderate::ModerateError;
use crate::scheduler::Refused;
use crate::store::StoreError;
use crate::text::TextError;

/// `application/problem+json`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:shieldgate:problem:<code>`.
    pub(super) r#type: String,
    /// The status in words.
    pub(super) title: String,
    pub(super) status: u16,
    /// What went wrong and what to do.
    pub(super) detail: String,
    /// `urn:shieldgate:request:<x-request-id>`.
    pub(super) instance: String,
    pub(super) error: OpenAiError,
}

/// As the OpenAI clients read it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct OpenAiError {
    pub(super) message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error`, `server_error`.
    pub(super) r#type: String,
    pub(super) param: Option<String>,
    /// Machine-readable and stable.
    pub(super) code: String,
}

/// An error on its way out. What a client may read is in `detail`; what only the log may is in `cause`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    param: Option<&'static str>,
    retry_after: Option<Duration>,
    /// Methods, for 405.
    allow: Option<&'static str>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), param: None, retry_after: None, allow: None, cause: None }
    }

    pub(super) fn malformed(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn unacceptable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    pub(super) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} in this project"))
    }

    /// RFC 9110: a 405 says which methods there are.
    pub(super) fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn at(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    pub(super) fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The whole chain, for the log.
    pub(super) fn chain(&self) -> String {
        let mut text = self.detail.clone();
        let mut next: Option<&(dyn std::error::Error + 'static)> =
            self.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static));
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    pub(super) fn response(&self, request_id: &str) -> HttpResponse {
        let mut response =
            respond(self.status, self.code, &self.detail, self.param, self.retry_after, request_id);
        if let Some(methods) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}

/// A longer wait is for the caller to decide about, not for a library to sleep through unseen.
const WAITED_OUT_MAX: Duration = Duration::from_secs(20);

/// For errors that are not ours: requests that the framework refused.
pub(super) fn foreign(status: StatusCode, detail: &str, request_id: &str) -> HttpResponse {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        _ if status.is_server_error() => "internal_error",
        _ => "malformed_request",
    };
    respond(status, code, detail, None, None, request_id)
}

fn respond(
    status: StatusCode,
    code: &str,
    detail: &str,
    param: Option<&str>,
    retry_after: Option<Duration>,
    request_id: &str,
) -> HttpResponse {
    let problem = Problem {
        r#type: format!("urn:shieldgate:problem:{code}"),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail: detail.to_owned(),
        instance: format!("urn:shieldgate:request:{request_id}"),
        error: OpenAiError {
            message: detail.to_owned(),
            r#type: openai_type(status).to_owned(),
            param: param.map(str::to_owned),
            code: code.to_owned(),
        },
    };
    let mut response = HttpResponseBuilder::new(status);
    response.insert_header((CONTENT_TYPE, "application/problem+json"));
    if let Some(wait) = retry_after {
        // Whole seconds, rounded up: who comes earlier is turned away again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.insert_header((RETRY_AFTER, seconds.max(1).to_string()));
    }
    if status == StatusCode::CONFLICT || retry_after.is_some_and(|wait| wait > WAITED_OUT_MAX) {
        // The OpenAI clients would retry a conflict three times, and sleep as long as they are told, in the middle
        // of their caller's call.
        response.insert_header((HeaderName::from_static("x-should-retry"), "false"));
    }
    response.json(problem)
}

fn openai_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The middleware replaces this body by one that names the request.
    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}

/// How long a client should wait for a database that is away.
const DATABASE_AWAY: Duration = Duration::from_secs(2);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_unavailable",
                // A commit whose answer was lost may have been one, so nothing is said about the record.
                "the database is unavailable; try again, with the same idempotency key if there was one",
            )
            .after(DATABASE_AWAY)
            .because(error),
            StoreError::Conflict { conflict, .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", conflict.to_string()).because(error)
            }
            StoreError::Unstorable { what, why } => {
                Self::unacceptable("not_storable", format!("`{what}` can't be stored: {why}"))
            }
            StoreError::Cursor(cursor) => Self::malformed("cursor_invalid", cursor.to_string()).at("cursor"),
            StoreError::Inconsistent { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "record_inconsistent",
                "a record can't be read back; the operator's log says which",
            )
            .after(DATABASE_AWAY)
            .because(error),
        }
    }
}

impl From<FetchError> for ApiError {
    /// Whatever another host does, it is no failure of ours.
    fn from(error: FetchError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        let told = match error {
            FetchError::Invalid | FetchError::TooLong { .. } => Self::malformed(code, detail),
            FetchError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail),
            FetchError::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).after(Duration::from_secs(1))
            }
            _ => Self::unacceptable(code, detail),
        };
        told.at("input")
    }
}

impl From<ModerateError> for ApiError {
    fn from(error: ModerateError) -> Self {
        let unavailable = |code, detail: String| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        match error {
            ModerateError::Media(media) => {
                let status = match media.kind() {
                    ErrorKind::Malformed => StatusCode::BAD_REQUEST,
                    ErrorKind::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    ErrorKind::Unacceptable => StatusCode::UNPROCESSABLE_ENTITY,
                };
                Self::new(status, media.code(), media.to_string())
            }
            ModerateError::Text(text) => {
                let status = match text {
                    TextError::Empty | TextError::NotUtf8 { .. } => StatusCode::BAD_REQUEST,
                    TextError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                };
                Self::new(status, text.code(), text.to_string())
            }
            ModerateError::UnknownPolicy(_) => {
                Self::unacceptable("policy_not_active", error.to_string()).at("policies")
            }
            ModerateError::NothingJudged { .. } => {
                unavailable("nothing_judged", error.to_string()).after(Duration::from_secs(30))
            }
            ModerateError::Undecided(undecided) => {
                let code = undecided.failure.code();
                unavailable(
                    code,
                    format!("policy `{}` could not be judged, so there is no verdict", undecided.policy),
                )
                .after(Duration::from_secs(5))
                .because(undecided)
            }
            ModerateError::Busy { refused, retry_after } => {
                let detail = error.to_string();
                match refused {
                    Refused::Full => {
                        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail).after(retry_after)
                    }
                    Refused::Deadline => unavailable("deadline_exceeded", detail).after(retry_after),
                    Refused::ShuttingDown => unavailable("shutting_down", detail).after(retry_after),
                }
            }
            ModerateError::IdempotencyConflict => {
                Self::new(StatusCode::CONFLICT, "idempotency_conflict", error.to_string())
                    .at("Idempotency-Key")
            }
            ModerateError::Store(error) => error.into(),
            ModerateError::Keep(_) => {
                unavailable("media_store_unavailable", error.to_string()).after(DATABASE_AWAY).because(error)
            }
            ModerateError::Policies(_) => {
                unavailable("judge_missing", error.to_string()).after(Duration::from_secs(30)).because(error)
            }
            ModerateError::NoDecoder(_) => {
                unavailable("decoder_unavailable", error.to_string()).after(DATABASE_AWAY).because(error)
            }
            ModerateError::Breach(_) | ModerateError::TaskGone => {
                unavailable("internal_check_failed", error.to_string()).after(DATABASE_AWAY).because(error)
            }
        }
    }
}
