//! `POST /v1/moderations`: what OpenAI's clients send, answered as they expect it. Parsing is here, the shape of
//! the answer in [`super::openai`].

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, post, web};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use super::auth::{Caller, Scope};
use super::image_url::{self, Image};
use super::intake::{self, Refused, Route, Words};
use super::openai::{self, Feeds, Moderation};
use super::problem::ApiError;
use super::request_id::RequestId;
use crate::fetch::Fetcher;
use crate::moderate::{Original, Submission};
use crate::policy::Modality;
use crate::scheduler::Lane;
use crate::timestamp;

/// Texts of one request; clients that have more send several.
const INPUTS_MAX: usize = 256;

/// Contents of one request judged at once: one request must not fill the queue.
const AT_ONCE: usize = 8;

/// As the OpenAI API takes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModerationRequest {
    /// A text, an array of texts (a result each), or an array of parts (one result for all): `text`, and at most
    /// one `image_url` with a `data:` URL, or an `http(s)` URL of a public host where the service was started with
    /// `--fetch-image-urls`.
    #[schema(value_type = Object)]
    input: Value,
    /// Any; the policies in force decide, whatever is asked for.
    #[serde(default)]
    #[expect(dead_code, reason = "taken so that clients which send it are not refused")]
    model: Option<String>,
}

#[derive(Debug, PartialEq)]
enum Input {
    /// A result each.
    Texts(Vec<String>),
    /// One result for all.
    Parts(Vec<Part>),
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Image(Image),
}

/// Moderate as the OpenAI API does
///
/// The official clients work unchanged with this service's address and key. Every content gets a recorded verdict
/// of its own; they ride along under `shieldgate`.
#[utoipa::path(
    tag = "moderation",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "At most 255 characters; for 24 hours the same request under the same key gets the same verdicts. An image URL is fetched again, and what comes must be the same bytes, else 409"),
    ),
    request_body = ModerationRequest,
    responses(
        (status = 200, description = "The results; the verdicts are on record", body = Moderation),
        Refused,
    ),
    security(("key" = []))
)]
#[post("/v1/moderations")]
pub(super) async fn create_moderation(
    caller: Caller,
    state: web::Data<State>,
    request: HttpRequest,
    request_id: RequestId,
    payload: web::Payload,
) -> Result<web::Json<Moderation>, ApiError> {
    caller.require(&[Scope::Moderate])?;
    let admitted = admit(&caller, &state, &request, &request_id, payload).await;
    let (submissions, together) = admitted.inspect_err(|error| state.metrics.turned_away(error.code()))?;
    let _in_flight = intake::place(&state, Lane::Interactive)
        .inspect_err(|error| state.metrics.turned_away(error.code()))?;
    let moderate = |submission| intake::moderate(&state, &request, submission);
    let verdicts: Vec<_> = futures_util::stream::iter(submissions.into_iter().map(moderate))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    if let Some(policy) = openai::passed_unjudged(&verdicts) {
        let detail =
            format!("policy `{}` could not be judged, and this answer could not say so", policy.policy);
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "judge_failed", detail)
            .after(std::time::Duration::from_secs(5)));
    }
    let feeds: Feeds = state.moderator.feeds(caller.project()).await?;
    // A replay has the submission of the verdicts it repeats.
    let id = verdicts.first().map_or_else(Uuid::now_v7, |verdict| verdict.submission_id);
    Ok(web::Json(openai::moderation(id, verdicts, together, &feeds)))
}

async fn admit(
    caller: &Caller,
    state: &State,
    request: &HttpRequest,
    request_id: &RequestId,
    payload: web::Payload,
) -> Result<(Vec<Submission>, bool), ApiError> {
    let idempotency_key = intake::idempotency_key(request)?;
    let (body, budget) = intake::json::<ModerationRequest>(state, request, payload).await?;
    let (contents, together) = match input(body.input, state.fetcher.as_ref())? {
        Input::Texts(texts) => (texts.into_iter().map(Part::Text).collect::<Vec<_>>(), false),
        Input::Parts(parts) => (parts, true),
    };
    let submission_id = Uuid::now_v7();
    let route = Route { path: "POST /v1/moderations", source: "moderations", lane: Lane::Interactive };
    let mut submissions = Vec::with_capacity(contents.len());
    let mut budget = budget;
    for (at, content) in contents.into_iter().enumerate() {
        state.limits.admit(&state.moderator.store, caller.allowance(), timestamp::now()).await?;
        let (modality, bytes, own) = match content {
            Part::Text(text) => (Modality::Text, text.into_bytes(), None),
            Part::Image(image) => {
                let (bytes, own) = image_url::bytes(state, request, image).await?;
                (Modality::Image, bytes, own)
            }
        };
        // The key stands for the request; of its contents each has a verdict of its own.
        let idempotency_key = idempotency_key.as_ref().map(|key| format!("{key}#{at}"));
        let words =
            Words { metadata: Value::Object(Default::default()), idempotency_key, ..Words::default() };
        // What the body held of the budget goes with the first of its contents that has no share of its own.
        let original = Original::new(bytes, own.or_else(|| budget.take()));
        let mut submission =
            intake::submission(caller, state, request_id, route, (modality, original), words);
        submission.submission_id = submission_id;
        submissions.push(submission);
    }
    Ok((submissions, together))
}

fn input(input: Value, fetcher: Option<&Fetcher>) -> Result<Input, ApiError> {
    let expected = "`input` is a string, an array of strings, or an array of `text` and `image_url` parts";
    let invalid = |code, detail: String| ApiError::malformed(code, detail).at("input");
    let items = match input {
        Value::String(text) => return Ok(Input::Texts(vec![not_empty(text)?])),
        Value::Array(items) => items,
        _ => return Err(invalid("input_invalid", expected.to_owned())),
    };
    if items.is_empty() {
        return Err(invalid("input_empty", "`input` is empty; send what is to be judged".to_owned()));
    }
    if items.len() > INPUTS_MAX {
        let detail = format!("`input` has {} items, at most {INPUTS_MAX} are accepted", items.len());
        return Err(invalid("too_many_inputs", detail));
    }
    if items.iter().all(Value::is_string) {
        let texts = items.into_iter().filter_map(|item| match item {
            Value::String(text) => Some(not_empty(text)),
            _ => None,
        });
        return Ok(Input::Texts(texts.collect::<Result<_, _>>()?));
    }
    let parts = items.into_iter().map(|item| part(item, fetcher)).collect::<Result<Vec<_>, _>>()?;
    let images = parts.iter().filter(|part| matches!(part, Part::Image(_))).count();
    if images > 1 {
        let detail = format!("Number of images ({images}) exceeds maximum of 1");
        return Err(invalid("too_many_images", detail));
    }
    Ok(Input::Parts(parts))
}

fn not_empty(text: String) -> Result<String, ApiError> {
    if text.is_empty() {
        return Err(ApiError::malformed("text_empty", "a text in `input` is empty").at("input"));
    }
    Ok(text)
}

/// `{"type": "text", "text": …}` or `{"type": "image_url", "image_url": {"url": …}}`.
fn part(item: Value, fetcher: Option<&Fetcher>) -> Result<Part, ApiError> {
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Item {
        Text { text: String },
        ImageUrl { image_url: Url },
    }
    #[derive(Deserialize)]
    struct Url {
        url: String,
    }
    let item: Item = serde_json::from_value(item).map_err(|error| {
        let detail = format!("an item of `input` is neither a `text` nor an `image_url` part: {error}");
        ApiError::malformed("input_invalid", detail).at("input")
    })?;
    match item {
        Item::Text { text } => not_empty(text).map(Part::Text),
        Item::ImageUrl { image_url } => image_url::read(&image_url.url, fetcher).map(Part::Image),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(value: Value) -> &'static str {
        input(value, None).err().map_or("accepted", |error| error.code())
    }

    #[test]
    fn the_three_forms_are_read() {
        let text = |text: &str| text.to_owned();
        let input = |value| input(value, None).ok();
        assert_eq!(input(json!("a")), Some(Input::Texts(vec![text("a")])));
        assert_eq!(input(json!(["a", "b"])), Some(Input::Texts(vec![text("a"), text("b")])));
        let parts = json!([
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}},
        ]);
        let read = vec![Part::Text(text("a")), Part::Image(Image::Bytes(vec![1, 2, 3]))];
        assert_eq!(input(parts), Some(Input::Parts(read)));
    }

    #[test]
    fn everything_else_has_its_code() {
        let image = |url: &str| json!([{"type": "image_url", "image_url": {"url": url}}]);
        let twice = json!([image("data:image/png;base64,AQID")[0], image("data:image/png;base64,AQID")[0]]);
        for (value, expected) in [
            (json!(1), "input_invalid"),
            (json!(null), "input_invalid"),
            (json!(["a", 1]), "input_invalid"),
            (json!([{"type": "audio"}]), "input_invalid"),
            (json!([[1, 2]]), "input_invalid"),
            (json!([]), "input_empty"),
            (json!(""), "text_empty"),
            (json!(["a", ""]), "text_empty"),
            (json!(vec!["a"; INPUTS_MAX + 1]), "too_many_inputs"),
            (twice, "too_many_images"),
            (image("https://example.org/a.png"), "image_url_not_fetched"),
        ] {
            assert_eq!(code(value.clone()), expected, "{value}");
        }
    }
}
