//! SIGKILL under load, of the private Postgres and of the service: what was answered is on record.
//!
//! `SHIELDGATE_FAULT_ROUNDS` makes the loops longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use shieldgate_tests::{Caller, Gate, Upload};
use tokio::task::JoinSet;

use crate::stage::{GREY, Load, Seen, count, on_record, policy, recovered, stage, upload, verdicts};

/// Back-off of the watcher (at most 5 s), recovery and a busy machine.
const RECOVERY: Duration = Duration::from_secs(30);

fn rounds(usual: u32) -> u32 {
    std::env::var("SHIELDGATE_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

async fn with_steady() -> Gate {
    stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await
}

async fn another_postmaster(gate: &Gate, than: u32) -> u32 {
    let since = Instant::now();
    loop {
        match gate.postmaster_pid() {
            Some(pid) if pid != than => return pid,
            _ => assert!(since.elapsed() < RECOVERY, "no new postmaster within {RECOVERY:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients that send each picture under a key of its own until it is answered.
struct Retries {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Value>>,
}

impl Retries {
    fn begin(caller: &Caller, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for client in 0..clients {
            let (caller, stop) = (caller.clone(), Arc::clone(&stop));
            set.spawn(async move {
                let mut answered = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{client}-{}", answered.len());
                    let sent = Upload { idempotency_key: Some(key), ..upload(GREY, "alpha") };
                    loop {
                        let answer = caller.upload(sent.clone()).await;
                        match answer.status {
                            200 => break answered.push(answer.json),
                            other => assert_eq!(other, 503, "{}", answer.text()),
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                answered
            });
        }
        Self { stop, clients: set }
    }

    async fn end(self) -> Vec<Value> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn postgres_killed_under_load_is_503_and_then_200() {
    let gate = with_steady().await;
    let caller = gate.caller(&gate.key("moderate"));
    let service = gate.pid();
    let load = Load::begin(&caller, 8, || upload(GREY, "alpha"));
    let retries = Retries::begin(&caller, 4);
    for round in 0..rounds(4) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pid = gate.postmaster_pid().expect("it runs");
        // The postmaster, or (every other round) one of its backends, which takes all others with it.
        let victim = if round % 2 == 0 {
            pid
        } else {
            gate.postgres_pids().into_iter().find(|other| *other != pid).expect("it has processes")
        };
        gate.signal(victim, libc::SIGKILL);
        if victim == pid {
            another_postmaster(&gate, pid).await;
        }
        recovered(&caller, RECOVERY, || upload(GREY, "alpha")).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let retried = retries.end().await;
    let seen = load.end().await;
    assert!(seen.iter().all(|seen| matches!(seen, Seen::Answered(_))), "the service breaks no connection");
    let answered = verdicts(&seen, &[503]);
    assert!(count(&seen, 503) > 0, "nobody noticed");
    assert!(answered.len() > 5, "too little load to tell: {}", answered.len());
    assert_eq!(gate.pid(), service, "without a restart");
    on_record(&mut gate.owner().await, &answered).await;
    assert_eq!(gate.unaudited().await, Vec::<String>::new());
    // A commit whose answer was lost is found by the retry, never repeated.
    assert!(retried.len() > 5, "{}", retried.len());
    on_record(&mut gate.owner().await, &retried).await;
    for verdict in &retried {
        let count: i64 = sqlx::query_scalar("select count(*) from verdicts where sha256 = decode($1, 'hex')")
            .bind(verdict["content"]["sha256"].as_str())
            .fetch_one(&mut gate.owner().await)
            .await
            .expect("answers");
        assert_eq!(count, 1, "one key, one verdict: {verdict:#}");
    }
}

/// Alive, and answers nothing: no connection breaks, so only the service's own clock helps.
#[tokio::test]
async fn a_frozen_postgres_is_503_in_bounded_time() {
    let gate = with_steady().await;
    let caller = gate.caller(&gate.key("moderate"));
    let load = Load::begin(&caller, 8, || upload(GREY, "alpha"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let frozen = gate.postgres_pids();
    frozen.iter().for_each(|pid| gate.signal(*pid, libc::SIGSTOP));
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Everything that was under way ends while it is frozen: 3 s for a connection, 10 for a statement.
    let since = Instant::now();
    let seen = load.end().await;
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    assert!(count(&seen, 503) > 0, "nobody noticed");
    caller.upload(upload(GREY, "alpha")).await.refused(503, "database_unavailable");
    frozen.iter().for_each(|pid| gate.signal(*pid, libc::SIGCONT));
    recovered(&caller, RECOVERY, || upload(GREY, "alpha")).await;
    on_record(&mut gate.owner().await, &verdicts(&seen, &[503])).await;
}

#[tokio::test]
async fn the_service_killed_under_load_comes_back_with_everything_it_answered() {
    let mut gate = with_steady().await;
    let key = gate.key("moderate");
    let mut answered = Vec::new();
    for round in 0..rounds(3) {
        let load = Load::begin(&gate.caller(&key), 8, || upload(GREY, "alpha"));
        tokio::time::sleep(Duration::from_millis(700)).await;
        gate.kill().await;
        let orphan = gate.postmaster_pid();
        if round % 2 == 1 {
            // Gone as well: after a power cut nothing is left to adopt.
            if let Some(pid) = orphan {
                gate.signal(pid, libc::SIGKILL);
            }
        }
        let seen = load.end().await;
        answered.extend(verdicts(&seen, &[503]));
        gate.restart().await;
        if round % 2 == 0 {
            assert_eq!(gate.postmaster_pid(), orphan, "the orphaned Postgres is adopted");
        }
        recovered(&gate.caller(&key), RECOVERY, || upload(GREY, "alpha")).await;
        assert_eq!(gate.unaudited().await, Vec::<String>::new());
    }
    assert!(answered.len() > 5, "too little load to tell: {}", answered.len());
    on_record(&mut gate.owner().await, &answered).await;
    assert_eq!(gate.stop().await, Some(0));
}
