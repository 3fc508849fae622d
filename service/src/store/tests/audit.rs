//! Audit entries come back so exactly that their leaf hashes can be recomputed.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::canonical::to_string as canonical;
use crate::store::audit::{Entry, Filter, append, leaf_hash, page};
use crate::store::testing::{at, entry, with_database};
use crate::store::{Cursor, StoreError};

#[test]
fn the_leaf_is_what_the_doc_comment_says() {
    let mut entry = entry("p", "verdict.recorded", "t");
    entry.id = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    entry.detail = json!({"b": [1, 1.5, null, "ä\n\u{0}"], "a": {"z": true, "é": 1, "Z": 2}});
    let text = concat!(
        r#"{"act":"verdict.recorded","actor":"key:test","at":"2026-11-24T12:00:00.123456Z","#,
        r#""detail":{"a":{"Z":2,"z":true,"é":1},"b":[1,1.5,null,"ä\n\u0000"]},"#,
        r#""hashes":{"content":"sha256:00"},"id":"01900000-0000-7000-8000-000000000001","#,
        r#""project":"p","target":"t"}"#
    );
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(text);
    assert_eq!(leaf_hash(&entry).expect("hashes"), <[u8; 32]>::from(hasher.finalize()));
    assert_eq!(canonical(&json!({"b": {}, "a": []})), r#"{"a":[],"b":{}}"#);
}

#[tokio::test]
async fn what_is_read_back_gives_the_same_leaf() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let mut difficult = entry("p", "policy.activated", "x");
        difficult.target = None;
        difficult.detail = json!({
            "z": "zero \u{0}", "a": {"é": 0.300_000_000_000_000_04, "e": -0.0, "n": u64::MAX},
            "list": [1e2, 1e300, 5e-324, i64::MIN, "😀\u{2028}\\\""],
        });
        let written = [entry("p", "verdict.recorded", "x"), difficult];
        append(&mut conn, &written).await.expect("appends");
        append(&mut conn, &[]).await.expect("nothing is no mistake");
        let read = page(&mut conn, "p", &Filter::default(), None, 10).await.expect("reads").data;
        assert_eq!(read.iter().map(|recorded| recorded.seq).collect::<Vec<_>>(), [1, 0], "in their order");
        for (recorded, written) in read.iter().rev().zip(&written) {
            assert_eq!(&recorded.entry, written);
            assert_eq!(leaf_hash(&recorded.entry).expect("hashes"), recorded.leaf_hash);
        }
        // Behind the functions' back: the characters on record are the canonical ones.
        let detail: String = sqlx::query_scalar("select detail::text from audit where seq = 1")
            .fetch_one(&mut conn)
            .await
            .expect("reads");
        assert_eq!(detail, canonical(&written[1].detail));
        let bad = Entry { detail: json!("text"), ..written[0].clone() };
        assert!(matches!(append(&mut conn, &[bad]).await, Err(StoreError::Unstorable { .. })));
        let bad = Entry { actor: "a\0b".into(), ..written[0].clone() };
        assert!(matches!(append(&mut conn, &[bad]).await, Err(StoreError::Unstorable { .. })));
    })
    .await;
}

#[tokio::test]
async fn pages_and_filters() {
    with_database(async |db| {
        let mut conn = db.service().await;
        for index in 0..7 {
            let mut entry = entry("p", if index % 2 == 0 { "even" } else { "odd" }, &format!("t{index}"));
            entry.at += time::Duration::seconds(index);
            entry.actor = format!("key:{}", index % 3);
            append(&mut conn, &[entry]).await.expect("appends");
        }
        append(&mut conn, &[entry("q", "even", "t0")]).await.expect("appends");
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = page(&mut conn, "p", &Filter::default(), cursor, 3).await.expect("a page");
            seen.extend(page.data.iter().map(|recorded| recorded.seq));
            // What comes in meanwhile does not shift the pages.
            append(&mut conn, &[entry("p", "late", "t")]).await.expect("appends");
            match page.next_cursor {
                None => break,
                Some(next) => cursor = Some(next.to_string().parse::<Cursor>().expect("its own text")),
            }
        }
        assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
        let second = at("2026-11-24T12:00:02.123456Z");
        for (filter, expected) in [
            (Filter { act: Some("odd".into()), ..Filter::default() }, vec![5, 3, 1]),
            (Filter { actor: Some("key:2".into()), ..Filter::default() }, vec![5, 2]),
            (Filter { target: Some("t4".into()), ..Filter::default() }, vec![4]),
            (Filter { since: Some(second), act: Some("even".into()), ..Filter::default() }, vec![6, 4, 2]),
            (Filter { until: Some(second), act: Some("even".into()), ..Filter::default() }, vec![0]),
        ] {
            let found = page(&mut conn, "p", &filter, None, 200).await.expect("a page").data;
            let found: Vec<i64> = found.iter().map(|recorded| recorded.seq).collect();
            assert_eq!(found, expected, "{filter:?}");
        }
    })
    .await;
}
