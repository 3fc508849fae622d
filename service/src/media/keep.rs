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

    /// As [`Keep::remove`], but only if nobody wanted the content kept within `age`, checked at the moment
    /// of removal: for what [`Keep::sweep_orphans`] listed and the store did not know.
    pub async fn remove_orphan(&self, sha256: &[u8; 32], age: Duration) -> io::Result<bool> {
        let path = self.path(sha256);
        blocking(move || remove_orphan(&path, age)).await
    }

    /// Names of at most `limit` kept contents that are older than `age`, after `after` in order: ask the
    /// store which of them it knows and [`Keep::remove_orphan`] the rest. Younger ones may belong to a verdict
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
    if fs::metadata(path).is_ok_and(|m| m.len() == bytes.len() as u64) && renew(path)? {
        sync_dir(dir)?;
        return Ok(Put::AlreadyKept);
    }
    let (outer, root) = (dir.parent(), dir.parent().and_then(Path::parent));
    for folder in outer.into_iter().chain([dir]) {
        make_dir(folder)?;
    }
    let unfinished = dir.join(unfinished_name());
    let written = write_new(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if let Err(e) = written {
        // The first error is the one to tell; the sweep takes what cannot be removed now.
        let _ = fs::remove_file(&unfinished);
        return Err(e);
    }
    // All the way up, whoever made the folders: another put may have made them and not synced yet.
    for folder in [Some(dir), outer, root].into_iter().flatten() {
        sync_dir(folder)?;
    }
    Ok(Put::Written)
}

/// Its age counts from the last time somebody wanted it kept. False where the sweep took it meanwhile:
/// the sweep moves a file away before it looks at the age, so either it sees the new one or we see
/// the name gone.
fn renew(path: &Path) -> io::Result<bool> {
    match File::options().append(true).open(path) {
        Ok(file) => file.set_modified(SystemTime::now())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    path.try_exists()
}

fn remove_orphan(path: &Path, age: Duration) -> io::Result<bool> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a kept file has no folder"))?;
    let aside = dir.join(unfinished_name());
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    let old = fs::metadata(&aside)?.modified()? <= before(age);
    if old {
        fs::remove_file(&aside)?;
    } else {
        // The name implies the bytes, so it does not matter if somebody has written it again meanwhile.
        fs::rename(&aside, path)?;
    }
    sync_dir(dir)?;
    Ok(old)
}

fn before(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
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

fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
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
    let before = before(age);
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(first: u8, last: u8) -> [u8; 32] {
        let mut name = [7; 32];
        name[0] = first;
        name[31] = last;
        name
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn what_is_put_can_be_had_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let sha256 = name(0xab, 1);
        assert_eq!(keep.get(&sha256).await.unwrap(), None);
        assert!(!keep.remove(&sha256).await.unwrap());
        assert_eq!(keep.put(&sha256, b"bytes".to_vec()).await.unwrap(), Put::Written);
        assert_eq!(keep.put(&sha256, b"bytes".to_vec()).await.unwrap(), Put::AlreadyKept);
        assert_eq!(keep.get(&sha256).await.unwrap().as_deref(), Some(&b"bytes"[..]));
        let path = keep.path(&sha256);
        let hex = path.file_name().unwrap().to_str().unwrap();
        assert_eq!((hex.len(), &hex[..4], &hex[62..]), (64, "ab07", "01"));
        assert!(path.starts_with(dir.path().join("media/ab/07")), "{path:?}");
        // Private, and so is every folder on the way.
        assert_eq!(mode(&path), 0o600);
        assert!(path.ancestors().skip(1).take(3).all(|dir| mode(dir) == 0o700));
        // A second Keep over the same folder finds it: nothing lives in memory.
        let again = Keep::new(dir.path()).unwrap();
        assert!(again.remove(&sha256).await.unwrap());
        assert_eq!(keep.get(&sha256).await.unwrap(), None);
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn a_file_of_the_wrong_length_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let sha256 = name(1, 1);
        keep.put(&sha256, b"whole".to_vec()).await.unwrap();
        fs::write(keep.path(&sha256), b"wh").unwrap();
        assert_eq!(keep.put(&sha256, b"whole".to_vec()).await.unwrap(), Put::Written);
        assert_eq!(keep.get(&sha256).await.unwrap().as_deref(), Some(&b"whole"[..]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_leave_one_whole_file_each() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let tasks: Vec<_> = (0..64u8)
            .map(|i| {
                let keep = keep.clone();
                tokio::spawn(async move { keep.put(&name(0, i % 4), vec![i % 4; 100_000]).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        for i in 0..4 {
            assert_eq!(keep.get(&name(0, i)).await.unwrap(), Some(vec![i; 100_000]));
        }
        assert_eq!(files(dir.path()).len(), 4, "nothing unfinished is left");
    }

    #[tokio::test]
    async fn a_failed_write_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        // A file stands where the folder should be.
        fs::write(dir.path().join("media/ee"), b"").unwrap();
        assert!(keep.put(&name(0xee, 0), vec![1]).await.is_err());
        assert_eq!(files(dir.path()), [dir.path().join("media/ee")]);
    }

    #[tokio::test]
    async fn an_orphan_that_is_wanted_again_stays() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let (sha256, hour) = (name(5, 5), Duration::from_secs(3600));
        keep.put(&sha256, vec![1]).await.unwrap();
        assert!(!keep.remove_orphan(&sha256, hour).await.unwrap(), "young");
        assert_eq!(keep.get(&sha256).await.unwrap(), Some(vec![1]));
        let path = keep.path(&sha256);
        let old = SystemTime::now() - 2 * hour;
        File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(keep.remove_orphan(&sha256, hour).await.unwrap());
        assert!(!keep.remove_orphan(&sha256, hour).await.unwrap(), "gone");
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    }

    /// Whoever was told that the bytes are kept finds them, however the sweep runs in between.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_put_that_races_the_sweep_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let (sha256, hour) = (name(6, 6), Duration::from_secs(3600));
        for round in 0..200 {
            keep.put(&sha256, vec![1; 10]).await.unwrap();
            let old = SystemTime::now() - 2 * hour;
            File::options().append(true).open(keep.path(&sha256)).unwrap().set_modified(old).unwrap();
            let (swept, put) = tokio::join!(
                tokio::spawn({
                    let keep = keep.clone();
                    async move { keep.remove_orphan(&sha256, hour).await }
                }),
                tokio::spawn({
                    let keep = keep.clone();
                    async move { keep.put(&sha256, vec![1; 10]).await }
                })
            );
            swept.unwrap().unwrap();
            put.unwrap().unwrap();
            assert_eq!(keep.get(&sha256).await.unwrap(), Some(vec![1; 10]), "round {round}");
        }
        assert_eq!(files(dir.path()).len(), 1);
    }

    #[tokio::test]
    async fn the_sweep_lists_old_names_in_order_and_clears_unfinished_files() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path()).unwrap();
        let names = [name(0, 1), name(0, 2), name(9, 0), name(0xff, 3)];
        for sha256 in names.iter().rev() {
            keep.put(sha256, vec![1]).await.unwrap();
        }
        let unfinished = keep.path(&names[0]).with_file_name(format!("{UNFINISHED}1-2-3"));
        fs::write(&unfinished, b"half").unwrap();
        let stranger = keep.path(&names[0]).with_file_name("README");
        fs::write(&stranger, b"not ours").unwrap();

        let hour = Duration::from_secs(3600);
        assert_eq!(
            keep.sweep_orphans(hour, None, 10).await.unwrap(),
            Vec::<[u8; 32]>::new(),
            "all are young"
        );
        assert!(unfinished.exists());

        let old = SystemTime::now() - 2 * hour;
        for path in files(dir.path()) {
            File::options().append(true).open(path).unwrap().set_modified(old).unwrap();
        }
        // Wanted again a moment ago: young again.
        keep.put(&names[2], vec![1]).await.unwrap();
        let first = keep.sweep_orphans(hour, None, 2).await.unwrap();
        assert_eq!(first, names[..2]);
        let rest = keep.sweep_orphans(hour, Some(first[1]), 2).await.unwrap();
        assert_eq!(rest, [names[3]]);
        assert!(!unfinished.exists() && stranger.exists());
    }
}
