//! HTTP clients: never through a proxy, always with a bound on their patience.

use std::time::Duration;

pub(crate) fn client(patience: Duration) -> reqwest::Result<reqwest::Client> {
    // reqwest wants a provider even without TLS, where another crate of the workspace asks for TLS. A second
    // one is refused, and not needed.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(patience).build()
}
