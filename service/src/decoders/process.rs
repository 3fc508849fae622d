//! The service's side of one decoder.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use shieldgate_models::Picture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::child::{BACKGROUND, COMMAND};
use super::confine::{CPU_SECONDS_MAX, Confinement};
use super::wire::{self, Answer, Found, Hello, Question};
use crate::media::{Limits, Looked, MediaError, View};

/// Starting takes milliseconds; on a machine that is overloaded, longer.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// What a pipe holds: the most that Linux grants to everybody. With its default of 64 KB the two ends would
/// wait for each other hundreds of times a picture.
const PIPE_BYTES: usize = 1 << 20;

/// How often a decoder that takes long is asked for its CPU time.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(500);

/// What is started as a decoder.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    /// Before those that every decoder is given.
    pub args: Vec<OsString>,
}

impl Program {
    /// This binary, also where its file was replaced meanwhile.
    pub fn own() -> io::Result<Self> {
        let running = PathBuf::from("/proc/self/exe");
        let path = if running.exists() { running } else { std::env::current_exe()? };
        Ok(Self { path, args: vec![COMMAND.into()] })
    }
}

/// Why a decoder was ended over a picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the request's time was up")]
    Deadline,
    #[error("a picture took a decoder more CPU time than any should; the decoder was ended")]
    TooSlow,
    #[error("a decoder ended over a picture: {0}")]
    Died(ExitStatus),
    #[error("a decoder answered what it never should, and was ended: {0}")]
    Broken(String),
}

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    confinement: Confinement,
    /// Before the last picture, where it can be known.
    cpu: Option<Duration>,
}

impl Process {
    /// Returns when it is confined and ready.
    pub(super) async fn start(program: &Program, limits: &Limits, background: bool) -> io::Result<Self> {
        // Beyond the decoder's own estimate there is room for the file and for what the estimate leaves out.
        let memory = limits.memory_max.saturating_add(limits.memory_max / 2);
        let memory = memory.saturating_add(2 * limits.bytes_max).saturating_add(64 << 20);
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .arg(memory.to_string())
            .arg(if background { BACKGROUND } else { "foreground" })
            // No secrets for whoever takes it over.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for the service, which lets them finish what they are at.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a decoder without pipes"));
        };
        // Smaller pipes are slower and no more than that.
        let _ = rustix::pipe::fcntl_setpipe_size(&to, PIPE_BYTES);
        let _ = rustix::pipe::fcntl_setpipe_size(&from, PIPE_BYTES);
        let confinement =
            Confinement { no_files: false, no_network: false, no_processes: false, missing: Vec::new() };
        let mut process = Self { child, to, from, confinement, cpu: None };
        let hello = tokio::time::timeout(START_TIME_MAX, process.header::<Hello>()).await;
        match hello.map_err(|_| io::ErrorKind::TimedOut)? {
            Ok(hello) => process.confinement = hello.confinement,
            Err(Ended::Died(status)) => {
                return Err(io::Error::other(format!("a new decoder ended at once: {status}")));
            }
            Err(other) => return Err(io::Error::other(other)),
        }
        process.cpu = process.cpu_time();
        Ok(process)
    }

    pub(super) fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// What is in the bytes. After an error it must not be asked again.
    pub(super) async fn look(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Result<Looked, MediaError>, Ended> {
        let before = self.cpu;
        let pid = self.child.id();
        let answer = {
            let mut exchange = std::pin::pin!(self.exchange(bytes, limits));
            loop {
                let until = deadline.min(Instant::now() + LOOKED_AT_EVERY);
                if let Ok(answer) = tokio::time::timeout_at(until, &mut exchange).await {
                    break answer?;
                }
                if let (Some(before), Some(now)) = (before, pid.and_then(cpu_time))
                    && now.saturating_sub(before) > limits.cpu_max
                {
                    return Err(Ended::TooSlow);
                }
                if Instant::now() >= deadline {
                    return Err(Ended::Deadline);
                }
            }
        };
        self.cpu = self.cpu_time();
        Ok(answer)
    }

    /// Near the CPU time that a decoder may use in its life.
    pub(super) fn is_worn(&self) -> bool {
        self.cpu.is_some_and(|cpu| cpu > Duration::from_secs(CPU_SECONDS_MAX / 2))
    }

    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.child.id().and_then(cpu_time)
    }

    async fn exchange(&mut self, bytes: &[u8], limits: &Limits) -> Result<Result<Looked, MediaError>, Ended> {
        let question = Question { bytes: bytes.len() as u64, limits: *limits };
        let question = wire::framed(&question).map_err(|error| Ended::Broken(error.to_string()))?;
        for part in [question.as_slice(), bytes] {
            if self.to.write_all(part).await.is_err() {
                return Err(self.ended().await);
            }
        }
        match self.header::<Answer>().await? {
            Answer::Refused(refused) => Ok(Err(refused)),
            Answer::Looked(found) => Ok(Ok(self.views(found, limits).await?)),
        }
    }

    async fn header<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Ended> {
        let mut prefix = [0; 4];
        self.fill(&mut prefix).await?;
        let length = wire::length(prefix).ok_or_else(|| Ended::Broken("a header without end".to_owned()))?;
        let mut header = vec![0; length];
        self.fill(&mut header).await?;
        serde_json::from_slice(&header).map_err(|error| Ended::Broken(error.to_string()))
    }

    async fn views(&mut self, mut found: Found, limits: &Limits) -> Result<Looked, Ended> {
        let broken = |what: &str| Ended::Broken(what.to_owned());
        let shapes = std::mem::take(&mut found.views);
        let lengths: Option<Vec<usize>> = shapes.iter().map(|shape| shape.bytes(limits)).collect();
        let lengths = lengths.ok_or_else(|| broken("a picture beyond the limits"))?;
        let total = lengths.iter().fold(0_u64, |sum, length| sum.saturating_add(*length as u64));
        if shapes.is_empty() || total > limits.memory_max.saturating_mul(2) {
            return Err(broken("no picture, or too many"));
        }
        let mut views = Vec::with_capacity(shapes.len());
        for (shape, length) in shapes.into_iter().zip(lengths) {
            let mut rgb: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
            let pixels = Arc::get_mut(&mut rgb).ok_or_else(|| broken("pixels that are shared"))?;
            self.fill(pixels).await?;
            let picture = Picture::new(shape.width, shape.height, rgb);
            let picture = picture.map_err(|error| Ended::Broken(error.to_string()))?;
            let (frame, at_ms, background) = (shape.frame, shape.at_ms, shape.background);
            views.push(View { picture, frame, at_ms, background });
        }
        Ok(found.with(views))
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Ended> {
        match self.from.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// The pipe is closed: so it has ended, or is about to.
    async fn ended(&mut self) -> Ended {
        match tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(Ok(status)) => Ended::Died(status),
            Ok(Err(error)) => Ended::Broken(error.to_string()),
            Err(_) => Ended::Broken("it closed its pipe and goes on".to_owned()),
        }
    }
}

/// User and system time of a process so far; `None` where /proc does not say.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; times are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second()))
}
