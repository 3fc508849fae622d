//! What goes into `verdicts` comes out again, page by page too.

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::super::testing::{answer, at, hash, id_at, unavailable, verdict, with_database};
use super::super::{Conflict, Cursor, Store, StoreError};
use super::{Filter, Provenance, by_id, insert, page};
use crate::verdict::{
    Action, ErrorNote, Extent, Form, FrameAt, ImageExtent, JudgeNotRun, Outcome, Status, TextExtent,
    Thresholds, Verdict, WindowAt, Worst,
};

fn now() -> OffsetDateTime {
    at("2026-11-24T12:00:00.123456Z")
}

async fn put(conn: &mut PgConnection, verdict: &Verdict) {
    insert(conn, &[(verdict, &Provenance::default())]).await.expect("inserts");
}

async fn comes_back(conn: &mut PgConnection, verdict: &Verdict) {
    put(conn, verdict).await;
    let read = by_id(conn, &verdict.project, verdict.id).await.expect("reads").expect("is there");
    assert_eq!(&read, verdict);
    let wire = |verdict: &Verdict| serde_json::to_string(verdict).expect("serialises");
    assert_eq!(wire(&read), wire(verdict), "to the character");
}

#[tokio::test]
async fn every_variant_comes_back() {
    with_database(async |db| {
        let mut conn = db.service().await;
        comes_back(&mut conn, &verdict("default", now(), hash(1))).await;

        let mut text = verdict("default", now(), hash(9));
        text.content.media_type = "text/plain".into();
        text.content.extent = Extent::Text(TextExtent { characters: 1 << 40 });
        text.policies[0].judges[0].worst =
            Some(Worst::Window(WindowAt { start: 480, end: 1 << 40, form: Form::Folded }));
        comes_back(&mut conn, &text).await;

        let mut full = verdict("p", now(), hash(2));
        full.status = Status::Failed;
        full.action = Action::Block;
        full.cached = true;
        full.reference = Some("Ärger/1 😀".into());
        full.source = "rescan".into();
        full.content.bytes = u64::try_from(i64::MAX).expect("positive");
        full.content.extent = Extent::Image(ImageExtent {
            pdq: Some("0f".repeat(32)),
            pdq_quality: Some(100),
            width: u32::MAX,
            height: 480,
            frames_total: 40,
            frames_scored: 1,
            frames_distinct: Some(u32::MAX),
            trailing_bytes: Some(7),
        });
        full.policies_not_run = Vec::new();
        full.policies = Vec::new();
        for (index, outcome) in [Outcome::Judged, Outcome::Recalled, Outcome::Shadow].into_iter().enumerate()
        {
            let mut judged = answer(&format!("z{}", 9 - index), 0.1);
            judged.outcome = outcome;
            judged.action = Action::Allow;
            full.policies.push(judged);
        }
        let mut shadow_failed = answer("z9", 0.1);
        shadow_failed.version = "v2".into();
        shadow_failed.outcome = Outcome::Shadow;
        shadow_failed.probability = None;
        shadow_failed.thresholds = None;
        full.policies.push(shadow_failed);
        let mut on_error = answer("on_error", 0.0);
        on_error.outcome = Outcome::OnError;
        on_error.probability = None;
        on_error.error = Some(ErrorNote { code: "judge_timed_out".into(), message: "after `250 ms`".into() });
        on_error.judges[0].probability = None;
        on_error.judges[0].action = None;
        on_error.judges[0].worst =
            Some(Worst::Frame(FrameAt { frame: u32::MAX, at_ms: 1 << 52, background: None }));
        on_error.judges[0].error = on_error.error.clone();
        on_error.judges_not_run = vec![JudgeNotRun { name: "b".into(), reason: "\u{0}".into() }];
        full.policies.push(on_error);
        let mut overridden = answer("overridden", 0.0);
        overridden.outcome = Outcome::Override;
        overridden.probability = None;
        overridden.thresholds = None;
        overridden.judges = Vec::new();
        overridden.override_id = Some(Uuid::now_v7());
        full.policies.push(overridden);
        comes_back(&mut conn, &full).await;

        let mut bare = verdict("default", now(), hash(1));
        bare.policies = Vec::new();
        comes_back(&mut conn, &bare).await;
    })
    .await;
}

#[tokio::test]
async fn metadata_comes_back_to_the_character() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let mut submitted = verdict("default", now(), hash(1));
        let mut nested = json!("bottom");
        for _ in 0..100 {
            nested = json!([nested]);
        }
        submitted.metadata = json!({
            "zero\u{0}key": "zero \u{0} character", "unicode": "日本 😀 \u{2028} \u{7f} \"\\", "": null,
            "u64": u64::MAX, "i64": i64::MIN, "float": 0.300_000_000_000_000_04, "integral": 1e2,
            "tiny": 5e-324, "huge": f64::MAX, "negative zero": -0.0, "beyond u64": 1e25, "nested": nested,
        });
        comes_back(&mut conn, &submitted).await;
        submitted.id = id_at(now());
        submitted.metadata =
            serde_json::from_str::<Value>(r#"{"a":123456789012345678901234567890,"b":1.7e-300}"#)
                .expect("parses");
        comes_back(&mut conn, &submitted).await;
        submitted.id = id_at(now());
        submitted.metadata = json!([1]);
        let refused = insert(&mut conn, &[(&submitted, &Provenance::default())]).await;
        assert!(matches!(refused, Err(StoreError::Unstorable { what: "metadata", .. })));
    })
    .await;
}

#[tokio::test]
async fn probabilities_and_thresholds_come_back_to_the_bit() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let mut submitted = verdict("default", now(), hash(1));
        // Any generator would do; this one is the same in every run.
        let mut bits = 0x2545_f491_u32;
        let mut next = || {
            bits ^= bits << 13;
            bits ^= bits >> 17;
            bits ^= bits << 5;
            f32::from_bits(bits % (1.0_f32.to_bits() + 1))
        };
        let edges = [0.0, 1.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::EPSILON, 0.1, 1.0_f32.next_down()];
        let values = edges.into_iter().chain((0..2000).map(|_| next()));
        submitted.policies = values
            .enumerate()
            .map(|(index, p)| {
                let mut answer = answer(&format!("p{index}"), p);
                answer.thresholds = Some(Thresholds { review: p / 3.0, block: p });
                answer.judges[0].thresholds = Thresholds { review: p / 3.0, block: p };
                answer
            })
            .collect();
        put(&mut conn, &submitted).await;
        let read = by_id(&mut conn, "default", submitted.id).await.expect("reads").expect("is there");
        for (read, written) in read.policies.iter().zip(&submitted.policies) {
            let bits = |p: Option<f32>| p.map(f32::to_bits);
            assert_eq!(bits(read.probability), bits(written.probability));
            assert_eq!(bits(read.judges[0].probability), bits(written.probability));
        }
        assert_eq!(read, submitted);
        // Behind the functions' back: who decided stands beside it.
        let decided: i64 =
            sqlx::query_scalar("select count(*) from verdict_policies where decided_by = 'opennsfw'")
                .fetch_one(&mut conn)
                .await
                .expect("counts");
        assert_eq!(decided, 2007);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let good = verdict("default", now(), hash(1));
        let refused = async |conn: &mut PgConnection, change: fn(&mut Verdict)| {
            let mut bad = good.clone();
            change(&mut bad);
            // In a transaction, as always: a part that went well must not stay.
            let mut transaction = conn.begin().await.expect("begins");
            insert(&mut transaction, &[(&bad, &Provenance::default())]).await.expect_err("refused")
        };
        for change in [
            (|v| v.reference = Some("a\0b".into())) as fn(&mut Verdict),
            |v| v.status = Status::Pending,
            |v| v.id = Uuid::nil(),
            |v| v.created_at -= Duration::days(3),
            |v| v.content.sha256 = "AB".repeat(32),
            |v| v.content.sha256 = "é".repeat(32),
            |v| v.content.bytes = u64::MAX,
            |v| v.policies[0].judges[0].probability = Some(f32::NAN),
            |v| v.policies[0].judges[0].thresholds.block = f32::INFINITY,
            |v| v.policies.push(v.policies[0].clone()),
        ] {
            let error = refused(&mut conn, change).await;
            assert!(matches!(error, StoreError::Unstorable { .. }), "{error:?}");
        }
        // Mistakes of ours, which the tables do not take either.
        for change in [
            (|v| v.policies[0].probability = Some(f32::NAN)) as fn(&mut Verdict),
            |v| v.policies[0].probability = Some(1.5),
            // Nothing silently safe.
            |v| v.policies[0].probability = None,
            |v| v.policies[0].outcome = Outcome::OnError,
            |v| v.policies[0].outcome = Outcome::Override,
            |v| v.policies[0].thresholds = Some(Thresholds { review: 0.9, block: 0.1 }),
            |v| v.policies[0].thresholds = Some(Thresholds { review: 0.1, block: f32::NAN }),
        ] {
            let error = refused(&mut conn, change).await;
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        }
        put(&mut conn, &good).await;
        let error = refused(&mut conn, |_| ()).await;
        assert!(matches!(error, StoreError::Conflict { conflict: Conflict::Verdict, .. }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_failed_statement_voids_the_transaction() {
    with_database(async |db| {
        let store = db.store();
        let first = verdict("default", now(), hash(1));
        let mut transaction = store.begin().await.expect("begins");
        put(&mut transaction, &first).await;
        let mut bad = verdict("default", now(), hash(1));
        bad.policies[0].probability = Some(2.0);
        assert!(unavailable(insert(&mut transaction, &[(&bad, &Provenance::default())]).await));
        let again = verdict("default", now(), hash(1));
        assert!(unavailable(insert(&mut transaction, &[(&again, &Provenance::default())]).await));
        assert!(unavailable(Store::commit(transaction).await), "whoever swallowed the errors is told here");
        let mut conn = store.acquire().await.expect("connects");
        assert_eq!(by_id(&mut conn, "default", first.id).await.expect("reads"), None);
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_row_says_where_it_is() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        let mut submitted = verdict("default", now(), hash(1));
        submitted.policies = Vec::new();
        put(&mut owner, &submitted).await;
        sqlx::query(
            "insert into verdict_policies (verdict_id, project, position, policy, version, outcome, action,
                                           probability, judges, judges_not_run)
             values ($1, 'default', 0, 'p', 'v', 'judged', 'allow', 0.5, '[1]', '[]')",
        )
        .bind(submitted.id)
        .execute(&mut owner)
        .await
        .expect("inserts");
        let error = by_id(&mut owner, "default", submitted.id).await.expect_err("cannot be read");
        let StoreError::Inconsistent { table, column, row, .. } = error else { panic!("{error:?}") };
        assert_eq!((table, column, row), ("verdict_policies", "judges", format!("{}/p/v", submitted.id)));
    })
    .await;
}

async fn all_pages(conn: &mut PgConnection, filter: &Filter, limit: u32) -> Vec<Uuid> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = page(conn, "default", filter, cursor, limit).await.expect("a page");
        assert!(page.data.len() <= usize::try_from(limit).expect("small"));
        ids.extend(page.data.iter().map(|verdict| verdict.id));
        match page.next_cursor {
            None => return ids,
            Some(next) => cursor = Some(next.to_string().parse::<Cursor>().expect("its own text")),
        }
    }
}

#[tokio::test]
async fn pages_cross_a_month_with_equal_times_and_do_not_shift() {
    with_database(async |db| {
        let mut conn = db.service().await;
        // Five each in the last and in the first millisecond, one far from any partition.
        let mut ids = Vec::new();
        for time in ["2026-11-30T23:59:59.999Z", "2026-12-01T00:00:00Z"] {
            for _ in 0..5 {
                let submitted = verdict("default", at(time), hash(1));
                put(&mut conn, &submitted).await;
                ids.push(submitted.id);
            }
        }
        let lost = verdict("default", at("2040-01-01T00:00:00Z"), hash(1));
        put(&mut conn, &lost).await;
        ids.push(lost.id);
        put(&mut conn, &verdict("other", at("2026-12-01T00:00:00Z"), hash(1))).await;
        ids.sort_unstable();
        ids.reverse();
        for limit in [1, 2, 3, 11, 200] {
            assert_eq!(all_pages(&mut conn, &Filter::default(), limit).await, ids);
        }
        let holders: Vec<String> =
            sqlx::query_scalar("select distinct tableoid::regclass::text from verdicts order by 1")
                .fetch_all(&mut conn)
                .await
                .expect("reads");
        assert_eq!(holders, ["verdicts_2026_11", "verdicts_2026_12", "verdicts_default"]);

        let first = page(&mut conn, "default", &Filter::default(), None, 4).await.expect("a page");
        put(&mut conn, &verdict("default", at("2041-01-01T00:00:00Z"), hash(1))).await;
        let second =
            page(&mut conn, "default", &Filter::default(), first.next_cursor, 4).await.expect("a page");
        let seen: Vec<Uuid> = first.data.iter().chain(&second.data).map(|verdict| verdict.id).collect();
        assert_eq!(seen, ids[..8]);
    })
    .await;
}

#[tokio::test]
async fn filters_narrow() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let mut old = verdict("default", now() - Duration::days(40), hash(1));
        old.action = Action::Allow;
        let mut blocked = verdict("default", now(), hash(2));
        blocked.action = Action::Block;
        blocked.reference = Some("item".into());
        blocked.source = "rescan".into();
        blocked.policies = vec![answer("sexual", 0.2), answer("violence", 0.9)];
        for submitted in [&old, &blocked] {
            put(&mut conn, submitted).await;
        }
        sqlx::query(
            "insert into review_decisions (verdict_id, id, project, decision, reason, reviewer, at)
             values ($1, $1, 'default', 'uphold', '', 'r', now())",
        )
        .bind(blocked.id)
        .execute(&mut conn)
        .await
        .expect("decides");
        let all = Filter::default();
        for (filter, expected) in [
            (all.clone(), vec![blocked.id, old.id]),
            (Filter { policy: Some("violence".into()), ..all.clone() }, vec![blocked.id]),
            (Filter { policy: Some("none".into()), ..all.clone() }, vec![]),
            (Filter { action: Some(Action::Block), ..all.clone() }, vec![blocked.id]),
            (Filter { action: Some(Action::Allow), ..all.clone() }, vec![old.id]),
            (Filter { action: Some(Action::Review), ..all.clone() }, vec![]),
            (Filter { source: Some("rescan".into()), ..all.clone() }, vec![blocked.id]),
            (Filter { since: Some(now()), ..all.clone() }, vec![blocked.id]),
            (Filter { until: Some(now()), ..all.clone() }, vec![old.id]),
            (
                Filter { since: Some(OffsetDateTime::UNIX_EPOCH - Duration::days(9)), ..all.clone() },
                vec![blocked.id, old.id],
            ),
            (Filter { sha256: Some(hash(1)), ..all.clone() }, vec![old.id]),
            (Filter { reference: Some("item".into()), ..all.clone() }, vec![blocked.id]),
            (Filter { min_probability: Some(0.9), ..all.clone() }, vec![blocked.id]),
            (
                Filter { policy: Some("sexual".into()), min_probability: Some(0.5), ..all.clone() },
                vec![old.id],
            ),
            (Filter { reviewed: Some(true), ..all.clone() }, vec![blocked.id]),
            (Filter { reviewed: Some(false), ..all.clone() }, vec![old.id]),
        ] {
            assert_eq!(all_pages(&mut conn, &filter, 1).await, expected, "{filter:?}");
        }
        let zero = Filter { reference: Some("\0".into()), ..all.clone() };
        let refused = page(&mut conn, "default", &zero, None, 9).await;
        assert!(matches!(refused, Err(StoreError::Unstorable { .. })), "{refused:?}");
        let foreign = Cursor::after_seq(super::super::cursor::List::Audit, 1);
        let refused = page(&mut conn, "default", &all, Some(foreign), 9).await;
        assert!(matches!(refused, Err(StoreError::Cursor(_))), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_verdict_is_its_projects_own() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let submitted = verdict("mine", now(), hash(1));
        let provenance = Provenance {
            key_id: Some(Uuid::now_v7()),
            subject_hash: Some(hash(9)),
            policy_generation: 5,
            rescan_id: Some(Uuid::now_v7()),
        };
        insert(&mut conn, &[(&submitted, &provenance)]).await.expect("inserts");
        assert_eq!(by_id(&mut conn, "yours", submitted.id).await.expect("reads"), None);
        assert_eq!(by_id(&mut conn, "mine", Uuid::now_v7()).await.expect("reads"), None);
        let kept: (Option<Uuid>, Option<Vec<u8>>, i64, Option<Uuid>) =
            sqlx::query_as("select key_id, subject_hash, policy_generation, rescan_id from verdicts")
                .fetch_one(&mut conn)
                .await
                .expect("reads");
        let expected =
            (provenance.key_id, provenance.subject_hash.map(|hash| hash.to_vec()), 5, provenance.rescan_id);
        assert_eq!(kept, expected);
        // A look-up by id meets one partition.
        let plan: Vec<String> = sqlx::query_scalar("explain select from verdicts where id = $1")
            .bind(submitted.id)
            .persistent(false)
            .fetch_all(&mut conn)
            .await
            .expect("explains");
        assert_eq!(plan.iter().filter(|line| line.contains("verdicts_")).count(), 1, "{plan:#?}");
        conn.execute("reset role").await.expect("resets");
    })
    .await;
}
