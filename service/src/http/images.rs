//! `POST /v1/images`: one image in, its verdict out.

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
use super::intake::{Refused, Route, Words};
use super::problem::ApiError;
use super::request_id::RequestId;
use super::{State, intake, query};
use crate::moderate::{Original, Submission};
use crate::policy::Modality;
use crate::scheduler::Lane;
use crate::timestamp;
use crate::verdict::Verdict;

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
        Refused,
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
    Ok(web::Json(intake::moderate(&state, &request, submission).await?))
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
    let idempotency_key = intake::idempotency_key(request)?;
    state.limits.admit(&state.moderator.store, caller.allowance(), timestamp::now()).await?;
    let (body, form) = read(state, request, payload).await?;
    let metadata = form.metadata.as_deref().map(intake::metadata_text).transpose()?.unwrap_or_default();
    let words = Words {
        policies: asked.policies.as_deref().map(intake::policy_list).transpose()?,
        reference: intake::word(form.reference.or(asked.reference), "ref")?,
        subject: intake::word(form.subject.or(asked.subject), "subject")?,
        metadata: Value::Object(metadata),
        idempotency_key,
    };
    let in_flight = intake::place(state, asked.lane)?;
    let (bytes, budget) = body.into_parts();
    let original = Original::new(bytes, budget);
    let route = Route { path: "POST /v1/images", source: "upload", lane: asked.lane };
    let submission = intake::submission(caller, state, request_id, route, (Modality::Image, original), words);
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
