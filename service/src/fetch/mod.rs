//! Pictures behind strangers' URLs: fetched from public addresses alone, within bounds of size, time and number.
//!
//! Whoever may submit names the URL, so a stranger says here where this service connects to. A host's name is
//! looked up once, all its addresses are held against the [`Rule`], and the connection goes to what was found
//! ([`resolve`]): a second answer, which might say something else, is never asked for. Addresses written as
//! such are held against it in [`Target`]. A redirect is a new target. Nothing goes along that a host could
//! know us or a user by; what comes is bytes, whatever their headers call them.

mod addresses;
mod error;
mod resolve;
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode, redirect, retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use addresses::{Public, Rule};
pub use error::FetchError;
use resolve::Checked;
pub use resolve::{Addresses, Resolver, System};
pub use target::Target;

/// Name, connection and TLS together.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

const REDIRECTS_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
pub struct FetchConfig {
    pub bytes_max: u64,
    /// From the look-up to the last byte, redirects included.
    pub timeout: Duration,
    /// More are refused.
    pub at_once: usize,
}

pub struct Fetcher {
    http: reqwest::Client,
    rule: Arc<dyn Rule>,
    places: Arc<Semaphore>,
    config: FetchConfig,
}

impl Fetcher {
    pub fn new(config: FetchConfig) -> Result<Self, reqwest::Error> {
        Self::with(config, Arc::new(System::default()), Arc::new(Public))
    }

    /// In another network than the real one, as tests have it.
    pub fn with(
        config: FetchConfig,
        resolver: Arc<dyn Resolver>,
        rule: Arc<dyn Rule>,
    ) -> Result<Self, reqwest::Error> {
        crate::tls::install_provider();
        let headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("image/*, */*;q=0.1")),
            // What unpacks to a thousand times its size is not taken at all.
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ]);
        let http = reqwest::Client::builder()
            .user_agent(concat!("shieldgate/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .dns_resolver(Checked { resolver, rule: Arc::clone(&rule) })
            .connect_timeout(CONNECT_PATIENCE)
            // A proxy would do the look-up, and would be where we connect to.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .pool_max_idle_per_host(0)
            // Also where another crate asks for these features.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()?;
        Ok(Self { http, rule, places: Arc::new(Semaphore::new(config.at_once.max(1))), config })
    }

    /// What can be said about a URL before anybody is asked.
    pub fn target(&self, url: &str) -> Result<Target, FetchError> {
        Target::parse(url, self.rule.as_ref())
    }

    /// As far as the body; [`Fetched::chunk`] reads that.
    pub async fn open(&self, target: Target) -> Result<Fetched, FetchError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| FetchError::Busy)?;
        let until = Instant::now() + self.config.timeout;
        let response = tokio::time::timeout_at(until.into(), self.follow(target));
        let response = response.await.map_err(|_| FetchError::TooSlow)??;
        let encoded = response.headers().get_all(CONTENT_ENCODING).iter();
        if encoded.into_iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(FetchError::Encoded);
        }
        let bytes_max = self.config.bytes_max;
        if response.content_length().is_some_and(|length| length > bytes_max) {
            return Err(FetchError::TooLarge { bytes_max });
        }
        Ok(Fetched { response, until, bytes_max, left: bytes_max, _place: place })
    }

    async fn follow(&self, mut target: Target) -> Result<Response, FetchError> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.http.get(target.url()).send().await.map_err(FetchError::broken)?;
            target = match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                    target.redirected(location, self.rule.as_ref())?
                }
                status => return Err(FetchError::Status { status: status.as_u16() }),
            };
        }
        Err(FetchError::Redirect { reason: "too often" })
    }
}

/// A good answer, its body to be read; it holds its place among those at once until it is dropped.
pub struct Fetched {
    response: Response,
    until: Instant,
    bytes_max: u64,
    left: u64,
    _place: OwnedSemaphorePermit,
}

impl Fetched {
    /// The next piece; what the headers said of the length is not believed.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, FetchError> {
        let chunk = tokio::time::timeout_at(self.until.into(), self.response.chunk()).await;
        let chunk = chunk.map_err(|_| FetchError::TooSlow)?.map_err(FetchError::broken)?;
        if let Some(chunk) = &chunk {
            let left = self.left.checked_sub(chunk.len() as u64);
            self.left = left.ok_or(FetchError::TooLarge { bytes_max: self.bytes_max })?;
        }
        Ok(chunk)
    }
}
