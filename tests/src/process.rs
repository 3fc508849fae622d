//! Processes: waited for with a bound, ended by id and only if they are what we took them for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(10);

pub(crate) fn signal(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    assert!(pid > 1, "{pid} is none of our processes");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// None: it is still running.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if since.elapsed() > patience {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Everything it wrote; killed (and the test with it) if it takes too long.
pub(crate) fn output(mut command: Command, patience: Duration) -> Output {
    let shown = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut out = child.stdout.take().expect("it is piped");
    let mut err = child.stderr.take().expect("it is piped");
    // Read on threads of their own, so that a full pipe does not hold it up.
    let stdout = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let stderr = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let status = wait(&mut child, patience).unwrap_or_else(|| {
        // SIGTERM first: a Postgres it may have started goes with it.
        signal(child.id(), libc::SIGTERM);
        if wait(&mut child, Duration::from_secs(10)).is_none() {
            signal(child.id(), libc::SIGKILL);
        }
        panic!("{shown} did not end within {patience:?}");
    });
    let read = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().expect("it only reads").expect("a pipe can be read")
    };
    Output { status, stdout: read(stdout), stderr: read(stderr) }
}

/// A private cluster's `postmaster.pid`.
#[derive(Debug, Clone)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) socket_dir: PathBuf,
    data: PathBuf,
}

impl Postmaster {
    /// None: there is no file, or its process is gone.
    pub(crate) fn of(data_dir: &Path) -> Option<Self> {
        let data = data_dir.join("postgres");
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        // Lines: pid, data directory, start time, port, socket directory, …
        let lines: Vec<&str> = text.lines().collect();
        let found = Self {
            pid: lines.first()?.trim().parse().ok()?,
            socket_dir: PathBuf::from(lines.get(4)?.trim()),
            data: data.canonicalize().ok()?,
        };
        found.alive().then_some(found)
    }

    /// Whether its process is a Postgres that works in this very folder: a number may be anybody's.
    pub(crate) fn alive(&self) -> bool {
        works_in(self.pid, &self.data)
    }

    /// Ends it without ceremony: nobody wants its data any more.
    pub(crate) fn end(&self) {
        for (number, patience) in [(libc::SIGQUIT, 10), (libc::SIGKILL, 5)] {
            if self.alive() {
                signal(self.pid, number);
            }
            let until = Instant::now() + Duration::from_secs(patience);
            while Instant::now() < until {
                if postgres_in(&self.data).is_empty() {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// Every Postgres process of a cluster.
pub(crate) fn postgres_in(data: &Path) -> Vec<u32> {
    let Ok(data) = data.canonicalize() else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| works_in(*pid, &data)).collect()
}

fn works_in(pid: u32, data: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    std::fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == data)
        && std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "postgres")
}
