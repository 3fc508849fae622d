//! What all fault tests stand on: judges that go wrong, policies that ask them, load, a look at the record.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use image::{GrayImage, Luma};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shieldgate_tests::{Answer, Caller, Gate, Setup, Upload, assets_with, samples};
use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Judged by every model without fault; `slow` takes its time above this.
pub(crate) const GREY: u8 = 128;
/// `slow` takes some 50 ms on an idle core.
pub(crate) const SLOW: u8 = 160;
/// `failing` fails, `not-a-number` gives NaN, `deaf` works for a second or two.
pub(crate) const WRONG: u8 = 240;
/// `deaf` works for three seconds, on an idle core, and hears nothing.
pub(crate) const DEAF: u8 = 243;
/// `slow` never ends.
pub(crate) const ENDLESS: u8 = 250;

/// A gate with some of the models in `tests/models` and no others, so that it starts in no time.
pub(crate) fn stage(models: &[&str]) -> Setup {
    let mut setup = Gate::with().flag("--assets", assets_with(&[]).display()).flag("--threads", 1);
    for model in models {
        setup = setup.model(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(model));
    }
    setup
}

/// A policy that asks `judges`; review from 0.4, block from 0.6.
pub(crate) fn policy(id: &str, judges: &[&str], on_error: &str) -> String {
    let judges: Vec<String> = judges
        .iter()
        .map(|judge| format!("  - name: {judge}\n    thresholds: {{review: 0.4, block: 0.6}}\n"))
        .collect();
    format!(
        "id: {id}\ntitle: For the fault tests\nmodality: image\ntext: What the fault tests ask.\njudges:\n{}\
         on_error: {on_error}\nwhen_missing: refuse\nframes: max\nopenai: []\n",
        judges.concat()
    )
}

/// A picture of one brightness, whose bytes no other test's picture has.
pub(crate) fn grey(level: u8) -> Vec<u8> {
    static SEED: AtomicU32 = AtomicU32::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    // Two bits a pixel: the mean stays where it is.
    let picture = GrayImage::from_fn(32, 32, |x, y| {
        let bit = 2 * (y * 32 + x);
        let noise = if bit < 32 { (seed >> bit) & 3 } else { 0 };
        Luma([level.saturating_sub(noise as u8)])
    });
    samples::png(&picture.into())
}

/// An upload that asks only `policies`.
pub(crate) fn upload(level: u8, policies: &str) -> Upload {
    Upload { bytes: grey(level), query: Some(format!("policies={policies}")), ..Upload::default() }
}

/// What one upload under load came to.
#[derive(Debug)]
pub(crate) enum Seen {
    Answered(Answer),
    /// The connection broke: the service was killed.
    Broken,
}

/// Clients that upload one picture after the other until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Seen>>,
}

impl Load {
    pub(crate) fn begin(caller: &Caller, clients: usize, upload: fn() -> Upload) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let (caller, stop) = (caller.clone(), Arc::clone(&stop));
            set.spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let next = match caller.try_upload(upload()).await {
                        Ok(answer) => Seen::Answered(answer),
                        Err(error) => {
                            assert!(!error.is_timeout(), "an upload was left without an answer: {error}");
                            Seen::Broken
                        }
                    };
                    if !matches!(&next, Seen::Answered(answer) if answer.status == 200) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    seen.push(next);
                }
                seen
            });
        }
        Self { stop, clients: set }
    }

    /// Everything that was answered or broken off.
    pub(crate) async fn end(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            seen.extend(client.expect("a client saw an answer that must not be"));
        }
        seen
    }
}

/// The verdicts among them, after a look at the others: `allowed` are the only other statuses.
pub(crate) fn verdicts(seen: &[Seen], allowed: &[u16]) -> Vec<Value> {
    let mut verdicts = Vec::new();
    for answer in
        seen.iter().filter_map(|seen| if let Seen::Answered(answer) = seen { Some(answer) } else { None })
    {
        match answer.status {
            200 => verdicts.push(answer.json.clone()),
            other => assert!(allowed.contains(&other), "{other}: {}", answer.text()),
        }
    }
    verdicts
}

pub(crate) fn count(seen: &[Seen], status: u16) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Answered(answer) if answer.status == status)).count()
}

/// Uploads until one is answered 200; panics past `patience`. Says how long it took.
pub(crate) async fn recovered(caller: &Caller, patience: Duration, make: impl Fn() -> Upload) -> Duration {
    let since = Instant::now();
    loop {
        let last = match caller.try_upload(make()).await {
            Ok(answer) if answer.status == 200 => return since.elapsed(),
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        assert!(since.elapsed() < patience, "no recovery within {patience:?}: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for `/readyz` to say so.
pub(crate) async fn ready(gate: &Gate, expected: u16, patience: Duration) -> Answer {
    let since = Instant::now();
    loop {
        let answer = gate.nobody().get("/readyz").await;
        if answer.status == expected {
            return answer;
        }
        assert!(since.elapsed() < patience, "/readyz stayed {}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[derive(sqlx::FromRow)]
struct Entry {
    id: Uuid,
    at: String,
    project: String,
    actor: String,
    act: String,
    target: Option<String>,
    hashes: String,
    detail: String,
    leaf_hash: Vec<u8>,
}

/// Each of `answered` stands in `verdicts`, with exactly one audit entry whose hashes are right.
pub(crate) async fn on_record(conn: &mut PgConnection, answered: &[Value]) {
    for verdict in answered {
        let id = verdict["id"].as_str().expect("a verdict has an id");
        let (action, policies): (String, i64) = sqlx::query_as(
            "select action, (select count(*) from verdict_policies where verdict_id = id) from verdicts where id = $1::uuid",
        )
        .bind(id)
        .fetch_optional(&mut *conn)
        .await
        .expect("Postgres answers")
        .unwrap_or_else(|| panic!("verdict {id} was answered and is not on record"));
        assert_eq!(verdict["action"], action.as_str(), "{id}");
        assert_eq!(verdict["policies"].as_array().map(Vec::len), usize::try_from(policies).ok(), "{id}");

        let entries: Vec<Entry> = sqlx::query_as(
            r#"select id, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, project, actor, act,
                      target, hashes::text, detail::text, leaf_hash
               from audit where target = $1"#,
        )
        .bind(id)
        .fetch_all(&mut *conn)
        .await
        .expect("Postgres answers");
        let [entry] = entries.as_slice() else { panic!("verdict {id} has {} audit entries", entries.len()) };
        assert_eq!(entry.act, "verdict.recorded");
        let hashes: Value = serde_json::from_str(&entry.hashes).expect("JSON");
        assert_eq!(hashes["verdict"], sha256_hex(canonical(verdict).as_bytes()), "{id}: {}", entry.hashes);
        assert_eq!(hashes["content"], verdict["content"]["sha256"], "{id}");
        for answer in verdict["policies"].as_array().into_iter().flatten() {
            let policy = answer["policy"].as_str().expect("a policy has an id");
            assert_eq!(hashes["policies"][policy], answer["version"], "{id}");
        }
        let detail: Value = serde_json::from_str(&entry.detail).expect("JSON");
        let leaf = canonical(&json!({
            "act": entry.act, "actor": entry.actor, "at": entry.at, "detail": detail, "hashes": hashes,
            "id": entry.id.to_string(), "project": entry.project, "target": entry.target,
        }));
        let leaf: Vec<u8> = Sha256::new().chain_update([0]).chain_update(leaf).finalize().to_vec();
        assert_eq!(leaf, entry.leaf_hash, "the leaf hash of {id}'s audit entry");
    }
}

/// How many rows each of the tables holds that an upload writes.
pub(crate) async fn rows(conn: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query_as(
        "select 'verdicts', count(*) from verdicts
         union all select 'verdict_policies', count(*) from verdict_policies
         union all select 'audit', count(*) from audit
         union all select 'judgements', count(*) from judgements
         union all select 'contents', count(*) from contents
         union all select 'idempotency', count(*) from idempotency",
    )
    .fetch_all(conn)
    .await
    .expect("Postgres answers")
}

/// Written here once more, so that a change of the service's own shows.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}:{}", json!(key), canonical(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    }
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
