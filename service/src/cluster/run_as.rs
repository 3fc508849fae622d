//! Who Postgres runs as: `initdb` and `postgres` refuse root, and users without a name.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::error::ClusterError;

/// How a Postgres program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunAs {
    /// As ourselves: an ordinary user with a name.
    Ourselves,
    /// As ourselves outside, as `nobody` inside a user namespace. Files stay ours, so this works
    /// below private folders; container runtimes often forbid it.
    Namespace,
    /// As another user, which root can become; `reach` gives it root's way through private folders.
    Other { name: String, uid: u32, gid: u32, reach: bool },
}

/// `nobody` always has a name, also in bare containers: Postgres wants one for its user id.
const NOBODY: u32 = 65534;

impl RunAs {
    /// As ourselves where Postgres allows that, else the first way round that works here for these
    /// binaries and this (existing) folder.
    pub(super) async fn choose(
        ways: Option<&[Self]>,
        binaries: &Path,
        folder: &Path,
    ) -> Result<Self, ClusterError> {
        let (uid, name) = (own_uid(), own_name().await);
        let ways = match ways {
            Some(ways) => ways.to_vec(),
            None if uid == 0 => Self::ways_of_root(),
            None if name.is_none() => vec![Self::Namespace],
            None => return Ok(Self::Ourselves),
        };
        let mut tried = String::new();
        for way in ways {
            match way.probe(binaries, folder).await {
                Ok(()) => {
                    tracing::info!(run_as = %way, "Postgres refuses to run as root or without a user name");
                    return Ok(way);
                }
                Err(why) => tried.push_str(&format!("    {way}: {why}\n")),
            }
        }
        let who = name.unwrap_or_else(|| format!("user id {uid}, which has no name"));
        Err(ClusterError::CannotRun { who, tried: tried.trim_end().to_owned() })
    }

    pub(super) fn ways_of_root() -> Vec<Self> {
        let (name, uid, gid) = unprivileged();
        let plain = Self::Other { name: name.clone(), uid, gid, reach: false };
        vec![Self::Namespace, plain, Self::Other { name, uid, gid, reach: true }]
    }

    /// The command for `program`, in a process group of its own: Ctrl-C goes to the whole group of
    /// the terminal, and Postgres must outlive the service's last write.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self {
            Self::Ourselves => Command::new(program),
            Self::Namespace => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-user=65534", "--map-group=65534", "--"]).arg(program);
                command
            }
            Self::Other { uid, gid, reach, .. } => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                if *reach {
                    // Postgres asks access(2) about its own binaries, and that call takes the
                    // capability away again unless the fix-up is off.
                    command.arg("--securebits=+no_setuid_fixup");
                    for kind in ["bounding-set", "inh-caps", "ambient-caps"] {
                        command.arg(format!("--{kind}=-all,+dac_override"));
                    }
                }
                command.arg("--").arg(program);
                command
            }
        };
        // Settings of the operator's own server must not reach this one.
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS", "PGSERVICE", "PGDATABASE"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
        command
    }

    /// Gives `path` (a folder with all that is in it, or a file) to whom Postgres runs as. Root may
    /// meet a folder made in another way on another day; an ordinary user owns its files anyway.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        let (uid, gid) = match self {
            Self::Other { uid, gid, .. } => (*uid, *gid),
            Self::Namespace if own_uid() == 0 => (0, 0),
            Self::Namespace | Self::Ourselves => return Ok(()),
        };
        give(path, uid, gid)
    }

    /// The user id that owns the files, as seen from outside.
    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Other { uid, .. } => *uid,
            Self::Namespace | Self::Ourselves => own_uid(),
        }
    }

    /// Whether the server can tell clients apart by the user they run as.
    pub(super) fn peers_are_visible(&self) -> bool {
        matches!(self, Self::Other { .. })
    }

    async fn probe(&self, binaries: &Path, folder: &Path) -> Result<(), String> {
        // Before anything is given away: whether this way works at all and reaches the binaries.
        self.succeeds(binaries.join("postgres"), &[OsStr::new("--version")]).await?;
        self.own(folder).map_err(|error| format!("cannot give it `{}`: {error}", folder.display()))?;
        match self.succeeds("test", &[OsStr::new("-w"), folder.as_os_str()]).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("it cannot write `{}`", folder.display())),
        }
    }

    async fn succeeds(&self, program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Result<(), String> {
        let mut command = self.command(program);
        let output =
            command.args(arguments).current_dir("/").output().await.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(text.lines().next().map_or_else(|| output.status.to_string(), str::to_owned))
    }
}

impl std::fmt::Display for RunAs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ourselves => out.write_str("as ourselves"),
            Self::Namespace => out.write_str("as `nobody` in a user namespace"),
            Self::Other { name, reach: false, .. } => write!(out, "as user `{name}`"),
            Self::Other { name, reach: true, .. } => write!(out, "as user `{name}` with CAP_DAC_OVERRIDE"),
        }
    }
}

pub(super) fn own_uid() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

/// Our user's name; none where the id has no passwd entry, as in many containers.
pub(super) async fn own_name() -> Option<String> {
    let output = Command::new("id").arg("-un").stdin(Stdio::null()).output().await.ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

/// `postgres` where the system has that user, else `nobody`.
fn unprivileged() -> (String, u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = |wanted: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((wanted.to_owned(), uid, gid))
    };
    entry("postgres").or_else(|| entry("nobody")).unwrap_or(("nobody".to_owned(), NOBODY, NOBODY))
}

fn give(path: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_symlink() {
        return Ok(());
    }
    // Children first and the folder last: an interrupted round is seen by the folder's owner.
    if metadata.is_dir() && metadata.uid() != uid {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    if metadata.uid() != uid { chown(path, Some(uid), Some(gid)) } else { Ok(()) }
}
