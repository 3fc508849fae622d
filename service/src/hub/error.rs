//! What can go wrong with a download, and what to do about it. No text holds the token or a signed address.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(
        "`HF_ENDPOINT` is no address of a Hub\n  hint: http:// or https://, a host, perhaps a path; no user name"
    )]
    Endpoint,
    #[error("the token in {from} has characters that no token has")]
    Token { from: String },
    #[error("no folder for the Hub's cache is known\n  hint: set HF_HOME")]
    NoHome,
    #[error("`{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` can't be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the disk is full at `{}`; what was downloaded is kept\n  hint: make room and run it again, or let HF_HUB_CACHE name a folder on another disk", path.display())]
    DiskFull { path: PathBuf },
    #[error("{need} bytes are to be downloaded, and `{}` has room for {free}\n  hint: make room, or let HF_HUB_CACHE name a folder on another disk", folder.display())]
    NoRoom { folder: PathBuf, need: u64, free: u64 },
    #[error("a client for HTTP can't be set up")]
    Client(#[source] reqwest::Error),
    #[error("{host} can't be reached")]
    Unreachable {
        host: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{host} sent nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },
    #[error("the connection to {host} ended after {got} of {expected} bytes of `{file}`; they are kept")]
    Cut { host: String, file: String, got: u64, expected: u64 },
    #[error("{host} answered {status}")]
    Busy { host: String, status: u16 },
    #[error("{host} answered 429: too many requests{}\n  hint: wait, then run it again; what was downloaded is kept", again(*.seconds))]
    RateLimited { host: String, seconds: Option<u64> },
    #[error("`{model}` is gated: accept its terms at {page} and set HF_TOKEN to a token of that account{}", refused(*.token_sent))]
    Gated { model: String, page: String, token_sent: bool },
    #[error(
        "{host} does not accept the token\n  hint: HF_TOKEN, or the file that `hf auth login` wrote, holds an old one or one for another Hub"
    )]
    TokenRefused { host: String },
    #[error(
        "{host} does not let this token read `{model}`\n  hint: a fine-grained token wants the right to read it"
    )]
    Forbidden { host: String, model: String },
    #[error("{host} has no model `{model}`, or shows it to others only{}; nor is there a folder of that name here", with_token(*.token_sent))]
    NoModel { host: String, model: String, token_sent: bool },
    #[error("`{model}` has no revision `{revision}`\n  hint: a branch, a tag or a whole commit id")]
    NoRevision { model: String, revision: String },
    #[error("{host} lists `{file}` of `{model}` and does not have it")]
    FileGone { host: String, model: String, file: String },
    #[error("{host} answered {status} where {expected} is due")]
    Status { host: String, status: u16, expected: &'static str },
    #[error("{host} sends on to another address in a way that is not followed: {reason}")]
    Redirect { host: String, reason: &'static str },
    #[error("{host} does not answer as a Hub does: {reason}")]
    Answer { host: String, reason: String },
    #[error(
        "the Hub names a file of `{model}` that would lie outside its folder: `{name}`; nothing was downloaded"
    )]
    Outside { model: String, name: String },
    #[error(
        "`{model}` has no `{missing}`; shieldgate reads checkpoints as transformers writes them, with safetensors"
    )]
    NotACheckpoint { model: String, missing: &'static str },
    #[error("`model.safetensors.index.json` names the shard `{shard}`, which `{model}` does not have")]
    ShardNotListed { model: String, shard: String },
    #[error(
        "`{file}` has the {kind} {actual}; the Hub lists {expected}: it was thrown away\n  hint: run it again; if it stays, something between here and {host} changes files"
    )]
    WrongDigest { host: String, file: String, kind: &'static str, expected: String, actual: String },
    #[error(
        "{host} says that `{file}` has the digest {actual}, and lists {expected}\n  hint: run it again; the model may just have been changed"
    )]
    OtherDigest { host: String, file: String, expected: String, actual: String },
    #[error("{host} sends {actual} bytes as `{file}`; it lists {expected}")]
    WrongSize { host: String, file: String, expected: u64, actual: u64 },
    #[error("`{model}` is not in the cache `{}`, and HF_HUB_OFFLINE is set\n  hint: run it once without, or on a machine with a network and copy the cache", cache.display())]
    NotCached { model: String, cache: PathBuf },
    #[error("`{}` is not what its name in the cache says; remove `{}` and run it again", link.display(), blob.display())]
    Damaged { link: PathBuf, blob: PathBuf },
    /// What `accept` said of the configuration.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

fn again(seconds: Option<u64>) -> String {
    seconds.map(|seconds| format!(", again in {seconds} s")).unwrap_or_default()
}

fn refused(token_sent: bool) -> &'static str {
    if token_sent {
        "\n  hint: the token that was sent has no access: its account must have accepted them, and a fine-grained token must be allowed to read gated models"
    } else {
        ""
    }
}

fn with_token(token_sent: bool) -> &'static str {
    if token_sent { "" } else { " (no token was sent; HF_TOKEN is not set)" }
}

impl HubError {
    /// Whether the same request may be answered another time.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Stalled { .. }
                | Self::Cut { .. }
                | Self::Busy { .. }
                | Self::RateLimited { .. }
        )
    }

    /// In one line, without hints and with its first cause: for notes on what goes on nevertheless.
    pub(super) fn brief(&self) -> String {
        let text = self.to_string();
        let fact = text.lines().next().unwrap_or_default();
        let mut cause = std::error::Error::source(self);
        while let Some(deeper) = cause.and_then(std::error::Error::source) {
            cause = Some(deeper);
        }
        cause.map_or_else(|| fact.to_owned(), |cause| format!("{fact} ({cause})"))
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Write { path, source },
        }
    }
}
