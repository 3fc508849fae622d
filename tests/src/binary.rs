//! The binary under test, and one run of it that ends by itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::assets::usual_assets;
use crate::process;

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where cargo put everything: the test's own file is `target/release/deps/NAME-HASH`.
pub fn target_dir() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own file");
    let target =
        own.ancestors().nth(3).filter(|_| own.parent().is_some_and(|folder| folder.ends_with("deps")));
    target.map(Path::to_path_buf).unwrap_or_else(|| {
        panic!("`{}` does not lie in target/release/deps: run the tests by `make test`", own.display())
    })
}

/// `target/release/shieldgate`.
pub fn binary() -> PathBuf {
    let path = target_dir().join("release/shieldgate");
    assert!(path.is_file(), "no binary at `{}`: run `make build` first", path.display());
    path
}

/// The binary in a folder, with nothing of ours in its environment but the usual assets.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let ours = ["SHIELDGATE_", "PG", "HF_"].iter().any(|prefix| name_text.starts_with(prefix));
        if ours || ["DATABASE_URL", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"].contains(&&*name_text) {
            command.env_remove(&name);
        }
    }
    command.env("SHIELDGATE_ASSETS", usual_assets());
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// None: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Its stdout, trimmed, if it ended well.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "it failed: {}{}", self.stdout, self.stderr);
        self.stdout.trim().to_owned()
    }

    /// Its stderr, if it ended with `code`.
    #[track_caller]
    pub fn bad(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Runs `shieldgate ARGS` in `folder` to its end.
pub fn shieldgate<A: AsRef<OsStr>>(folder: &Path, args: &[A], env: &[(&str, &str)]) -> Done {
    let mut command = command(folder);
    command.args(args).envs(env.iter().copied());
    let output = process::output(command, PATIENCE);
    Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
