//! Why a submission got no verdict.

use std::time::Duration;

use super::decide::{Breach, Undecided};
use crate::media::MediaError;
use crate::scheduler::Refused;
use crate::store::StoreError;
use crate::text::TextError;

#[derive(Debug, thiserror::Error)]
pub enum ModerateError {
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("policy `{0}` is not active; `GET /v1/policies` lists those that are")]
    UnknownPolicy(String),
    #[error("no policy could be judged: {reasons}")]
    NothingJudged { reasons: String },
    #[error(transparent)]
    Undecided(#[from] Undecided),
    #[error("the service is busy: {refused}; try again in {} s", retry_after.as_secs())]
    Busy { refused: Refused, retry_after: Duration },
    #[error("this idempotency key was used with another request; use a new key for a new request")]
    IdempotencyConflict,
    #[error("the verdict could not be recorded, so there is none")]
    Store(#[from] StoreError),
    #[error("the original could not be kept, so there is no verdict")]
    Keep(#[source] std::io::Error),
    #[error("the policies in force need something this process lacks")]
    Policies(#[from] crate::policy::active::ResolveError),
    #[error("an internal check failed, so there is no verdict")]
    Breach(#[from] Breach),
    #[error("no decoder could be started, so there is no verdict")]
    NoDecoder(#[source] std::io::Error),
    #[error("a task of ours ended before its time; there is no verdict")]
    TaskGone,
}

impl ModerateError {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Media(error) => error.code(),
            Self::Text(error) => error.code(),
            Self::UnknownPolicy(_) => "policy_not_active",
            Self::NothingJudged { .. } => "nothing_judged",
            Self::Undecided(undecided) => undecided.failure.code(),
            Self::Busy { .. } => "busy",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Store(_) => "unrecorded",
            Self::Keep(_) => "not_kept",
            Self::Policies(_) => "judge_missing",
            Self::NoDecoder(_) => "no_decoder",
            Self::Breach(_) | Self::TaskGone => "internal",
        }
    }
}
