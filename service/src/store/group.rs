//! Group work: what is asked while the database is at others' is answered together, in one go.
//!
//! A statement or a commit for sixty costs little more than one for one. What comes alone waits for nobody.
//! What one of a group does wrong is not the others' fault: work that fails is done again for each alone.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Store, StoreError};

/// Of one group, at most; more would make the first wait for the last.
const GROUP_MAX: usize = 64;

/// Waiting to be in a group; bounded by the requests worked on at once, so never reached.
const WAITING_MAX: usize = 4096;

/// A piece of work that can be done together with others of its kind.
pub trait Grouped: Send + Sync + Sized + 'static {
    type Done: Send + 'static;
    type Error: From<StoreError> + fmt::Display + Send + Sync + 'static;

    /// One outcome each, in their order. An error means that none of it was done, or that nobody knows.
    fn together(
        store: &Store,
        group: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Done>, Self::Error>> + Send;

    /// What the database said, where the error is its own.
    fn store_error(error: &Self::Error) -> Option<&StoreError>;
}

struct Asked<W: Grouped> {
    work: W,
    tell: oneshot::Sender<Result<W::Done, W::Error>>,
}

/// Takes work in and tells what became of it.
pub struct Group<W: Grouped> {
    store: Store,
    asked: mpsc::Sender<Asked<W>>,
}

impl<W: Grouped> Group<W> {
    /// So many groups are worked on at once. Their tasks end when it is dropped and nothing waits any more.
    pub fn start(store: &Store, at_once: usize) -> Self {
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..at_once {
            let (store, waiting) = (store.clone(), Arc::clone(&waiting));
            tokio::spawn(async move {
                while let Some(group) = next(&waiting).await {
                    serve(&store, group).await;
                }
            });
        }
        Self { store: store.clone(), asked }
    }

    /// In bounded time. Where the caller leaves before, it may be done all the same.
    pub async fn ask(&self, work: W) -> Result<W::Done, W::Error> {
        let (tell, told) = oneshot::channel();
        let ended = || W::Error::from(StoreError::unavailable("the tasks that ask the database have ended"));
        let asked = async {
            self.asked.send(Asked { work, tell }).await.map_err(|_| ended())?;
            told.await.map_err(|_| ended())?
        };
        self.store.in_time(asked).await
    }
}

async fn next<W: Grouped>(waiting: &Mutex<mpsc::Receiver<Asked<W>>>) -> Option<Vec<Asked<W>>> {
    let mut waiting = waiting.lock().await;
    let mut group = Vec::new();
    (waiting.recv_many(&mut group, GROUP_MAX).await > 0).then_some(group)
}

async fn serve<W: Grouped>(store: &Store, mut group: Vec<Asked<W>>) {
    // Whoever has left meanwhile needs no answer.
    group.retain(|asked| !asked.tell.is_closed());
    if group.is_empty() {
        return;
    }
    let (works, tells): (Vec<W>, Vec<_>) = group.into_iter().map(|Asked { work, tell }| (work, tell)).unzip();
    let outcomes = match together(store, &works).await {
        Ok(done) => done.into_iter().map(Ok).collect(),
        Err(error) if works.len() == 1 => vec![Err(error)],
        Err(error) => apart(store, &works, &error).await,
    };
    for (tell, outcome) in tells.into_iter().zip(outcomes) {
        drop(tell.send(outcome));
    }
}

/// Each alone; but where the database was not there, it says the same to all of them.
async fn apart<W: Grouped>(store: &Store, works: &[W], error: &W::Error) -> Vec<Result<W::Done, W::Error>> {
    if W::store_error(error).is_some_and(StoreError::is_lost_connection) {
        tracing::warn!(%error, work = works.len(), "the database was lost");
        let why = error.to_string();
        return works.iter().map(|_| Err(StoreError::unavailable(&why).into())).collect();
    }
    tracing::debug!(%error, work = works.len(), "shared work failed; each alone now");
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        let done = together(store, std::slice::from_ref(work)).await;
        outcomes.push(done.and_then(|mut done| {
            done.pop().ok_or_else(|| StoreError::unavailable("no outcome came back").into())
        }));
    }
    outcomes
}

async fn together<W: Grouped>(store: &Store, works: &[W]) -> Result<Vec<W::Done>, W::Error> {
    let done = store.in_time(W::together(store, works)).await?;
    if done.len() == works.len() {
        return Ok(done);
    }
    Err(StoreError::unavailable(format!("{} outcomes of {}", done.len(), works.len())).into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::postgres::PgConnectOptions;

    use super::super::StoreConfig;
    use super::*;

    /// Its double; 13 is refused, and with it the whole group.
    #[derive(Debug)]
    struct Double(u32);

    impl Grouped for Double {
        type Done = (u32, usize);
        type Error = StoreError;

        async fn together(_: &Store, group: &[Self]) -> Result<Vec<(u32, usize)>, StoreError> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if group.iter().any(|double| double.0 == 13) {
                return Err(StoreError::unstorable("number", "it is 13"));
            }
            Ok(group.iter().map(|double| (double.0 * 2, group.len())).collect())
        }

        fn store_error(error: &StoreError) -> Option<&StoreError> {
            Some(error)
        }
    }

    fn group() -> Group<Double> {
        let nowhere = PgConnectOptions::new().socket("/nonexistent").username("nobody");
        Group::start(&Store::connect(nowhere, &StoreConfig::default()), 1)
    }

    #[tokio::test]
    async fn what_waits_is_done_together_and_told_apart() {
        let group = group();
        let outcomes = futures_util::future::join_all((0..10).map(|n| group.ask(Double(n)))).await;
        let mut sizes = Vec::new();
        for (n, outcome) in (0..).zip(outcomes) {
            let (double, size) = outcome.expect("done");
            assert_eq!(double, n * 2);
            sizes.push(size);
        }
        assert!(sizes.iter().any(|size| *size > 1), "{sizes:?}");
    }

    #[tokio::test]
    async fn what_one_does_wrong_is_not_the_others_fault() {
        let group = group();
        let outcomes = futures_util::future::join_all((10..16).map(|n| group.ask(Double(n)))).await;
        for (n, outcome) in (10..).zip(outcomes) {
            assert_eq!(outcome.is_ok(), n != 13, "{n}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn who_has_left_is_not_worked_for() {
        let group = group();
        let (first, gone) = (group.ask(Double(1)), group.ask(Double(13)));
        let left = tokio::time::timeout(Duration::from_millis(5), gone);
        let (first, left) = tokio::join!(first, left);
        assert!(left.is_err());
        assert_eq!(first.expect("done"), (2, 1));
        assert_eq!(group.ask(Double(2)).await.expect("done"), (4, 1));
    }
}
