//! Group commit: verdicts that are ready while a transaction is under way share the next one.
//!
//! A disk makes some hundred commits durable a second; what waits for one is recorded with the next, all
//! at once. A lone verdict waits for nobody. What one of them does wrong is not the others' fault: a
//! transaction that fails in a statement is done again for each alone.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::ModerateError;
use super::record::{Recording, commit};
use crate::store::idempotency::Recorded;
use crate::store::{Store, StoreError};
use crate::verdict::Verdict;

/// Transactions at once: while one waits for the disk the next one is prepared.
const WRITERS: usize = 2;

/// Verdicts a transaction; more would make the first one wait for the last.
const BATCH_MAX: usize = 64;

/// Verdicts waiting for a transaction; bounded by the submissions worked on at once, so never reached.
const WAITING_MAX: usize = 4096;

type Told = Result<Result<Verdict, Recorded>, ModerateError>;

struct Pending {
    recording: Recording,
    tell: oneshot::Sender<Told>,
}

pub(super) struct Recorder {
    pending: mpsc::Sender<Pending>,
}

impl Recorder {
    /// The writers end when it is dropped and nothing waits any more.
    pub(super) fn start(store: &Store) -> Self {
        let (pending, waiting) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WRITERS {
            let (store, waiting) = (store.clone(), Arc::clone(&waiting));
            tokio::spawn(async move {
                while let Some(batch) = next(&waiting).await {
                    write(&store, batch).await;
                }
            });
        }
        Self { pending }
    }

    /// What stands on record, when it does; or, as the inner error, what another request recorded under
    /// the same idempotency key in the meantime. Where the caller has left it may be recorded all the same.
    #[tracing::instrument(name = "record", skip_all)]
    pub(super) async fn record(&self, recording: Recording) -> Told {
        let (tell, told) = oneshot::channel();
        let ended = || ModerateError::Store(StoreError::unavailable("the writers have ended"));
        self.pending.send(Pending { recording, tell }).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

async fn next(waiting: &Mutex<mpsc::Receiver<Pending>>) -> Option<Vec<Pending>> {
    let mut waiting = waiting.lock().await;
    let mut batch = Vec::new();
    (waiting.recv_many(&mut batch, BATCH_MAX).await > 0).then_some(batch)
}

async fn write(store: &Store, batch: Vec<Pending>) {
    let (recordings, tells): (Vec<Recording>, Vec<oneshot::Sender<Told>>) =
        batch.into_iter().map(|pending| (pending.recording, pending.tell)).unzip();
    // Whoever has left meanwhile needs no answer.
    let tell = |tell: oneshot::Sender<Told>, told: Told| drop(tell.send(told));
    match store.in_time(commit(store, &recordings)).await {
        Ok(outcomes) => {
            for (to, outcome) in tells.into_iter().zip(outcomes) {
                tell(to, Ok(outcome));
            }
        }
        Err(error) if recordings.len() == 1 => {
            if let Some(to) = tells.into_iter().next() {
                tell(to, Err(error));
            }
        }
        Err(ModerateError::Store(error)) if error.is_lost_connection() => {
            let why = error.to_string();
            tracing::warn!(error = %error, verdicts = recordings.len(), "verdicts could not be recorded");
            for to in tells {
                tell(to, Err(ModerateError::Store(StoreError::unavailable(&why))));
            }
        }
        Err(error) => {
            tracing::debug!(%error, verdicts = recordings.len(), "a shared transaction failed; each alone now");
            for (recording, to) in recordings.into_iter().zip(tells) {
                let alone = store.in_time(commit(store, std::slice::from_ref(&recording))).await;
                let told = alone.and_then(|outcomes| {
                    let outcome = outcomes.into_iter().next();
                    outcome
                        .ok_or_else(|| ModerateError::Store(StoreError::unavailable("no outcome came back")))
                });
                tell(to, told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{hash, judgement, rows, verdict, with_database};
    use crate::store::verdicts::Provenance;
    use crate::timestamp;

    fn recording(seed: u8) -> Recording {
        let verdict = verdict("p", timestamp::now(), hash(seed));
        Recording {
            requested: verdict.policies.iter().map(|answer| answer.policy.clone()).collect(),
            verdict,
            sha256: hash(seed),
            kept: None,
            facts: None,
            judgements: Vec::new(),
            provenance: Provenance::default(),
            idempotency: None,
            fingerprint: hash(seed),
            actor: "key:1".to_owned(),
            request_id: "1".to_owned(),
        }
    }

    /// All in one transaction; what each was told.
    async fn written(store: &Store, recordings: Vec<Recording>) -> Vec<Told> {
        let (batch, told): (Vec<Pending>, Vec<_>) = recordings
            .into_iter()
            .map(|recording| {
                let (tell, told) = oneshot::channel();
                (Pending { recording, tell }, told)
            })
            .unzip();
        write(store, batch).await;
        let mut all = Vec::new();
        for told in told {
            all.push(told.await.expect("everybody is told"));
        }
        all
    }

    #[tokio::test]
    async fn what_one_does_wrong_is_not_the_others_fault() {
        with_database(async |db| {
            let store = db.store();
            let mut all: Vec<Recording> = (0..8).map(recording).collect();
            // A judge that nobody made known: its statement fails, and the transaction with it.
            all[3].judgements = vec![judgement(99, 1, 0.5)];
            let ids: Vec<_> = all.iter().map(|it| it.verdict.id).collect();
            let told = written(&store, all).await;
            for (at, (told, id)) in told.iter().zip(&ids).enumerate() {
                match told {
                    Ok(Ok(verdict)) if at != 3 => assert_eq!(verdict.id, *id),
                    Err(ModerateError::Store(StoreError::Inconsistent { .. })) if at == 3 => {}
                    other => panic!("{at}: {other:?}"),
                }
            }
            let mut conn = db.service().await;
            for table in ["verdicts", "audit"] {
                assert_eq!(rows(&mut conn, table).await, 7, "{table}");
            }
        })
        .await;
    }

    /// The first one has it, the second is told so; nothing of the second is on record.
    #[tokio::test]
    async fn of_two_with_one_idempotency_key_in_one_transaction_one_is_recorded() {
        with_database(async |db| {
            let store = db.store();
            let mut all: Vec<Recording> = (0..3).map(recording).collect();
            all[0].idempotency = Some(("POST /v1/images", "same".to_owned()));
            all[2].idempotency = Some(("POST /v1/images", "same".to_owned()));
            let first = all[0].verdict.id;
            let told = written(&store, all).await;
            assert!(matches!(&told[0], Ok(Ok(verdict)) if verdict.id == first), "{:?}", told[0]);
            assert!(matches!(&told[1], Ok(Ok(_))), "{:?}", told[1]);
            assert!(matches!(&told[2], Ok(Err(earlier)) if earlier.verdict_id == first), "{:?}", told[2]);
        })
        .await;
    }
}
