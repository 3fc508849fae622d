//! What must be done now and then: partitions ahead of need, expired keys and originals, orphaned files.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::media::keep::Keep;
use crate::store::{Store, contents, idempotency, partitions, quotas};
use crate::timestamp;

/// Often enough that nothing piles up, seldom enough that nobody notices.
const EVERY: Duration = Duration::from_secs(3600);

/// The first turn comes soon, for a service that is restarted often.
const SETTLED: Duration = Duration::from_secs(60);

/// Rows or files a step; the next one follows at once while there are more.
const BATCH: usize = 500;

/// A file younger than this may belong to a verdict that has not committed yet.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// An upload that asked for a file this lately may be about to record it.
const RENEWED: Duration = Duration::from_secs(600);

pub struct Housekeeping {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Housekeeping {
    pub fn start(store: Store, originals: Keep) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut wait = SETTLED;
            loop {
                tokio::select! {
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = EVERY;
                tokio::select! {
                    _ = stopped.changed() => return,
                    done = turn(&store, &originals) => {
                        if let Err(error) = done {
                            tracing::warn!(%error, "housekeeping was not finished; it goes on next time");
                        }
                    }
                }
            }
        });
        Self { stop, task }
    }

    pub async fn stop(self) {
        // Either may fail only where the task has ended by itself.
        self.stop.send(true).ok();
        self.task.await.ok();
    }
}

async fn turn(store: &Store, originals: &Keep) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let now = timestamp::now();
    let limit = i64::try_from(BATCH)?;
    let mut conn = store.acquire().await?;
    partitions(&mut conn).await;
    while idempotency::sweep(&mut conn, now, limit).await? == u64::try_from(BATCH)? {}
    // Yesterday's may still be given back to.
    quotas::sweep(&mut conn, (now - time::Duration::days(2)).date()).await?;
    loop {
        let expired = contents::expired(&mut conn, now, limit).await?;
        for (sha256, _) in &expired {
            // The record first: a file without a record is an orphan and found, a record without a file
            // lies. And not a file that an upload was told just now is kept.
            if contents::forget_bytes(&mut conn, sha256, now).await? {
                originals.remove_orphan(sha256, RENEWED).await?;
            }
        }
        if expired.len() < BATCH {
            break;
        }
    }
    drop(conn);
    let mut after = None;
    loop {
        let found = originals.sweep_orphans(ORPHAN_AGE, after, BATCH).await?;
        for sha256 in &found {
            let mut conn = store.acquire().await?;
            if contents::kept(&mut conn, sha256).await?.is_none() {
                originals.remove_orphan(sha256, ORPHAN_AGE).await?;
            }
        }
        after = found.last().copied();
        if found.len() < BATCH {
            return Ok(());
        }
    }
}

/// Makes what is missing; a partition that can't be made is an alarm, not an outage.
pub async fn partitions(conn: &mut PgConnection) {
    match partitions::ensure(conn, timestamp::now(), partitions::MONTHS_AHEAD).await {
        Ok(made) => {
            for partition in made.iter().filter(|made| made.refused.is_some()) {
                tracing::error!(
                    table = partition.table,
                    why = partition.refused,
                    "a partition can't be made"
                );
            }
        }
        Err(error) => tracing::error!(%error, "partitions could not be made ahead"),
    }
}
