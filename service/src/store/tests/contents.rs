//! What is kept, for how long, and what is let go.

use time::{Duration, OffsetDateTime};

use crate::store::contents::{Kept, expired, forget_bytes, kept, upsert};
use crate::store::testing::{at, hash, verdict, with_database};
use crate::verdict::Content;

fn now() -> OffsetDateTime {
    at("2026-11-24T12:00:00.123456Z")
}

fn content(seed: u8) -> Content {
    verdict("p", now(), hash(seed)).content
}

fn until(days: i64) -> Kept {
    Kept { at: format!("file:{days}"), until: now() + Duration::days(days) }
}

#[tokio::test]
async fn the_longest_wish_wins() {
    with_database(async |db| {
        let mut conn = db.service().await;
        upsert(&mut conn, &content(1), "image", None, now()).await.expect("inserts");
        assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), None);
        for (wish, expected) in [
            (Some(until(10)), until(10)),
            (None, until(10)),
            (Some(until(5)), until(10)),
            (Some(until(30)), until(30)),
        ] {
            upsert(&mut conn, &content(1), "image", wish.as_ref(), now()).await.expect("updates");
            assert_eq!(kept(&mut conn, &hash(1)).await.expect("reads"), Some(expected));
        }
        let mut hashed = content(1);
        hashed.pdq = Some("ab".repeat(32));
        upsert(&mut conn, &hashed, "image", None, now()).await.expect("updates");
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
            upsert(&mut conn, &content(seed), "image", kept.as_ref(), now()).await.expect("inserts");
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
