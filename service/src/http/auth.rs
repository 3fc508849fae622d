//! Who calls: an API key, its project and its scopes.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use sha2::{Digest as _, Sha256};

use super::limits::Allowance;
use super::problem::ApiError;
use crate::http::State;
use crate::store::keys::{ApiKey, Shown};

/// What keys start with, so that scanners find leaked ones.
pub const KEY_PREFIX: &str = "sg_";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Posts content and reads single verdicts of its project.
    Moderate,
    /// Lists verdicts, policies, statistics.
    Read,
    /// The review queue.
    Review,
    /// The rest.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Moderate, Self::Read, Self::Review, Self::Admin];

    pub fn word(self) -> &'static str {
        match self {
            Self::Moderate => "moderate",
            Self::Read => "read",
            Self::Review => "review",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.word() == text)
            .ok_or_else(|| format!("`{text}` is no scope: expected `moderate`, `read`, `review` or `admin`"))
    }
}

/// A key that is on record and not revoked.
#[derive(Debug)]
pub(super) struct Caller(ApiKey);

impl Caller {
    pub(super) fn project(&self) -> &str {
        &self.0.project
    }

    pub(super) fn key_id(&self) -> uuid::Uuid {
        self.0.id
    }

    pub(super) fn allowance(&self) -> Allowance {
        Allowance {
            key_id: self.0.id,
            rate_per_second: self.0.rate_per_second,
            daily_quota: self.0.daily_quota,
        }
    }

    /// As the audit names it: names may be given twice, and the entry `key.created` of this id has it.
    pub(super) fn actor(&self) -> String {
        format!("key:{}", self.0.id)
    }

    /// One of `scopes` is enough.
    pub(super) fn require(&self, scopes: &[Scope]) -> Result<(), ApiError> {
        if scopes.iter().any(|scope| self.0.scopes.iter().any(|held| held == scope.word())) {
            return Ok(());
        }
        let words: Vec<_> = scopes.iter().map(|scope| format!("`{}`", scope.word())).collect();
        let detail = format!("this key lacks the scope {}", words.join(" or "));
        Err(ApiError::new(StatusCode::FORBIDDEN, "scope_missing", detail))
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = bearer(request);
        let state = request.app_data::<web::Data<State>>().cloned();
        Box::pin(async move {
            let unauthorized = |detail: &str| ApiError::new(StatusCode::UNAUTHORIZED, "key_invalid", detail);
            let key = key.ok_or_else(|| {
                unauthorized(
                    "send an API key as `Authorization: Bearer <key>`; `shieldgate keys create` makes one",
                )
            })?;
            let state = state.ok_or_else(|| unauthorized("the service is not ready"))?;
            // A fast hash is right for 256 random bits.
            let hash = Sha256::digest(key.as_bytes()).into();
            let known = state.keys.ask(Shown(hash)).await?;
            known.map(Self).ok_or_else(|| unauthorized("this API key is unknown or revoked"))
        })
    }
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
}
