//! The Hugging Face Hub: a model's files by its HTTP API, into the cache that the Python tools share.
//!
//! Only what a checkpoint's reader reads is fetched, and of one commit. Every file is checked against the
//! digest that the Hub lists for it before it gets its name in the cache.

mod cache;
mod client;
mod digest;
mod download;
mod error;
mod listing;
mod reference;
mod retry;
mod settings;

use std::path::{Path, PathBuf};

pub use cache::{Cache, check_links};
pub use error::HubError;
pub use reference::Reference;
pub use settings::Settings;

use client::Client;
use listing::Listing;

/// What a download tells whoever waits for it.
pub trait Watch: Sync {
    /// Something to know, one line.
    fn note(&self, text: &str);
    /// A file of `bytes` begins; `there` of them are on disk already. It may begin again, with fewer.
    fn begin(&self, file: &str, bytes: u64, there: u64);
    fn advance(&self, bytes: u64);
    fn end(&self, file: &str);
}

/// One commit of a model in the cache: a folder of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub folder: PathBuf,
    pub commit: String,
}

/// Brings what the reader needs into the cache; what is there already is not fetched.
///
/// `accept` looks at the snapshot's configuration before the weights are asked for, and may refuse.
/// Without a network, or with [`Settings::offline`], the cache alone answers.
pub async fn fetch(
    settings: &Settings,
    reference: &Reference,
    watch: &dyn Watch,
    accept: impl FnOnce(&Path) -> Result<(), HubError>,
) -> Result<Snapshot, HubError> {
    let cache = Cache::of(&settings.cache, reference);
    if settings.offline {
        return cache.snapshot(reference)?.ok_or_else(|| HubError::NotCached {
            model: reference.to_string(),
            cache: settings.cache.clone(),
        });
    }
    let client = Client::new(settings, reference)?;
    let listing = match listing::ask(&client, reference, watch).await {
        Ok(listing) => listing,
        Err(error) if error.may_pass() => match cache.snapshot(reference)? {
            Some(snapshot) => {
                watch.note(&format!(
                    "{}; what the cache has is used: commit {}",
                    error.brief(),
                    snapshot.commit
                ));
                return Ok(snapshot);
            }
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    watch.note(&listing.terms(settings.endpoint(), reference));
    let snapshot =
        Snapshot { folder: cache.snapshot_folder(&listing.commit), commit: listing.commit.clone() };

    let configuration = listing.configuration()?;
    bring(&client, &cache, &listing, &configuration, watch).await?;
    accept(&snapshot.folder)?;
    let weights = listing.weights(&snapshot.folder)?;
    bring(&client, &cache, &listing, &weights, watch).await?;
    // Last: who finds the branch's name finds everything.
    cache.write_ref(reference, &listing.commit)?;
    Ok(snapshot)
}

/// Fetches what is missing of `names`, and links them into the snapshot.
async fn bring(
    client: &Client,
    cache: &Cache,
    listing: &Listing,
    names: &[String],
    watch: &dyn Watch,
) -> Result<(), HubError> {
    let files = names.iter().map(|name| listing.file(name)).collect::<Result<Vec<_>, _>>()?;
    let missing: u64 = files.iter().map(|file| cache.missing(file)).sum();
    cache.check_room(missing)?;
    for (name, file) in names.iter().zip(&files) {
        download::bring(client, cache, &listing.commit, name, file, watch).await?;
    }
    for (name, file) in names.iter().zip(&files) {
        cache.link(&listing.commit, name, file)?;
    }
    Ok(())
}
