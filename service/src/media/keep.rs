//! Originals kept in a folder, each under its SHA-256: written whole or not at all.
//!
//! `DIR/media/ab/cd/<sha256>`. A file appears under its name only by a rename after it was synced, so
//! whatever has a name is complete. Bytes are kept before the verdict commits; what no verdict then
//! refers to is found by [`Keep::sweep_orphans`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Files being written begin with this; the sweep removes those that a crash left behind.
const UNFINISHED: &str = ".unfinished-";

/// Whether [`Keep::put`] wrote anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Written,
    AlreadyKept,
}

#[derive(Debug, Clone)]
pub struct Keep {
    root: Arc<PathBuf>,
}

impl Keep {
    /// Makes `dir/media` where it is missing.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let root = dir.join("media");
        make_dir(&root)?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Durable once it returns. Putting the same content twice, also at once, is one file.
    pub async fn put(&self, sha256: &[u8; 32], bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<Put> {
        let path = self.path(sha256);
        blocking(move || put(&path, bytes.as_ref())).await
    }

    /// `None` where nothing is kept under that name.
    pub async fn get(&self, sha256: &[u8; 32]) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(sha256);
        blocking(move || {
            let mut bytes = Vec::new();
            match File::open(&path) {
                Ok(mut file) => file.read_to_end(&mut bytes).map(|_| Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        })
        .await
    }

    /// True where there was something to remove. Durable once it returns.
    pub async fn remove(&self, sha256: &[u8; 32]) -> io::Result<bool> {
        let path = self.path(sha256);
        blocking(move || match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_dir).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
        .await
    }

    /// Names of at most `limit` kept contents that are older than `age`, after `after` in order: ask the
    /// store which of them it knows and [`Keep::remove`] the rest. Younger ones may belong to a verdict
    /// that has not committed yet. Unfinished files of that age are removed on the way.
    pub async fn sweep_orphans(
        &self,
        age: Duration,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> io::Result<Vec<[u8; 32]>> {
        let root = Arc::clone(&self.root);
        blocking(move || candidates(&root, age, after, limit)).await
    }

    /// Where the content lies or would lie.
    pub fn path(&self, sha256: &[u8; 32]) -> PathBuf {
        let name = hex(sha256);
        self.root.join(&name[..2]).join(&name[2..4]).join(&name)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<Put> {
    // A name implies the whole content, but not yet that the rename reached the disk: sync the folder
    // in either case, since whoever asks will record that the bytes are kept.
    let dir = path.parent().ok_or_else(|| io::Error::other("a kept file has no folder"))?;
    if fs::metadata(path).is_ok_and(|m| m.len() == bytes.len() as u64) {
        // Its age counts from the last time somebody wanted it kept, or the sweep could take it away.
        File::options().append(true).open(path)?.set_modified(SystemTime::now())?;
        sync_dir(dir)?;
        return Ok(Put::AlreadyKept);
    }
    if let Some(outer) = dir.parent() {
        make_dir(outer)?;
        if make_dir(dir)? {
            sync_dir(outer)?;
            outer.parent().map_or(Ok(()), sync_dir)?;
        }
    }
    let unfinished = dir.join(unfinished_name());
    let written = write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if let Err(e) = written {
        // The first error is the one to tell; the sweep takes what cannot be removed now.
        let _ = fs::remove_file(&unfinished);
        return Err(e);
    }
    sync_dir(dir)?;
    Ok(Put::Written)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Unique in this process by the counter, among processes by the id, after a reused id by the time.
fn unfinished_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{UNFINISHED}{}-{count}-{time}", std::process::id())
}

/// True where it was missing.
fn make_dir(dir: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn candidates(
    root: &Path,
    age: Duration,
    after: Option<[u8; 32]>,
    limit: usize,
) -> io::Result<Vec<[u8; 32]>> {
    let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let after = after.map(|name| hex(&name));
    let mut found = Vec::new();
    for outer in sorted(root)? {
        for inner in sorted(&root.join(&outer))? {
            let prefix = format!("{outer}{inner}");
            // Folders that lie wholly before the cursor are not read again.
            if after.as_ref().is_some_and(|after| prefix.as_str() < &after[..4]) {
                continue;
            }
            let dir = root.join(&outer).join(&inner);
            for name in sorted(&dir)? {
                if found.len() >= limit {
                    return Ok(found);
                }
                let path = dir.join(&name);
                let old = match fs::metadata(&path).and_then(|m| m.modified()) {
                    Ok(modified) => modified <= before,
                    // Removed meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                    Err(e) => return Err(e),
                };
                if !old {
                    continue;
                }
                if name.starts_with(UNFINISHED) {
                    fs::remove_file(&path)?;
                } else if let Some(sha256) = unhex(&name)
                    && after.as_ref().is_none_or(|after| &name > after)
                {
                    found.push(sha256);
                }
            }
        }
    }
    Ok(found)
}

/// Names in a folder, in order; none where it is gone.
fn sorted(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn hex(sha256: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sha256.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

fn unhex(name: &str) -> Option<[u8; 32]> {
    let digits = name.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut sha256 = [0; 32];
    for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| if d <= b'9' { d - b'0' } else { d - b'a' + 10 };
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Some(sha256)
}
