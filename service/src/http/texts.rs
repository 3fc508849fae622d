//! `POST /v1/texts`: one text in, its verdict out.

use actix_web::{HttpRequest, post, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::SemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::auth::{Caller, Scope};
use super::intake::{self, Refused, Route, Words};
use super::problem::ApiError;
use super::request_id::RequestId;
use super::{State, query};
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
    /// `bulk` stands back for `interactive` work, which is what it is where absent.
    #[serde(default)]
    lane: Lane,
}

/// A text and what is said about it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRequest {
    text: String,
    /// The client's item id; verdicts can be found by it.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// The client's account id; only a keyed hash of it is stored.
    subject: Option<String>,
    /// A JSON object of at most 4 KB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Moderate one text
///
/// The text is judged whole, in windows where it is long, as it was written and folded: without look-alikes,
/// invisible characters and digits for letters. The worst decides, and the verdict says where it stands. The
/// answer comes after the verdict and its audit entry are committed.
#[utoipa::path(
    tag = "moderation",
    params(
        Asked,
        ("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters; for 24 hours the same request under the same key gets the same verdict"),
    ),
    request_body = TextRequest,
    responses(
        (status = 200, description = "The recorded verdict", body = Verdict),
        Refused,
    ),
    security(("key" = []))
)]
#[post("/v1/texts")]
pub(super) async fn moderate_text(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
    request_id: RequestId,
    payload: web::Payload,
) -> Result<web::Json<Verdict>, ApiError> {
    caller.require(&[Scope::Moderate])?;
    let admitted = admit(&caller, &state, &request, &request_id, payload).await;
    let (submission, _in_flight) = admitted.inspect_err(|error| state.metrics.turned_away(error.code()))?;
    Ok(web::Json(intake::moderate(&state, &request, submission).await?))
}

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
    let (body, budget) = intake::json::<TextRequest>(state, request, payload).await?;
    let metadata = body.metadata.map(intake::metadata).transpose()?.unwrap_or_default();
    let words = Words {
        policies: asked.policies.as_deref().map(intake::policy_list).transpose()?,
        reference: intake::word(body.reference, "ref")?,
        subject: intake::word(body.subject, "subject")?,
        metadata: Value::Object(metadata),
        idempotency_key,
    };
    let in_flight = intake::place(state, asked.lane)?;
    let original = Original::new(body.text.into_bytes(), budget);
    let route = Route { path: "POST /v1/texts", source: "upload", lane: asked.lane };
    let submission = intake::submission(caller, state, request_id, route, (Modality::Text, original), words);
    Ok((submission, in_flight))
}
