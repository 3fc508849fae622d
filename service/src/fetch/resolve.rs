//! A host's name is looked up once, and the connection gets no address that was not held against the rule.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::Rule;

/// A look-up can't be taken back: those that nobody waits for any more hold a thread each until they end.
const LOOK_UPS_MAX: usize = 32;

pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Who knows the addresses of a name.
pub trait Resolver: Send + Sync + 'static {
    fn addresses(&self, host: &str) -> Addresses;
}

/// The system's own.
pub struct System(Arc<Semaphore>);

impl Default for System {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOK_UPS_MAX)))
    }
}

impl Resolver for System {
    fn addresses(&self, host: &str) -> Addresses {
        let (host, places) = (host.to_owned(), Arc::clone(&self.0));
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let look_up = move || {
                let _place = place;
                let found = (host.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)?
        })
    }
}

/// The client's only way from a name to a connection.
pub(super) struct Checked {
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) rule: Arc<dyn Rule>,
}

/// Found again among the causes of the client's error.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    #[error("the name is not known")]
    Unknown(#[source] io::Error),
    #[error("the name has no address")]
    None,
    #[error("the name has the address {0}, which is refused")]
    Refused(IpAddr),
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = self.resolver.addresses(name.as_str());
        let rule = Arc::clone(&self.rule);
        Box::pin(async move {
            let found = looked_up.await.map_err(NoAddress::Unknown).and_then(|found| {
                // One among many is enough: which of them is connected to, is not ours to say.
                match found.iter().find(|address| !rule.address(**address)) {
                    Some(refused) => Err(NoAddress::Refused(*refused)),
                    None if found.is_empty() => Err(NoAddress::None),
                    None => Ok(found),
                }
            });
            let found = found.inspect_err(|error| {
                // The client is not told which of these it was; the operator is.
                tracing::info!(host = name.as_str(), %error, "an image URL is refused");
            })?;
            // Port 0 stands for the one of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
