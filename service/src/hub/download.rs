//! One file from the Hub to its place in the cache: continued where it stopped, and named once its digest is right.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};

use super::cache::Cache;
use super::client::{Asked, Client};
use super::digest::{Hasher, is_hex};
use super::listing::RemoteFile;
use super::retry::Retry;
use super::{HubError, Watch};

/// A server that gives less between two failures gives nothing.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Nothing happens where the file is there; whatever stops this leaves what came, for the next time.
pub(super) async fn bring(
    client: &Client,
    cache: &Cache,
    commit: &str,
    name: &str,
    file: &RemoteFile,
    watch: &dyn Watch,
) -> Result<(), HubError> {
    if cache.has(file) {
        return Ok(());
    }
    let _lock = cache.lock(name, &file.digest, watch).await?;
    // Whoever held the lock may have brought it.
    if cache.has(file) {
        return Ok(());
    }
    let mut partial = Partial::open(cache.incomplete(&file.digest), file.clone()).await?;
    let mut resumed = partial.at > 0;
    watch.begin(name, file.bytes, partial.at);
    let (mut retry, mut farthest) = (Retry::new(), partial.at);
    loop {
        while partial.at < file.bytes {
            let transfer = Transfer { client, commit, name, watch };
            let Err(error) = transfer.run(&mut partial).await else { break };
            if partial.at >= farthest.saturating_add(PROGRESS_BYTES) {
                retry.forgive();
            }
            farthest = farthest.max(partial.at);
            if let Err(error) = retry.after(error, watch).await {
                if partial.at == 0 {
                    partial.remove()?;
                }
                return Err(error);
            }
        }
        let actual = partial.digest();
        if actual == file.digest.hex() {
            partial.name(&cache.blob(&file.digest))?;
            watch.end(name);
            return Ok(());
        }
        // What lay there from another time may have been the wrong part.
        partial.restart()?;
        if !resumed {
            partial.remove()?;
            return Err(HubError::WrongDigest {
                host: client.endpoint_host(),
                file: name.to_owned(),
                kind: file.digest.kind(),
                expected: file.digest.hex().to_owned(),
                actual,
            });
        }
        watch.note(&format!("{name} is not what the Hub lists; it is downloaded from its start"));
        watch.begin(name, file.bytes, 0);
        resumed = false;
    }
}

struct Transfer<'a> {
    client: &'a Client,
    commit: &'a str,
    name: &'a str,
    watch: &'a dyn Watch,
}

impl Transfer<'_> {
    /// One request; good if nothing is missing afterwards.
    async fn run(&self, partial: &mut Partial) -> Result<(), HubError> {
        let (org, model) = self.client.model().split_once('/').unwrap_or_default();
        let url = self.client.url(&[org, model, "resolve", self.commit, self.name]);
        let asked = Asked::File { name: self.name, gated: partial.file.gated };
        let mut reply = self.client.get(url, partial.at, asked).await?;
        let (host, expected) = (reply.host.clone(), partial.file.bytes);
        if let Some(actual) = reply.digest.filter(|actual| self.contradicts(partial, actual)) {
            let expected = partial.file.digest.hex().to_owned();
            return Err(HubError::OtherDigest { host, file: self.name.to_owned(), expected, actual });
        }
        let headers = reply.response.headers();
        let range = content_range(headers);
        match reply.response.status() {
            StatusCode::PARTIAL_CONTENT if range == Some((partial.at, expected)) => {}
            // It sends everything, whatever it was asked for.
            StatusCode::OK => {
                let actual = length(headers).unwrap_or(expected);
                if actual != expected {
                    return Err(HubError::WrongSize { host, file: self.name.to_owned(), expected, actual });
                }
                if partial.at > 0 {
                    self.watch.note(&format!("{host} can't continue {}; it begins again", self.name));
                    self.restart(partial)?;
                }
            }
            // Another part than was asked for, or none.
            status => {
                self.restart(partial)?;
                return Err(HubError::Busy { host, status: status.as_u16() });
            }
        }
        loop {
            let chunk = reply.response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.cut(partial, host.clone(), error))? else { break };
            if chunk.len() as u64 > expected - partial.at {
                let actual = partial.at + chunk.len() as u64;
                self.restart(partial)?;
                return Err(HubError::WrongSize { host, file: self.name.to_owned(), expected, actual });
            }
            partial.write(&chunk)?;
            self.watch.advance(chunk.len() as u64);
        }
        if partial.at < expected {
            return Err(HubError::Cut { host, file: self.name.to_owned(), got: partial.at, expected });
        }
        Ok(())
    }

    fn restart(&self, partial: &mut Partial) -> Result<(), HubError> {
        self.watch.begin(self.name, partial.file.bytes, 0);
        partial.restart()
    }

    /// Tags of other forms than the expected digest say nothing.
    fn contradicts(&self, partial: &Partial, actual: &str) -> bool {
        let expected = partial.file.digest.hex();
        is_hex(actual, expected.len()) && actual != expected
    }

    fn cut(&self, partial: &Partial, host: String, error: reqwest::Error) -> HubError {
        match self.client.broken_at(host, error) {
            HubError::Unreachable { host, .. } => {
                let (got, expected) = (partial.at, partial.file.bytes);
                HubError::Cut { host, file: self.name.to_owned(), got, expected }
            }
            other => other,
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// First byte and whole size of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, whole) =
        headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, whole.parse().ok()?))
}

/// The first `at` bytes of a file, on disk.
struct Partial {
    path: PathBuf,
    out: File,
    file: RemoteFile,
    at: u64,
    hasher: Hasher,
}

impl Partial {
    /// Hashes what is there.
    async fn open(path: PathBuf, file: RemoteFile) -> Result<Self, HubError> {
        let shown = path.clone();
        let work = move || {
            let write = |source| HubError::write(&path, source);
            let out = File::options().create(true).read(true).append(true).open(&path).map_err(write)?;
            let there = out.metadata().map_err(write)?.len();
            let hasher = Hasher::new(&file.digest, file.bytes);
            let mut partial = Self { path, out, file, at: 0, hasher };
            if there > partial.file.bytes {
                partial.restart()?;
            } else {
                partial.hash(there)?;
            }
            Ok(partial)
        };
        // Not here: Ctrl-C would wait for gigabytes to be hashed.
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(HubError::Read { path: shown, source: error.into() }))
    }

    fn hash(&mut self, bytes: u64) -> Result<(), HubError> {
        let read = |source| HubError::Read { path: self.path.clone(), source };
        let mut reader = (&self.out).take(bytes);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = reader.read(&mut buffer).map_err(read)?;
            let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { return Ok(()) };
            self.hasher.update(chunk);
            self.at += count as u64;
        }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), HubError> {
        self.out.write_all(chunk).map_err(|source| HubError::write(&self.path, source))?;
        self.hasher.update(chunk);
        self.at += chunk.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.out.set_len(0).map_err(|source| HubError::write(&self.path, source))?;
        self.hasher = Hasher::new(&self.file.digest, self.file.bytes);
        self.at = 0;
        Ok(())
    }

    fn digest(&self) -> String {
        self.hasher.clone().hex()
    }

    fn name(self, blob: &Path) -> Result<(), HubError> {
        let write = |source| HubError::write(&self.path, source);
        // A name stands for good bytes, after a power cut too.
        self.out.sync_all().map_err(write)?;
        std::fs::rename(&self.path, blob).map_err(write)
    }

    fn remove(self) -> Result<(), HubError> {
        std::fs::remove_file(&self.path).map_err(|source| HubError::write(&self.path, source))
    }
}
