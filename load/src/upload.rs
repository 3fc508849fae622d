//! One upload and what became of it, with what the wire contract owes every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use crate::client;

/// Longer than the gate's own deadline for a submission.
const PATIENCE: Duration = Duration::from_secs(120);

/// An endless row of what is sent, ready to be posted.
pub(crate) trait Bodies: Send + 'static {
    fn next(&mut self) -> Vec<u8>;
}

/// Where uploads go: what they are and what a verdict looks like there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A picture each, interactive.
    Images,
    BulkImages,
    /// A text each.
    Moderations,
}

impl Endpoint {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Images => "/v1/images",
            Self::BulkImages => "/v1/images?lane=bulk",
            Self::Moderations => "/v1/moderations",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Images | Self::BulkImages => "application/octet-stream",
            Self::Moderations => "application/json",
        }
    }

    /// What the body of a 200 says, or how it breaks the contract.
    fn verdict(self, body: &[u8]) -> Result<Outcome, &'static str> {
        let no_verdict = |_| "200 without a verdict";
        let verdict: Verdict = match self {
            Self::Images | Self::BulkImages => serde_json::from_slice(body).map_err(no_verdict)?,
            Self::Moderations => {
                let moderation: Moderation = serde_json::from_slice(body).map_err(no_verdict)?;
                let ([result], [verdict]) = (&moderation.results[..], &moderation.shieldgate.verdicts[..])
                else {
                    return Err("200 without one result and one verdict for one text");
                };
                // Official clients read a missing category as safe.
                if result.categories.len() != CATEGORIES || result.category_scores.len() != CATEGORIES {
                    return Err("200 without all 13 categories");
                }
                *verdict
            }
        };
        Ok(if verdict.cached { Outcome::Recalled } else { Outcome::Judged })
    }
}

/// Of the OpenAI moderation shape.
const CATEGORIES: usize = 13;

#[derive(Clone, Copy, Deserialize)]
struct Verdict {
    cached: bool,
}

#[derive(Deserialize)]
struct Moderation {
    results: Vec<ModerationResult>,
    shieldgate: Recorded,
}

#[derive(Deserialize)]
struct ModerationResult {
    #[serde(rename = "flagged")]
    _flagged: bool,
    categories: BTreeMap<String, bool>,
    category_scores: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Recorded {
    verdicts: Vec<Verdict>,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A verdict for which a judge ran.
    Judged,
    /// A verdict from judgements on record.
    Recalled,
    /// An answer without a verdict: status and the error's code.
    Refused(u16, String),
    /// No answer, or not all of it.
    Lost(&'static str),
}

impl Outcome {
    pub(crate) fn is_verdict(&self) -> bool {
        matches!(self, Self::Judged | Self::Recalled)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judged => f.write_str("200 judged"),
            Self::Recalled => f.write_str("200 recalled"),
            Self::Refused(status, code) => write!(f, "{status} {code}"),
            Self::Lost(how) => write!(f, "no answer: {how}"),
        }
    }
}

/// An outcome, and what was said about trying again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
    /// Breaches of the wire contract.
    pub(crate) faults: BTreeSet<&'static str>,
}

impl Answer {
    pub(crate) fn lost(how: &'static str) -> Self {
        Self { outcome: Outcome::Lost(how), retry_after: None, faults: BTreeSet::new() }
    }

    /// Reads an answer that came whole.
    pub(crate) fn read(
        endpoint: Endpoint,
        status: u16,
        retry_after: Option<&str>,
        has_request_id: bool,
        body: &[u8],
    ) -> Self {
        #[derive(Deserialize)]
        struct Problem {
            error: Error,
        }
        #[derive(Deserialize)]
        struct Error {
            code: String,
        }

        let mut faults = BTreeSet::new();
        let outcome = if status == 200 {
            endpoint.verdict(body).unwrap_or_else(|fault| {
                faults.insert(fault);
                Outcome::Refused(status, "no verdict".to_owned())
            })
        } else {
            let code = serde_json::from_slice(body).map(|Problem { error }| error.code);
            Outcome::Refused(
                status,
                code.unwrap_or_else(|_| {
                    faults.insert("an error without a code");
                    "no code".to_owned()
                }),
            )
        };
        if !has_request_id {
            faults.insert("no x-request-id");
        }
        let seconds = retry_after.and_then(|text| text.trim().parse().ok()).filter(|seconds| *seconds >= 1);
        if matches!(status, 429 | 503) && seconds.is_none() {
            faults.insert("429 or 503 without Retry-After");
        }
        if status == 500 {
            faults.insert("a 500");
        }
        Self { outcome, retry_after: seconds, faults }
    }
}

/// Sends uploads to one endpoint of one gate under one key.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    client: reqwest::Client,
    endpoint: Endpoint,
    url: String,
    key: String,
}

impl Uploader {
    pub(crate) fn new(base: &str, key: &str, endpoint: Endpoint) -> Result<Self> {
        let (client, url) = (client::client(PATIENCE)?, format!("{base}{}", endpoint.path()));
        Ok(Self { client, endpoint, url, key: key.to_owned() })
    }

    /// Ends when the whole answer is there.
    pub(crate) async fn send(&self, body: Vec<u8>) -> Answer {
        let request = self.client.post(&self.url).bearer_auth(&self.key);
        let request = request.header("content-type", self.endpoint.content_type()).body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return Answer::lost("timed out"),
            Err(error) if error.is_connect() => return Answer::lost("not connected"),
            Err(_) => return Answer::lost("connection broken"),
        };
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let has_request_id = response.headers().contains_key("x-request-id");
        match response.bytes().await {
            Ok(body) => Answer::read(self.endpoint, status, retry_after.as_deref(), has_request_id, &body),
            Err(_) => Answer::lost("answer cut short"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(status: u16, retry_after: Option<&str>, has_request_id: bool, body: &[u8]) -> Answer {
        Answer::read(Endpoint::Images, status, retry_after, has_request_id, body)
    }

    #[test]
    fn answers_are_told_apart_and_held_to_the_contract() {
        let judged = read(200, None, true, br#"{"cached":false,"id":"x"}"#);
        assert_eq!((judged.outcome, judged.faults.len()), (Outcome::Judged, 0));
        assert_eq!(read(200, None, true, br#"{"cached":true}"#).outcome, Outcome::Recalled);

        let busy = read(429, Some("3"), true, br#"{"error":{"code":"overloaded"}}"#);
        assert_eq!(busy.outcome.to_string(), "429 overloaded");
        assert_eq!((busy.retry_after, busy.faults.len()), (Some(3), 0));

        let rude = read(503, Some("0"), false, b"oops");
        assert_eq!(rude.outcome.to_string(), "503 no code");
        assert_eq!(rude.faults.len(), 3, "{:?}", rude.faults);
        assert!(!read(200, None, true, b"{}").outcome.is_verdict());
    }

    #[test]
    fn a_moderation_has_one_result_with_all_its_categories() {
        let outcome = |body: &Value| {
            let body = body.to_string();
            let answer = Answer::read(Endpoint::Moderations, 200, None, true, body.as_bytes());
            assert_eq!(answer.outcome.is_verdict(), answer.faults.is_empty(), "{answer:?}");
            (answer.outcome, answer.faults.first().copied().unwrap_or_default())
        };
        let map = |count: usize, value: Value| {
            let entries = (0..count).map(|n| (format!("c{n}"), value.clone()));
            Value::Object(entries.collect())
        };
        let whole = json!({
            "results": [{"flagged": false, "categories": map(13, json!(false)), "category_scores": map(13, json!(0.1))}],
            "shieldgate": {"verdicts": [{"cached": false}]},
        });
        assert_eq!(outcome(&whole), (Outcome::Judged, ""));
        let with = |pointer: &str, value: Value| {
            let mut body = whole.clone();
            *body.pointer_mut(pointer).expect("it is there") = value;
            outcome(&body)
        };
        let result = &whole["results"][0];
        assert_eq!(with("/shieldgate/verdicts/0/cached", json!(true)).0, Outcome::Recalled);
        for (pointer, value, fault) in [
            ("/results/0/categories", map(12, json!(true)), "200 without all 13 categories"),
            ("/results/0/category_scores", map(14, json!(0.5)), "200 without all 13 categories"),
            ("/results", json!([]), "200 without one result and one verdict for one text"),
            ("/results", json!([result, result]), "200 without one result and one verdict for one text"),
            ("/shieldgate/verdicts", json!([]), "200 without one result and one verdict for one text"),
            ("/results/0/flagged", Value::Null, "200 without a verdict"),
            ("/results/0/categories", map(13, json!(0.1)), "200 without a verdict"),
        ] {
            assert_eq!(with(pointer, value).1, fault, "{pointer}");
        }
        // What the other endpoint answers is none of this one's.
        assert_eq!(outcome(&json!({"cached": false})).1, "200 without a verdict");
    }
}
