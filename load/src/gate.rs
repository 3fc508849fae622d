//! A gate of our own: started in a throw-away folder, given a key, stopped with everything it started.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// The first start makes a database and loads the judges.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// Longer than the service's own grace.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 20;

/// `admin` reads the audit log, whose entries the recall benchmark imitates.
const SCOPES: &str = "moderate,read,admin";

/// Dropped, it is stopped, and its folder is deleted.
#[derive(Debug)]
pub(crate) struct Gate {
    process: Process,
    address: String,
    key: String,
    data_dir: PathBuf,
    /// Deleted last: fields are dropped in their order.
    _folder: TempDir,
}

impl Gate {
    /// `binary serve` with `options`, ready to be asked.
    pub(crate) async fn start(binary: &Path, options: &[String]) -> Result<Self> {
        ensure!(
            binary.is_file(),
            "no gate at `{}`\n  hint: `make build` makes it; `--gate PATH` names another, `--url` a running one",
            binary.display()
        );
        let binary = std::path::absolute(binary)?;
        let folder = TempDir::with_prefix("shieldgate-load-").context("no folder for the gate")?;
        let (data_dir, log) = (folder.path().join("data"), folder.path().join("serve.log"));
        let mut serve = command(&binary, folder.path());
        serve.arg("serve").arg("--data-dir").arg(&data_dir).args(["--listen", "127.0.0.1:0"]).args(options);
        let file = File::create(&log)?;
        serve.stdout(file.try_clone()?).stderr(file);
        let mut process = Process::spawn(serve, data_dir.join("postgres"))?;
        let address = ready(&mut process, &log).await?;

        let mut create = tokio::process::Command::from(command(&binary, folder.path()));
        create.args(["keys", "create", "--name", "load", "--scopes", SCOPES, "--data-dir"]).arg(&data_dir);
        let made = create.kill_on_drop(true).output().await.context("`shieldgate keys create`")?;
        ensure!(
            made.status.success(),
            "`shieldgate keys create` failed: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
        let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        Ok(Self { process, address, key, data_dir, _folder: folder })
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Its private Postgres.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// An error if it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the gate ended by itself: {status}"),
        }
    }
}

/// The gate's command with nothing of the caller's shell in its environment.
fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SHIELDGATE_") || text.starts_with("PG") || text == "DATABASE_URL" {
            command.env_remove(&name);
        }
    }
    command
}

/// Where it serves, once it says that it is ready.
async fn ready(process: &mut Process, log: &Path) -> Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let until = Instant::now() + START_PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(address) = served_on(&text) {
            let ready = client.get(format!("http://{address}/readyz")).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(address);
            }
        }
        if let Some(status) = process.child.try_wait()? {
            bail!("the gate ended while it was starting ({status}):\n{}", tail(log));
        }
        if Instant::now() > until {
            bail!("the gate was not ready within {} s:\n{}", START_PATIENCE.as_secs(), tail(log));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Of its log's line `… serving address=127.0.0.1:41234 …`.
fn served_on(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(" serving address="))?;
    Some(line.split_once("address=")?.1.split(' ').next()?.to_owned())
}

fn tail(log: &Path) -> String {
    let mut text = String::new();
    drop(File::open(log).map(|file| file.take(1 << 20).read_to_string(&mut text)));
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].iter();
    last.map(|line| format!("  {line}\n")).collect()
}

/// A child that never outlives us, nor its Postgres it.
#[derive(Debug)]
struct Process {
    child: Child,
    cluster: PathBuf,
}

impl Process {
    fn spawn(mut command: Command, cluster: PathBuf) -> Result<Self> {
        // Ctrl-C reaches the terminal's whole group: the gate is told once, by us.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe and takes numbers only. If we are killed, the kernel tells the
        // gate to stop. (It does so when the thread that spawned it ends: the main one, which runs us.)
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().context("the gate can't be started")?;
        Ok(Self { child, cluster })
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            // An error means that there is nothing to wait for.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        signal(self.child.id(), libc::SIGTERM);
        if self.ends_within(STOP_PATIENCE) {
            return;
        }
        drop(self.child.kill());
        drop(self.child.wait());
        // Killed, it left its Postgres running, which works in a folder that is about to go.
        if let Some(postmaster) = Postmaster::of(&self.cluster) {
            signal(postmaster.pid, libc::SIGQUIT);
        }
    }
}

/// The running Postgres of a cluster.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) socket_dir: PathBuf,
}

impl Postmaster {
    /// None: there is none, or its number is another program's by now.
    pub(crate) fn of(cluster: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        // Lines: pid, data directory, start time, port, socket directory, …
        let lines: Vec<&str> = text.lines().collect();
        let pid = lines.first()?.trim().parse().ok()?;
        let works_in = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let socket_dir = PathBuf::from(lines.get(4)?.trim());
        (works_in == cluster.canonicalize().ok()?).then_some(Self { pid, socket_dir })
    }
}

fn signal(pid: u32, number: i32) {
    if let Some(pid) = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 1) {
        // SAFETY: kill takes two numbers and touches no memory of ours.
        unsafe { libc::kill(pid, number) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log() {
        let log = "2026-01-01T00:00:00Z  INFO shieldgate: made\n2026 INFO x: serving address=127.0.0.1:4123 runtime=\"1\"\n";
        assert_eq!(served_on(log).as_deref(), Some("127.0.0.1:4123"));
        assert_eq!(served_on("nothing yet"), None);
    }

    #[tokio::test]
    async fn a_gate_that_is_not_there_is_a_clear_error() {
        let error = Gate::start(Path::new("no/such/gate"), &[]).await.expect_err("it is not there");
        assert!(error.to_string().starts_with("no gate at `no/such/gate`\n  hint: `make build`"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_told_with_its_words() {
        let error = Gate::start(Path::new("/bin/false"), &[]).await.expect_err("it ends");
        assert!(error.to_string().contains("ended while it was starting (exit status: 1)"), "{error}");
    }
}
