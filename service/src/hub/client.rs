//! One GET at the Hub: redirects, the token for the Hub alone, and what each status means.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url, redirect};

use super::{HubError, Reference, Settings};

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 10;

pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    authorization: Option<HeaderValue>,
    patience: Duration,
    /// `ORG/NAME`, for errors.
    model: String,
    page: String,
    revision: String,
}

/// What is asked for; a 404 means something else for each.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    Listing,
    File { name: &'a str, gated: bool },
}

/// A good answer, its body to be read.
pub(super) struct Reply {
    /// Scheme, host and port; of an address with a signature nothing else may be shown.
    pub(super) host: String,
    pub(super) response: Response,
    /// The digest that the Hub itself gave on the way.
    pub(super) digest: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &Settings, reference: &Reference) -> Result<Self, HubError> {
        crate::tls::install_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("shieldgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_PATIENCE)
            .read_timeout(settings.patience)
            // Followed here, where it is decided who sees the token.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(HubError::Client)?;
        let model = reference.model();
        Ok(Self {
            http,
            endpoint: settings.origin(),
            authorization: settings.authorization.clone(),
            patience: settings.patience,
            page: format!("{}/{model}", settings.endpoint()),
            model,
            revision: reference.revision().to_owned(),
        })
    }

    /// The endpoint and these parts, each of them escaped.
    pub(super) fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // Fails for addresses without a host only, which are no endpoints.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn endpoint_host(&self) -> String {
        host(&self.endpoint)
    }

    /// From byte `from` on, if the server can.
    pub(super) async fn get(&self, url: Url, from: u64, asked: Asked<'_>) -> Result<Reply, HubError> {
        let (mut url, mut digest) = (url, None);
        for _ in 0..REDIRECTS_MAX {
            let at_hub = url.origin() == self.endpoint.origin();
            let mut request = self.http.get(url.clone());
            // The hosts that keep the large files get signed addresses, and no token.
            if let Some(authorization) = self.authorization.as_ref().filter(|_| at_hub) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|error| self.broken(&url, error))?;
            if at_hub {
                digest = listed_digest(response.headers()).or(digest);
            }
            let status = response.status();
            if status.is_redirection() {
                url = next(&url, response.headers())?;
            } else if status == StatusCode::OK
                || from > 0
                    && matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
            {
                return Ok(Reply { host: host(&url), response, digest });
            } else {
                return Err(self.refused(&host(&url), at_hub, status, response.headers(), asked));
            }
        }
        Err(HubError::Redirect { host: host(&self.endpoint), reason: "it never ends" })
    }

    /// The error of a connection; addresses may be signed, so none is shown.
    pub(super) fn broken(&self, url: &Url, error: reqwest::Error) -> HubError {
        self.broken_at(host(url), error)
    }

    pub(super) fn broken_at(&self, host: String, error: reqwest::Error) -> HubError {
        if error.is_timeout() && !error.is_connect() {
            return HubError::Stalled { host, seconds: self.patience.as_secs() };
        }
        HubError::Unreachable { host, source: error.without_url() }
    }

    fn refused(
        &self,
        host: &str,
        at_hub: bool,
        status: StatusCode,
        headers: &HeaderMap,
        asked: Asked<'_>,
    ) -> HubError {
        let (host, model) = (host.to_owned(), self.model.clone());
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let token_sent = self.authorization.is_some();
        match (status.as_u16(), code, asked) {
            (429, ..) => HubError::RateLimited { host, seconds: asked_wait(headers) },
            (408 | 500..=599, ..) => HubError::Busy { host, status: status.as_u16() },
            // Elsewhere the token was not sent: a signed address that has run out is made anew.
            (401 | 403, ..) if !at_hub => HubError::Busy { host, status: status.as_u16() },
            (401 | 403, "GatedRepo", _) | (401 | 403, _, Asked::File { gated: true, .. }) => {
                HubError::Gated { model, page: self.page.clone(), token_sent }
            }
            (404, "RevisionNotFound", _) => HubError::NoRevision { model, revision: self.revision.clone() },
            (401, ..) if token_sent && code != "RepoNotFound" => HubError::TokenRefused { host },
            (403, ..) if token_sent => HubError::Forbidden { host, model },
            // The Hub does not say whether a model is private or not there at all.
            (401 | 403, ..) | (404, _, Asked::Listing) | (404, "RepoNotFound", _) => {
                HubError::NoModel { host, model, token_sent }
            }
            (404 | 410, _, Asked::File { name, .. }) => {
                HubError::FileGone { host, model, file: name.to_owned() }
            }
            (status, _, Asked::Listing) => HubError::Status { host, status, expected: "a list of files" },
            (status, _, Asked::File { .. }) => HubError::Status { host, status, expected: "a file" },
        }
    }
}

/// `https://HOST` or `http://HOST:PORT`
pub(super) fn host(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn next(from: &Url, headers: &HeaderMap) -> Result<Url, HubError> {
    let refuse = |reason| HubError::Redirect { host: host(from), reason };
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| from.join(location).ok()).ok_or(refuse("it says no address"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(next),
        ("https", "http") => Err(refuse("from https to http")),
        _ => Err(refuse("neither http nor https")),
    }
}

/// Large files have theirs in a header of its own, for the `ETag` is then that of the redirect.
fn listed_digest(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag").or_else(|| headers.get("etag"))?.to_str().ok()?;
    Some(tag.trim_start_matches("W/").trim_matches('"').to_owned())
}

/// Seconds, by `Retry-After` or by the Hub's own `RateLimit: "api";r=0;t=55`.
fn asked_wait(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let after = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    after.or_else(|| {
        text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_as_safe_as_they_were() {
        let go = |from: &str, to: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(to).unwrap())]);
            next(&Url::parse(from).unwrap(), &headers).map(String::from)
        };
        assert_eq!(go("https://a/b/c", "d").unwrap(), "https://a/b/d");
        assert_eq!(go("http://a/", "https://b/x?sig=1").unwrap(), "https://b/x?sig=1");
        for (from, to) in
            [("https://a/", "http://b/"), ("https://a/", "file:///etc/passwd"), ("http://a/", "ftp://b/")]
        {
            let error = go(from, to).unwrap_err();
            assert!(matches!(error, HubError::Redirect { .. }), "{error}");
        }
        assert!(next(&Url::parse("https://a/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_wait_is_read_from_either_header() {
        let wait = |name: &'static str, value: &'static str| {
            asked_wait(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
        };
        assert_eq!(wait("retry-after", "7"), Some(7));
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(wait("retry-after", "Wed, 25 Nov 2026 10:00:00 GMT"), None);
        assert_eq!(wait("x-other", "1"), None);
    }
}
