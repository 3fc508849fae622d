//! Pictures are decoded in processes of their own, which may read nothing, open nothing and call nobody.
//!
//! [`media::look`](crate::media::look) is written not to fail, and rests on decoders that others wrote. What it
//! does wrong all the same (a crash, memory without end, a loop) costs one process and one picture, not the
//! service: the process is ended and the next picture gets a new one. A decoder that somebody has taken over
//! finds no files, no network, no environment and no other program ([`confine`]).
//!
//! The same binary is started with the hidden command `decoder` ([`child`]); pictures go over its pipes
//! ([`wire`]). Processes are used again: starting one costs some milliseconds.

pub mod child;
mod confine;
mod process;
mod wire;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::Instrument as _;

pub use self::confine::Confinement;
pub use self::process::Program;
use self::process::{Ended, Process};
use crate::media::{Limits, Looked, MediaError};
use crate::scheduler::Lane;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("the picture was not decoded in the time that the request had")]
    Deadline,
    #[error("no decoder could be started")]
    Unavailable(#[source] io::Error),
}

/// Decoders of both lanes.
#[derive(Debug)]
pub struct Decoders {
    pool: Arc<Pool>,
    /// Where pipes are read: a worker of the HTTP server has one thread, on which a large picture would hold up
    /// every other request.
    runtime: Handle,
}

#[derive(Debug)]
struct Pool {
    program: Program,
    limits: Limits,
    interactive: Bench,
    bulk: Bench,
    failed: AtomicU64,
}

/// Those of one lane that have nothing to do, and how many it may have at work.
#[derive(Debug)]
struct Bench {
    idle: Mutex<Vec<Process>>,
    places: Arc<Semaphore>,
    background: bool,
}

/// A place among those that decode. Held until there is room for what was decoded, so that nobody decodes
/// ahead of the memory.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Decoders {
    /// So many decode at once; beside them bulk work has half as many. Those take only what the others leave of
    /// the cores, which may be little for long: they must not hold a place that a person waits for.
    /// One is started, so that what is wrong is found here.
    pub async fn start(program: Program, at_once: usize, limits: Limits) -> io::Result<(Self, Confinement)> {
        let at_once = at_once.max(1);
        let first = Process::start(&program, &limits, false).await?;
        let confinement = first.confinement().clone();
        let bench = |idle: Vec<Process>, places: usize, background: bool| Bench {
            idle: Mutex::new(idle),
            places: Arc::new(Semaphore::new(places)),
            background,
        };
        let pool = Pool {
            program,
            limits,
            interactive: bench(vec![first], at_once, false),
            bulk: bench(Vec::new(), (at_once / 2).max(1), true),
            failed: AtomicU64::new(0),
        };
        Ok((Self { pool: Arc::new(pool), runtime: Handle::current() }, confinement))
    }

    /// What is in the bytes, and the place it was found at. Dropped on the way it ends the decoder, so that a
    /// picture nobody waits for costs nothing more.
    pub async fn look(
        &self,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        lane: Lane,
        deadline: Instant,
    ) -> Result<(Looked, Place), DecodeError> {
        let pool = Arc::clone(&self.pool);
        let look = async move { pool.look(bytes.as_ref(), lane, deadline).await };
        // A set, for it ends its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn_on(look.in_current_span(), &self.runtime);
        let ended = || DecodeError::Unavailable(io::Error::other("its task ended before its time"));
        task.join_next().await.and_then(Result::ok).ok_or_else(ended)?
    }

    /// Decoders that failed or were ended for what a picture did, since the last call.
    pub fn take_failed(&self) -> u64 {
        self.pool.failed.swap(0, Ordering::Relaxed)
    }
}

impl Pool {
    async fn look(
        &self,
        bytes: &[u8],
        lane: Lane,
        deadline: Instant,
    ) -> Result<(Looked, Place), DecodeError> {
        let bench = match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        };
        let by = tokio::time::Instant::from_std(deadline);
        let place =
            tokio::time::timeout_at(by, self.place(bench)).await.map_err(|_| DecodeError::Deadline)??;
        let mut again = true;
        loop {
            let mut decoder = match bench.take() {
                Some(decoder) => decoder,
                None => {
                    let started = Process::start(&self.program, &self.limits, bench.background);
                    let started = tokio::time::timeout_at(by, started).await;
                    started.map_err(|_| DecodeError::Deadline)?.map_err(DecodeError::Unavailable)?
                }
            };
            let ended = match decoder.look(bytes, &self.limits, by).await {
                Ok(looked) => {
                    if !decoder.is_worn() {
                        bench.put_back(decoder);
                    }
                    return Ok((looked?, place));
                }
                Err(Ended::Deadline) => return Err(DecodeError::Deadline),
                Err(ended) => ended,
            };
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(bytes = bytes.len(), "{ended}");
            match ended {
                // Perhaps somebody else ended it, one short of memory say: once more, to be fair to the picture.
                Ended::Died(_) if again => again = false,
                Ended::TooSlow => {
                    let seconds = self.limits.cpu_max.as_secs();
                    return Err(MediaError::TooSlow { seconds }.into());
                }
                Ended::Died(_) | Ended::Broken(_) | Ended::Deadline => {
                    return Err(MediaError::DecoderFailed.into());
                }
            }
        }
    }

    async fn place(&self, bench: &Bench) -> Result<Place, DecodeError> {
        let closed = |_| DecodeError::Unavailable(io::ErrorKind::BrokenPipe.into());
        Ok(Place { _permit: Arc::clone(&bench.places).acquire_owned().await.map_err(closed)? })
    }
}

impl Bench {
    /// A decoder that has ended meanwhile is not given out.
    fn take(&self) -> Option<Process> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find_map(|mut decoder| decoder.lives().then_some(decoder))
    }

    fn put_back(&self, decoder: Process) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
    }
}
