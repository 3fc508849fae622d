//! The one provider of TLS in this process: ring.

/// Before the first client is built: reqwest panics without one, even for `http://`.
pub fn install_provider() {
    // An error means that there is one already, and nobody here installs another.
    drop(rustls::crypto::ring::default_provider().install_default());
}
