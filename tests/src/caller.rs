//! Requests as a client makes them, and answers with everything a test looks at.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::openapi::Api;

/// One client with one key (or none).
#[derive(Debug, Clone)]
pub struct Caller {
    client: reqwest::Client,
    base: String,
    key: Option<String>,
    api: Arc<Api>,
}

/// What came back; every answer's shape is checked on the way in.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Null where the body is no JSON.
    pub json: Value,
}

/// One upload and what goes with it.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    pub bytes: Vec<u8>,
    /// `image/png` where absent.
    pub content_type: Option<String>,
    /// `policies=a,b&ref=…`
    pub query: Option<String>,
    pub idempotency_key: Option<String>,
}

impl From<&[u8]> for Upload {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ..Self::default() }
    }
}

impl From<&Vec<u8>> for Upload {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

/// Straight to the gate, whatever proxies the environment names.
pub(crate) fn client(patience: Duration) -> reqwest::Client {
    // reqwest wants a provider even for `http://`, where another crate of the workspace asks for TLS.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(patience).build().expect("a client")
}

impl Caller {
    pub(crate) fn new(client: reqwest::Client, base: String, key: Option<String>, api: Arc<Api>) -> Self {
        Self { client, base, key, api }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST /v1/images` with a raw body.
    pub async fn upload(&self, upload: impl Into<Upload>) -> Answer {
        self.try_upload(upload).await.expect("the service answers")
    }

    /// Like `upload`, for tests in which the connection may break.
    pub async fn try_upload(&self, upload: impl Into<Upload>) -> reqwest::Result<Answer> {
        let upload = upload.into();
        let query = upload.query.map(|query| format!("?{query}")).unwrap_or_default();
        let content_type = upload.content_type.unwrap_or_else(|| "image/png".to_owned());
        let mut request = self.request(Method::POST, &format!("/v1/images{query}"));
        request = request.header("content-type", content_type).body(upload.bytes);
        if let Some(key) = upload.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.try_send(request).await
    }

    /// Sends, reads to the end, and holds the answer against the OpenAPI document.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("the service answers")
    }

    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let (client, request) = request.build_split();
        let request = request?;
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let answer = read(client.execute(request).await?).await?;
        let content_type = answer.header("content-type").unwrap_or_default();
        let faults = self.api.faults(&method, &path, answer.status, content_type, &answer.json);
        assert!(faults.is_empty(), "the OpenAPI document and the service differ:\n{}", faults.join("\n"));
        Ok(answer)
    }
}

/// Sends and reads to the end; the OpenAPI document is not asked.
pub async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.expect("the service answers")
}

pub async fn try_send(request: RequestBuilder) -> reqwest::Result<Answer> {
    read(request.send().await?).await
}

async fn read(response: reqwest::Response) -> reqwest::Result<Answer> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await?.to_vec();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = Answer { status, headers, body, json };
    answer.check();
    Ok(answer)
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON, if the status is as expected.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text());
        &self.json
    }

    /// An error with this status and this code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &Value {
        let json = self.expect(status);
        assert_eq!(json["error"]["code"], code, "{json:#}");
        json
    }

    /// What every answer owes: a request id, and for errors the one shape of problems.
    fn check(&self) {
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "no x-request-id: {self:?}");
        assert!(self.status != 500, "a 500: {}", self.text());
        if self.status < 400 {
            return;
        }
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}: {}",
            self.status,
            self.text()
        );
        let json = &self.json;
        let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        assert!(text(&json["type"]) && text(&json["title"]) && text(&json["detail"]), "{json:#}");
        assert_eq!(json["status"], self.status, "{json:#}");
        let id = self.header("x-request-id").unwrap_or_default();
        assert_eq!(json["instance"], format!("urn:shieldgate:request:{id}"), "{json:#}");
        let error = &json["error"];
        assert_eq!(error["message"], json["detail"], "{json:#}");
        assert!(text(&error["type"]) && text(&error["code"]), "{json:#}");
        assert!(error.get("param").is_some_and(|param| param.is_null() || param.is_string()), "{json:#}");
        if matches!(self.status, 429 | 503) {
            let wait = self.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
            assert!(wait.is_some_and(|wait| wait >= 1), "{} without Retry-After: {json:#}", self.status);
            // Clients' libraries would sleep through it in the middle of their caller's call.
            let long = wait.is_some_and(|wait| wait > 20);
            assert_eq!(self.header("x-should-retry"), long.then_some("false"), "{wait:?}: {json:#}");
        }
        if self.status == 409 {
            assert_eq!(self.header("x-should-retry"), Some("false"), "{json:#}");
        }
    }
}
