//! What is submitted, by whom, and what an idempotency key stands for.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::hex;
use crate::policy::Modality;
use crate::scheduler::Lane;
use crate::store;

/// What is submitted; uploads, rescans and the OpenAI endpoint differ only in the values they fill in.
#[derive(Debug)]
pub struct Submission {
    pub original: Original,
    /// What the bytes are taken for.
    pub modality: Modality,
    pub project: String,
    /// Where idempotency keys are scoped: `POST /v1/images`.
    pub route: &'static str,
    /// `upload`.
    pub source: &'static str,
    /// Who may wait for whom at the judges.
    pub lane: Lane,
    pub key_id: Option<Uuid>,
    /// Who is on record as having submitted: `key:<name>`.
    pub actor: String,
    /// Only these policies; all active ones where absent.
    pub policies: Option<Vec<String>>,
    pub reference: Option<String>,
    pub subject: Option<String>,
    /// A JSON object.
    pub metadata: Value,
    pub idempotency_key: Option<String>,
    pub request_id: String,
    /// What several contents of one request have in common.
    pub submission_id: Uuid,
    pub deadline: Instant,
}

/// The submitted bytes, and their share of the memory that all bodies together may hold; both live until
/// the last one that works on them is done, also where nobody waits for the answer any more.
#[derive(Debug, Clone)]
pub struct Original(Arc<(Vec<u8>, Option<OwnedSemaphorePermit>)>);

impl Original {
    pub fn new(bytes: Vec<u8>, budget: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new((bytes, budget)))
    }
}

impl AsRef<[u8]> for Original {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl Submission {
    /// The client's account id as it is stored: a keyed hash, another one in each project.
    pub(super) fn subject_hash(&self, key: &[u8; 32]) -> Option<store::Sha256> {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let subject = self.subject.as_deref()?;
        // The block of SHA-256 is 64 bytes; a shorter key is padded with zeros, as HMAC says.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(self.project.as_bytes());
        mac.update(b"\0");
        mac.update(subject.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }

    /// What an idempotency key stands for: everything the answer depends on.
    pub(super) fn fingerprint(&self, sha256: &store::Sha256) -> store::Sha256 {
        let request = serde_json::json!({
            "content": hex(sha256),
            "metadata": self.metadata,
            "policies": self.policies,
            "ref": self.reference,
            "subject": self.subject,
        });
        Sha256::digest(crate::canonical::to_string(&request).as_bytes()).into()
    }
}
