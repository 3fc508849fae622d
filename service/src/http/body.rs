//! Request bodies: read within bounds of size, time and of the memory that all bodies together may hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_multipart::Multipart;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::web;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::ApiError;
use crate::fetch::Fetched;

/// Granularity of the budget.
const UNIT_BYTES: usize = 64 * 1024;

/// Made room for at once where a body says how long it will be: no more, for saying so costs a caller nothing.
const RESERVED_BYTES_MAX: usize = 2 * UNIT_BYTES;

/// Text parts (`ref`, `subject`, `metadata`) are small.
const TEXT_PART_BYTES_MAX: usize = 4 * 1024;

#[derive(Clone)]
pub(super) struct Bodies {
    budget: Arc<Semaphore>,
    bytes_max: usize,
    /// From the first byte to the last.
    read_timeout: Duration,
}

/// The bytes, and the share of the budget they hold until dropped.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    permits: Option<OwnedSemaphorePermit>,
}

/// What a multipart request carried.
#[derive(Default)]
pub(super) struct Form {
    pub(super) file: Option<Body>,
    pub(super) metadata: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) subject: Option<String>,
}

impl Bodies {
    pub(super) fn new(bytes_max: u64, budget_bytes: u64, read_timeout: Duration) -> Self {
        let units = (budget_bytes as usize / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            budget: Arc::new(Semaphore::new(units)),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            read_timeout,
        }
    }

    pub(super) async fn read(
        &self,
        mut payload: web::Payload,
        declared: Option<u64>,
    ) -> Result<Body, ApiError> {
        if declared.is_some_and(|declared| declared > self.bytes_max as u64) {
            return Err(self.too_large());
        }
        let until = Instant::now() + self.read_timeout;
        let mut body = self.empty();
        let declared = declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(0);
        body.bytes.reserve_exact(declared.min(RESERVED_BYTES_MAX));
        while let Some(chunk) =
            tokio::time::timeout_at(until.into(), payload.next()).await.map_err(|_| self.too_slow())?
        {
            self.append(&mut body, &chunk.map_err(broken)?)?;
        }
        Ok(body)
    }

    /// What comes from elsewhere, whose own bounds are those of the fetch.
    pub(super) async fn read_fetched(&self, mut fetched: Fetched) -> Result<Body, ApiError> {
        let mut body = self.empty();
        while let Some(chunk) = fetched.chunk().await? {
            self.append(&mut body, chunk.as_ref())?;
        }
        Ok(body)
    }

    pub(super) async fn read_form(&self, mut multipart: Multipart) -> Result<Form, ApiError> {
        let until = tokio::time::Instant::now() + self.read_timeout;
        let mut form = Form::default();
        while let Some(field) =
            tokio::time::timeout_at(until, multipart.next()).await.map_err(|_| self.too_slow())?
        {
            let mut field = field.map_err(wrong_multipart)?;
            let name = field.name().unwrap_or_default().to_owned();
            let mut body = self.empty();
            while let Some(chunk) =
                tokio::time::timeout_at(until, field.next()).await.map_err(|_| self.too_slow())?
            {
                let chunk = chunk.map_err(wrong_multipart)?;
                if name != "file" && body.bytes.len() + chunk.len() > TEXT_PART_BYTES_MAX {
                    let detail = format!("part `{}` has more than {TEXT_PART_BYTES_MAX} bytes", shown(&name));
                    return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "part_too_large", detail));
                }
                self.append(&mut body, &chunk)?;
            }
            match name.as_str() {
                "file" => once(&mut form.file, body, "file")?,
                "metadata" => once(&mut form.metadata, text(body, "metadata")?, "metadata")?,
                "ref" => once(&mut form.reference, text(body, "ref")?, "ref")?,
                "subject" => once(&mut form.subject, text(body, "subject")?, "subject")?,
                _ => {
                    let detail = format!(
                        "part `{}` is not known; parts are `file`, `metadata`, `ref` and `subject`",
                        shown(&name)
                    );
                    return Err(ApiError::malformed("part_unknown", detail));
                }
            }
        }
        Ok(form)
    }

    fn empty(&self) -> Body {
        Body { bytes: Vec::new(), permits: None }
    }

    fn append(&self, body: &mut Body, chunk: &[u8]) -> Result<(), ApiError> {
        let length = body.bytes.len() + chunk.len();
        if length > self.bytes_max {
            return Err(self.too_large());
        }
        let held = body.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = length.div_ceil(UNIT_BYTES).saturating_sub(held);
        if needed > 0 {
            let more = Arc::clone(&self.budget).try_acquire_many_owned(needed as u32).map_err(|_| {
                ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "bodies_over_budget",
                    "too many uploads are under way; try again shortly",
                )
                .after(Duration::from_secs(1))
            })?;
            match &mut body.permits {
                Some(permits) => permits.merge(more),
                None => body.permits = Some(more),
            }
        }
        body.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn too_large(&self) -> ApiError {
        let detail = format!("the body has more than the {} bytes accepted", self.bytes_max);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    fn too_slow(&self) -> ApiError {
        let detail = format!("the body did not arrive within {} s", self.read_timeout.as_secs_f32());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
    }
}

impl Body {
    /// The bytes, and their share of the budget.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<OwnedSemaphorePermit>) {
        (self.bytes, self.permits)
    }
}

fn broken(error: PayloadError) -> ApiError {
    match error {
        PayloadError::Overflow => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large")
        }
        _ => ApiError::malformed("body_incomplete", "the body ended before it was complete"),
    }
}

fn wrong_multipart(error: actix_multipart::MultipartError) -> ApiError {
    ApiError::malformed("multipart_malformed", format!("the multipart body can't be read: {error}"))
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), ApiError> {
    if slot.replace(value).is_some() {
        let detail = format!("part `{name}` stands twice; send one content a request");
        return Err(ApiError::malformed("part_repeated", detail).at(name));
    }
    Ok(())
}

fn text(body: Body, name: &'static str) -> Result<String, ApiError> {
    String::from_utf8(body.bytes)
        .map_err(|_| ApiError::malformed("part_not_utf8", format!("part `{name}` is not UTF-8")).at(name))
}

/// A client's own word, cut and made harmless before it is repeated to it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(32).collect()
}
