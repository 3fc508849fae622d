//! `POST /v1/images`: one image in, its verdict out.

use std::time::Instant;

use actix_multipart::Multipart;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{HttpRequest, post, web};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::SemaphorePermit;
use utoipa::IntoParams;

use super::auth::{Caller, Scope};
use super::body::{Body, Form};
use super::problem::{ApiError, Problem};
use super::request_id::RequestId;
use super::{State, peer, query};
use crate::moderate::{Original, Submission};
use crate::scheduler::{Lane, Refused};
use crate::timestamp;
use crate::verdict::Verdict;

pub(super) const WORD_BYTES_MAX: usize = 255;
const METADATA_BYTES_MAX: usize = 4 * 1024;
const METADATA_DEPTH_MAX: usize = 32;
const POLICIES_MAX: usize = 64;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Only these policies, by id, separated by commas; all active ones where absent.
    policies: Option<String>,
    /// The client's item id; verdicts can be found by it.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// The client's account id; only a keyed hash of it is stored.
    subject: Option<String>,
    /// `bulk` stands back for `interactive` work, which is what it is where absent.
    #[serde(default)]
    lane: Lane,
}

/// Moderate one image
///
/// The body is the image (`Content-Type: image/*`) or a multipart form with the part `file` and, if wanted,
/// `metadata` (a JSON object of at most 4 KB), `ref` and `subject`. The type is found in the bytes. The answer
/// comes after the verdict and its audit entry are committed.
#[utoipa::path(
    tag = "moderation",
    params(
        Asked,
        ("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters; for 24 hours the same request under the same key gets the same verdict"),
    ),
    request_body(content(
        (Vec<u8> = "image/*"),
        (ImageForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The recorded verdict", body = Verdict),
        (status = 400, description = "Malformed request", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No or an unknown key", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope `moderate`", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The idempotency key belongs to another request", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a supported image", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "An image, but not one to accept; or a policy that is not active", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Overloaded; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No verdict could be given or recorded; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[post("/v1/images")]
pub(super) async fn moderate_image(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
    request_id: RequestId,
    payload: web::Payload,
) -> Result<web::Json<Verdict>, ApiError> {
    caller.require(&[Scope::Moderate])?;
    let admitted = admit(&caller, &state, &request, &request_id, payload).await;
    // What is turned away before it is looked at counts with the submissions that got no verdict.
    let (submission, _in_flight) = admitted.inspect_err(|error| state.metrics.turned_away(error.code()))?;
    let verdict = tokio::select! {
        biased;
        verdict = state.moderator.moderate(submission) => verdict,
        // Dropped wherever it is: at most a verdict is on record that nobody read.
        () = peer::left(&request) => {
            state.metrics.turned_away("client_left");
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "client_left", "the client closed the connection"));
        }
    };
    state.metrics.moderated(&verdict);
    Ok(web::Json(verdict?))
}

/// Reads the request within its bounds and takes a place among those worked on.
async fn admit<'a>(
    caller: &Caller,
    state: &'a State,
    request: &HttpRequest,
    request_id: &RequestId,
    payload: web::Payload,
) -> Result<(Submission, SemaphorePermit<'a>), ApiError> {
    let asked: Asked = query(request)?;
    let idempotency_key = idempotency_key(request)?;
    state.limits.admit(&state.moderator.store, caller.allowance(), timestamp::now()).await?;
    let (body, form) = read(state, request, payload).await?;
    let reference = word(form.reference.or(asked.reference), "ref")?;
    let subject = word(form.subject.or(asked.subject), "subject")?;
    let metadata = metadata(form.metadata)?;
    let policies = asked.policies.as_deref().map(policy_list).transpose()?;

    let places = match asked.lane {
        Lane::Interactive => &state.in_flight,
        Lane::Bulk => &state.bulk_in_flight,
    };
    let in_flight = places.try_acquire().map_err(|_| {
        ApiError::from(crate::moderate::ModerateError::Busy {
            refused: Refused::Full,
            retry_after: state.moderator.scheduler.expected_wait(asked.lane),
        })
    })?;
    let (bytes, budget) = body.into_parts();
    let submission = Submission {
        original: Original::new(bytes, budget),
        project: caller.project().to_owned(),
        route: "POST /v1/images",
        source: "upload",
        lane: asked.lane,
        key_id: Some(caller.key_id()),
        actor: caller.actor(),
        policies,
        reference,
        subject,
        metadata,
        idempotency_key,
        request_id: request_id.to_string(),
        deadline: Instant::now() + state.request_timeout,
    };
    Ok((submission, in_flight))
}

/// What the form of `POST /v1/images` looks like; documentation only.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is a schema, not a value")]
pub(super) struct ImageForm {
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// A JSON object of at most 4 KB.
    metadata: Option<String>,
    r#ref: Option<String>,
    subject: Option<String>,
}

async fn read(state: &State, request: &HttpRequest, payload: web::Payload) -> Result<(Body, Form), ApiError> {
    let content_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "multipart/form-data" => {
            let multipart = Multipart::new(request.headers(), payload);
            let mut form = state.bodies.read_form(multipart).await?;
            let file = form.file.take().ok_or_else(|| {
                ApiError::malformed("part_missing", "the form has no part `file` with the image").at("file")
            })?;
            Ok((file, form))
        }
        // What it really is, the bytes say.
        _ if essence.is_empty() || essence.starts_with("image/") || essence == "application/octet-stream" => {
            let length = request.headers().get(CONTENT_LENGTH);
            let declared = length.and_then(|length| length.to_str().ok()?.parse().ok());
            Ok((state.bodies.read(payload, declared).await?, Form::default()))
        }
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type_unsupported",
            "send the image itself with `Content-Type: image/…`, or a `multipart/form-data` with the part `file`",
        )
        .at("Content-Type")),
    }
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key = header.to_str().unwrap_or("").trim();
    if key.is_empty() || key.len() > WORD_BYTES_MAX {
        let detail = format!("an idempotency key is 1 to {WORD_BYTES_MAX} visible ASCII characters");
        return Err(ApiError::malformed("idempotency_key_invalid", detail).at("Idempotency-Key"));
    }
    Ok(Some(key.to_owned()))
}

/// An id of the client's: short, and nothing that a log or a terminal would trip over.
fn word(word: Option<String>, name: &'static str) -> Result<Option<String>, ApiError> {
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

fn metadata(text: Option<String>) -> Result<Value, ApiError> {
    let invalid = |detail: String| ApiError::malformed("metadata_invalid", detail).at("metadata");
    let Some(text) = text else { return Ok(Value::Object(serde_json::Map::new())) };
    if text.len() > METADATA_BYTES_MAX {
        return Err(invalid(format!("`metadata` has more than {METADATA_BYTES_MAX} bytes")));
    }
    let value: Value =
        serde_json::from_str(&text).map_err(|error| invalid(format!("`metadata` is no JSON: {error}")))?;
    if !value.is_object() || depth(&value) > METADATA_DEPTH_MAX {
        return Err(invalid(format!("`metadata` is a JSON object of at most {METADATA_DEPTH_MAX} levels")));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn policy_list(text: &str) -> Result<Vec<String>, ApiError> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) || names.len() > POLICIES_MAX {
        let detail = format!("`policies` is 1 to {POLICIES_MAX} policy ids, separated by commas");
        return Err(ApiError::malformed("policies_invalid", detail).at("policies"));
    }
    Ok(names)
}
