//! A data directory as the first start leaves it, made once and copied for each gate.
//!
//! `initdb` and the migrations write thousands of files and wait for the disk: ten seconds on a busy
//! machine, half a one for the copy. The template lies in `target/tmp`, under the binary's size and time, so
//! that every build gets its own. Tests of the first start itself say `fresh()`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::binary::{binary, shieldgate, target_dir};
use crate::process;

const PREFIX: &str = "gate-template-";

/// Puts a copy at `data_dir`, which must not exist.
pub(crate) fn copy_to(data_dir: &Path) {
    // Owners and modes as well: Postgres may run as another user than we do.
    let mut command = Command::new("cp");
    command.arg("-a").arg(template()).arg(data_dir);
    let copied = process::output(command, Duration::from_secs(60));
    assert!(
        copied.status.success(),
        "the template can't be copied: {}",
        String::from_utf8_lossy(&copied.stderr)
    );
}

fn template() -> PathBuf {
    let metadata = binary().metadata().expect("the binary is there");
    let modified =
        metadata.modified().expect("files have times").duration_since(UNIX_EPOCH).unwrap_or_default();
    let folder = target_dir().join("tmp");
    let path = folder.join(format!("{PREFIX}{}-{}", metadata.len(), modified.as_nanos()));
    std::fs::create_dir_all(&folder).expect("makes target/tmp");
    // Another test binary, or another thread, may be making it.
    let lock = File::create(folder.join(format!("{PREFIX}lock"))).expect("a lock file");
    lock.lock().expect("locks");
    if !path.is_dir() {
        for entry in std::fs::read_dir(&folder).expect("lists target/tmp").flatten() {
            // Of earlier builds, or half made.
            if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path()).expect("removes what is ours");
            }
        }
        let partial = path.with_extension("partial");
        let data_dir = partial.to_str().expect("a plain path");
        shieldgate(&folder, &["migrate", "--data-dir", data_dir], &[]).good();
        std::fs::rename(&partial, &path).expect("moves it into its place");
    }
    path
}
