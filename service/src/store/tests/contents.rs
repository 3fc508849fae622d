//! What is kept, for how long, and what is let go.

use time::{Duration, OffsetDateTime};

use crate::store::admission::{self, Look};
use crate::store::contents::{Kept, Seen, expired, forget_bytes, kept, upsert};
use crate::store::testing::{at, hash, verdict, with_database};
use crate::store::{PgConnection, Result, Sha256};
use crate::verdict::{Content, Extent, Facts};

fn now() -> OffsetDateTime {
    at("2026-11-24T12:00:00.123456Z")
}

fn content(seed: u8) -> Content {
    verdict("p", now(), hash(seed)).content
}

fn with_pdq(mut content: Content) -> Content {
    if let Extent::Image(image) = &mut content.extent {
        image.pdq = Some("ab".repeat(32));
    }
    content
}

fn until(days: i64) -> Kept {
    Kept { at: format!("file:{days}"), until: now() + Duration::days(days) }
}

async fn see(conn: &mut PgConnection, content: &Content, kept: Option<&Kept>) -> Result<()> {
    upsert(conn, &[Seen { content, kept, facts: None, at: now() }]).await
}

/// What the first look at a submission finds of the bytes.
async fn facts(conn: &mut PgConnection, sha256: &Sha256, pipeline: &'static str) -> Result<Option<Facts>> {
    let look = Look {
        project: "p".to_owned(),
        route: "",
        idempotency_key: None,
        sha256: *sha256,
        pipeline,
        now: now(),
    };
    Ok(admission::look(conn, &[look]).await?.remove(0).facts)
}

/// Uploads that share a transaction may be of the same bytes.
#[tokio::test]
async fn the_same_bytes_twice_in_one_statement_are_one_row_with_the_longest_wish() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let hashed = with_pdq(content(1));
        let (one, other) = (content(1), content(2));
        let wishes = [until(5), until(30)];
        let seen = |content, kept| Seen { content, kept, facts: None, at: now() };
        let all = [
            seen(&one, Some(&wishes[0])),
            seen(&other, None),
            seen(&hashed, None),
            seen(&one, Some(&wishes[1])),
        ];
        for _ in 0..2 {
            upsert(&mut conn, &all).await.expect("inserts");
            assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), Some(until(30)));
            assert_eq!(kept(&mut conn, &hash(2)).await.expect("reads"), None);
            let with_pdq: i64 = sqlx::query_scalar("select count(pdq) from contents")
                .fetch_one(&mut conn)
                .await
                .expect("counts");
            assert_eq!(with_pdq, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn the_longest_wish_wins() {
    with_database(async |db| {
        let mut conn = db.service().await;
        see(&mut conn, &content(1), None).await.expect("inserts");
        assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), None);
        for (wish, expected) in [
            (Some(until(10)), until(10)),
            (None, until(10)),
            (Some(until(5)), until(10)),
            (Some(until(30)), until(30)),
        ] {
            see(&mut conn, &content(1), wish.as_ref()).await.expect("updates");
            assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), Some(expected));
        }
        let hashed = with_pdq(content(1));
        let found = Facts { content: hashed.clone(), doubts: Vec::new() };
        let seen =
            |pipeline| Seen { content: &hashed, kept: None, facts: Some((&found, pipeline)), at: now() };
        assert_eq!(facts(&mut conn, &hash(1), "media-1").await.expect("reads"), None);
        for pipeline in ["media-1", "media-1", "media-2"] {
            upsert(&mut conn, &[seen(pipeline)]).await.expect("updates");
            assert_eq!(facts(&mut conn, &hash(1), pipeline).await.expect("reads"), Some(found.clone()));
        }
        // Another version has to look for itself.
        assert_eq!(facts(&mut conn, &hash(1), "media-1").await.expect("reads"), None);
        let pdq: Vec<u8> =
            sqlx::query_scalar("select pdq from contents").fetch_one(&mut conn).await.expect("reads");
        assert_eq!(pdq, [0xab; 32]);
        assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), Some(until(30)));
    })
    .await;
}

#[tokio::test]
async fn what_is_over_is_let_go_and_what_is_held_is_not() {
    with_database(async |db| {
        let mut conn = db.service().await;
        for (seed, kept) in [(1, Some(until(2))), (2, Some(until(1))), (3, Some(until(3))), (4, None)] {
            see(&mut conn, &content(seed), kept.as_ref()).await.expect("inserts");
        }
        let held = "update contents set legal_hold = true where sha256 = $1";
        sqlx::query(held).bind(hash(1)).execute(&mut conn).await.expect("holds");
        let later = now() + Duration::days(2);
        assert_eq!(expired(&mut conn, later, 10).await.expect("lists"), [(hash(2), until(1))]);
        for (seed, gone) in [(1, false), (2, true), (2, false), (3, false), (4, false), (9, false)] {
            assert_eq!(forget_bytes(&mut conn, &hash(seed), later).await.expect("asks"), gone, "{seed}");
        }
        assert_eq!(expired(&mut conn, later, 10).await.expect("lists"), []);
        assert_eq!(kept(&mut conn, &hash(2)).await.expect("reads"), None);
        let much_later = now() + Duration::days(9);
        assert_eq!(expired(&mut conn, much_later, 1).await.expect("lists"), [(hash(3), until(3))]);

        // Two sweepers share the work.
        let store = db.store();
        let (mut one, mut two) = (store.begin().await.expect("begins"), store.begin().await.expect("begins"));
        assert_eq!(expired(&mut one, much_later, 10).await.expect("lists").len(), 1);
        assert_eq!(expired(&mut two, much_later, 10).await.expect("lists"), []);
    })
    .await;
}
