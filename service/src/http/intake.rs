//! What every route that submits content has in common: what it reads beside the content, the place it takes, and
//! the way to a verdict.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use uuid::Uuid;

use super::auth::Caller;
use super::problem::{ApiError, Problem};
use super::request_id::RequestId;
use super::{State, peer};
use crate::moderate::{ModerateError, Original, Submission};
use crate::policy::Modality;
use crate::scheduler::{self, Lane};
use crate::verdict::Verdict;

pub(super) const WORD_BYTES_MAX: usize = 255;
const METADATA_BYTES_MAX: usize = 4 * 1024;
const METADATA_DEPTH_MAX: usize = 32;
const POLICIES_MAX: usize = 64;

/// What any of these routes may answer in a verdict's place; documentation only.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is a list of responses, not a value")]
pub(super) enum Refused {
    /// Malformed request
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// No or an unknown key
    #[response(status = 401, content_type = "application/problem+json")]
    NoKey(Problem),
    /// The key lacks the scope `moderate`
    #[response(status = 403, content_type = "application/problem+json")]
    NoScope(Problem),
    /// The body came too slowly
    #[response(status = 408, content_type = "application/problem+json")]
    Slow(Problem),
    /// The idempotency key belongs to another request
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// Too many bytes
    #[response(status = 413, content_type = "application/problem+json")]
    Large(Problem),
    /// Another content type than the route takes, or not a supported image
    #[response(status = 415, content_type = "application/problem+json")]
    Unsupported(Problem),
    /// An image, but not one to accept; or a policy that is not active
    #[response(status = 422, content_type = "application/problem+json")]
    Unacceptable(Problem),
    /// Overloaded; see `Retry-After`
    #[response(status = 429, content_type = "application/problem+json")]
    Overloaded(Problem),
    /// No verdict could be given or recorded; see `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// What is said about a content.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    pub(super) policies: Option<Vec<String>>,
    pub(super) reference: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) metadata: Value,
    pub(super) idempotency_key: Option<String>,
}

/// Where it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// `POST /v1/images`: where idempotency keys are scoped.
    pub(super) path: &'static str,
    pub(super) source: &'static str,
    pub(super) lane: Lane,
}

/// A place among those worked on; 429 where there is none.
pub(super) fn place(state: &State, lane: Lane) -> Result<SemaphorePermit<'_>, ApiError> {
    let places = match lane {
        Lane::Interactive => &state.in_flight,
        Lane::Bulk => &state.bulk_in_flight,
    };
    places.try_acquire().map_err(|_| {
        ApiError::from(ModerateError::Busy {
            refused: scheduler::Refused::Full,
            retry_after: state.moderator.scheduler.expected_wait(lane),
        })
    })
}

pub(super) fn submission(
    caller: &Caller,
    state: &State,
    request_id: &RequestId,
    route: Route,
    (modality, original): (Modality, Original),
    words: Words,
) -> Submission {
    let deadline = Instant::now() + patience(state.request_timeout, modality, original.as_ref().len());
    Submission {
        original,
        modality,
        project: caller.project().to_owned(),
        route: route.path,
        source: route.source,
        lane: route.lane,
        key_id: Some(caller.key_id()),
        actor: caller.actor(),
        policies: words.policies,
        reference: words.reference,
        subject: words.subject,
        metadata: words.metadata,
        idempotency_key: words.idempotency_key,
        request_id: request_id.to_string(),
        submission_id: Uuid::now_v7(),
        deadline,
    }
}

/// A text of so many bytes may take as long as the request's time-out once more.
const TEXT_BYTES_A_TIMEOUT: usize = 16 * 1024;

/// Times the time-out, at most.
const PATIENCE_MAX: u32 = 16;

/// How long a submission may wait for its judges. A picture is scaled to one size; a text is judged whole, and one of a
/// hundred pages takes a hundred times as long as one of a page.
fn patience(timeout: Duration, modality: Modality, bytes: usize) -> Duration {
    let times = match modality {
        Modality::Image => 1,
        Modality::Text => u32::try_from(1 + bytes / TEXT_BYTES_A_TIMEOUT).unwrap_or(PATIENCE_MAX),
    };
    timeout * times.min(PATIENCE_MAX)
}

/// A JSON body, read within the bounds of all bodies, and its share of their memory.
pub(super) async fn json<T: DeserializeOwned>(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(T, Option<OwnedSemaphorePermit>), ApiError> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let essence = header(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if !essence.is_empty() && !essence.eq_ignore_ascii_case("application/json") {
        let detail = "send JSON with `Content-Type: application/json`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type_unsupported", detail));
    }
    let declared = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let (bytes, budget) = state.bodies.read(payload, declared).await?.into_parts();
    let body = serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::malformed("json_invalid", format!("the body is not the expected JSON: {error}"))
    })?;
    Ok((body, budget))
}

/// The verdict, counted; or an error where the client leaves before.
pub(super) async fn moderate(
    state: &State,
    request: &HttpRequest,
    submission: Submission,
) -> Result<Verdict, ApiError> {
    let verdict = tokio::select! {
        biased;
        verdict = state.moderator.moderate(submission) => verdict,
        // Dropped wherever it is: at most a verdict is on record that nobody read.
        () = peer::left(request) => {
            state.metrics.turned_away("client_left");
            let detail = "the client closed the connection";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "client_left", detail));
        }
    };
    state.metrics.moderated(&verdict);
    Ok(verdict?)
}

pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key = header.to_str().unwrap_or("").trim();
    if key.is_empty() || key.len() > WORD_BYTES_MAX {
        let detail = format!("an idempotency key is 1 to {WORD_BYTES_MAX} visible ASCII characters");
        return Err(ApiError::malformed("idempotency_key_invalid", detail).at("Idempotency-Key"));
    }
    Ok(Some(key.to_owned()))
}

/// An id of the client's: short, and nothing that a log or a terminal would trip over.
pub(super) fn word(word: Option<String>, name: &'static str) -> Result<Option<String>, ApiError> {
    match word {
        Some(word)
            if word.is_empty() || word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control) =>
        {
            let detail = format!("`{name}` is 1 to {WORD_BYTES_MAX} bytes without control characters");
            Err(ApiError::malformed("word_invalid", detail).at(name))
        }
        word => Ok(word),
    }
}

pub(super) fn metadata_text(text: &str) -> Result<Map<String, Value>, ApiError> {
    if text.len() > METADATA_BYTES_MAX {
        return Err(metadata_invalid(format!("`metadata` has more than {METADATA_BYTES_MAX} bytes")));
    }
    let value = serde_json::from_str(text);
    metadata(value.map_err(|error| metadata_invalid(format!("`metadata` is no JSON: {error}")))?)
}

/// A JSON object of bounded depth. Its size is held against the bound as it will be stored.
pub(super) fn metadata(value: Value) -> Result<Map<String, Value>, ApiError> {
    let deep = depth(&value) > METADATA_DEPTH_MAX;
    let Value::Object(members) = value else {
        return Err(metadata_invalid(format!(
            "`metadata` is a JSON object of at most {METADATA_DEPTH_MAX} levels"
        )));
    };
    if deep {
        return Err(metadata_invalid(format!(
            "`metadata` is a JSON object of at most {METADATA_DEPTH_MAX} levels"
        )));
    }
    let bytes = serde_json::to_string(&members).map_or(0, |text| text.len());
    if bytes > METADATA_BYTES_MAX {
        return Err(metadata_invalid(format!("`metadata` has more than {METADATA_BYTES_MAX} bytes")));
    }
    Ok(members)
}

fn metadata_invalid(detail: String) -> ApiError {
    ApiError::malformed("metadata_invalid", detail).at("metadata")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn policy_list(text: &str) -> Result<Vec<String>, ApiError> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) || names.len() > POLICIES_MAX {
        let detail = format!("`policies` is 1 to {POLICIES_MAX} policy ids, separated by commas");
        return Err(ApiError::malformed("policies_invalid", detail).at("policies"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_given_more_time_and_never_without_bound() {
        let of = |modality, bytes| patience(Duration::from_secs(60), modality, bytes).as_secs();
        assert_eq!(of(Modality::Image, 20 << 20), 60);
        assert_eq!((of(Modality::Text, 5), of(Modality::Text, 135_000)), (60, 9 * 60));
        assert_eq!((of(Modality::Text, 1 << 20), of(Modality::Text, usize::MAX - 1)), (16 * 60, 16 * 60));
    }
}
