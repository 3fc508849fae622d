//! Idempotency keys, overrides and the one look at both.

use std::time::Duration as Wait;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::store::admission::{Admission, Look, look};
use crate::store::idempotency::{self, Insertion, Key, Recorded};
use crate::store::overrides::{self, Filter, Override};
use crate::store::policies::{Named, State, import_draft, set_state};
use crate::store::testing::{at, hash, id_at, with_database};
use crate::store::{Conflict, PgConnection, Result, Store, StoreError};
use crate::verdict::Action;

fn now() -> OffsetDateTime {
    at("2026-11-24T12:00:00.123456Z")
}

const KEY: Key<'static> = Key { project: "p", route: "POST /v1/images", key: "k" };

fn recorded(seed: u8) -> Recorded {
    Recorded { fingerprint: hash(seed), verdict_id: Uuid::from_u128(u128::from(seed)) }
}

fn an_override(
    project: &str,
    sha256: Option<u8>,
    policy: Option<&str>,
    created_at: OffsetDateTime,
) -> Override {
    Override {
        id: id_at(created_at),
        project: project.to_owned(),
        sha256: sha256.map(hash),
        policy: policy.map(str::to_owned),
        action: Action::Block,
        reason: "seen by us".to_owned(),
        created_by: "key:1".to_owned(),
        created_at,
        expires_at: None,
        deleted_by: None,
        deleted_at: None,
    }
}

#[tokio::test]
async fn a_key_holds_for_a_day() {
    with_database(async |db| {
        let mut conn = db.service().await;
        assert_eq!(idempotency::find(&mut conn, KEY, now()).await.expect("asks"), None);
        let done = idempotency::insert(&mut conn, KEY, recorded(1), now()).await.expect("inserts");
        assert_eq!(done, Insertion::Inserted);
        let later = now() + Duration::hours(24) - Duration::MICROSECOND;
        let done = idempotency::insert(&mut conn, KEY, recorded(2), later).await.expect("asks");
        assert_eq!(done, Insertion::Taken(recorded(1)));
        for other in [Key { project: "q", ..KEY }, Key { route: "r", ..KEY }, Key { key: "l", ..KEY }] {
            assert_eq!(idempotency::find(&mut conn, other, now()).await.expect("asks"), None);
        }
        // Expired: gone for those who look, replaced by who comes next, swept otherwise.
        let expired = now() + Duration::hours(24);
        assert_eq!(idempotency::find(&mut conn, KEY, expired).await.expect("asks"), None);
        let done = idempotency::insert(&mut conn, KEY, recorded(3), expired).await.expect("inserts");
        assert_eq!(done, Insertion::Inserted);
        assert_eq!(idempotency::find(&mut conn, KEY, expired).await.expect("asks"), Some(recorded(3)));
        assert_eq!(idempotency::sweep(&mut conn, expired, 100).await.expect("sweeps"), 0);
        let swept = idempotency::sweep(&mut conn, expired + Duration::hours(24), 100).await.expect("sweeps");
        assert_eq!(swept, 1);
        let zero = Key { key: "a\0b", ..KEY };
        let refused = idempotency::insert(&mut conn, zero, recorded(1), now()).await;
        assert!(matches!(refused, Err(StoreError::Unstorable { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn of_two_at_once_one_has_the_key() {
    with_database(async |db| {
        let store = db.store();
        for first_commits in [true, false] {
            let key = Key { key: if first_commits { "commits" } else { "rolls back" }, ..KEY };
            let (mut one, mut two) =
                (store.begin().await.expect("begins"), store.begin().await.expect("begins"));
            let done = idempotency::insert(&mut one, key, recorded(1), now()).await.expect("inserts");
            assert_eq!(done, Insertion::Inserted);
            let second = idempotency::insert(&mut two, key, recorded(2), now());
            let first = async {
                tokio::time::sleep(Wait::from_millis(200)).await;
                if first_commits { Store::commit(one).await.expect("commits") } else { drop(one) }
            };
            let (second, ()) = tokio::join!(second, first);
            let expected = if first_commits { Insertion::Taken(recorded(1)) } else { Insertion::Inserted };
            assert_eq!(second.expect("waits and sees"), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn overrides_begin_and_end_and_stay_on_record() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let mut all = Vec::new();
        for index in 0..5 {
            let mut new = an_override("p", Some(1), Some("sexual"), now() + Duration::seconds(index));
            if index == 0 {
                new.expires_at = Some(now() + Duration::hours(1));
            }
            overrides::create(&mut conn, &new).await.expect("creates");
            all.insert(0, new);
        }
        overrides::create(&mut conn, &an_override("q", None, Some("x"), now())).await.expect("creates");
        let first = overrides::list(&mut conn, "p", &Filter::default(), None, 3).await.expect("lists");
        assert_eq!(first.data, all[..3]);
        let rest =
            overrides::list(&mut conn, "p", &Filter::default(), first.next_cursor, 3).await.expect("lists");
        assert_eq!((rest.data.as_slice(), rest.next_cursor), (&all[3..], None));

        assert_eq!(overrides::delete(&mut conn, "q", all[0].id, "key:2", now()).await.expect("asks"), None);
        let deleted = overrides::delete(&mut conn, "p", all[0].id, "key:2", now())
            .await
            .expect("deletes")
            .expect("was there");
        assert_eq!((deleted.deleted_by.as_deref(), deleted.deleted_at), (Some("key:2"), Some(now())));
        assert_eq!(overrides::delete(&mut conn, "p", all[0].id, "key:3", now()).await.expect("asks"), None);
        let listed = overrides::list(&mut conn, "p", &Filter::default(), None, 200).await.expect("lists");
        assert!(listed.data.contains(&deleted), "an ended one stays on record");

        let in_force = Filter { in_force_at: Some(now() + Duration::hours(1)), ..Filter::default() };
        let found = overrides::list(&mut conn, "p", &in_force, None, 200).await.expect("lists");
        assert_eq!(found.data, all[1..4], "one deleted, one expired");
        let narrow = Filter { sha256: Some(hash(2)), policy: Some("sexual".into()), in_force_at: None };
        assert_eq!(overrides::list(&mut conn, "p", &narrow, None, 9).await.expect("lists").data, []);

        let again = overrides::create(&mut conn, &all[1]).await;
        assert!(matches!(again, Err(StoreError::Conflict { conflict: Conflict::Override, .. })), "{again:?}");
        for wrong in [
            an_override("p", None, None, now()),
            Override { reason: String::new(), ..an_override("p", None, Some("x"), now()) },
            Override { expires_at: Some(now()), ..an_override("p", None, Some("x"), now()) },
        ] {
            let refused = overrides::create(&mut conn, &wrong).await;
            assert!(matches!(refused, Err(StoreError::Unstorable { .. })), "{refused:?}");
        }
    })
    .await;
}

fn a_look(project: &str, idempotency_key: Option<&str>, seed: u8, now: OffsetDateTime) -> Look {
    Look {
        project: project.to_owned(),
        route: KEY.route,
        idempotency_key: idempotency_key.map(str::to_owned),
        sha256: hash(seed),
        pipeline: "media-1",
        now,
    }
}

/// What project `p` sees.
async fn seen(
    conn: &mut PgConnection,
    idempotency_key: Option<&str>,
    seed: u8,
    now: OffsetDateTime,
) -> Result<Admission> {
    Ok(look(conn, &[a_look("p", idempotency_key, seed, now)]).await?.remove(0))
}

#[tokio::test]
async fn one_look_sees_all_of_it() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let empty = seen(&mut conn, Some("k"), 1, now()).await.expect("looks");
        assert_eq!((empty.replay, empty.overrides.len(), empty.policy_generation), (None, 0, 0));

        let before = now() - Duration::minutes(1);
        let this = an_override("p", Some(1), None, before);
        let kill_switch = an_override("p", None, Some("sexual"), before + Duration::seconds(1));
        let mut expired = an_override("p", Some(1), Some("x"), before);
        expired.expires_at = Some(now());
        let deleted = an_override("p", Some(1), Some("y"), before);
        let other_bytes = an_override("p", Some(2), None, before);
        let other_project = an_override("q", Some(1), None, before);
        for new in [&this, &kill_switch, &expired, &deleted, &other_bytes, &other_project] {
            overrides::create(&mut conn, new).await.expect("creates");
        }
        overrides::delete(&mut conn, "p", deleted.id, "key:2", now()).await.expect("deletes");
        idempotency::insert(&mut conn, KEY, recorded(1), before).await.expect("inserts");
        let named = Named { project: "p", policy: "sexual", version: "v1" };
        import_draft(&mut conn, named, &serde_json::json!({}), "cli", before).await.expect("imports");
        set_state(&mut conn, named, State::Active, "cli", before).await.expect("activates");

        let all = seen(&mut conn, Some("k"), 1, now()).await.expect("looks");
        assert_eq!(all.replay, Some(recorded(1)));
        assert_eq!(all.overrides, [kill_switch.clone(), this.clone()]);
        assert_eq!(all.policy_generation, 1);
        let without = seen(&mut conn, None, 9, now()).await.expect("looks");
        assert_eq!((without.replay, without.overrides), (None, vec![kill_switch.clone()]));
        let a_day_later = now() + Duration::hours(24);
        let later = seen(&mut conn, Some("k"), 9, a_day_later).await.expect("looks");
        assert_eq!(later.replay, None);
        // Others in the same statement see theirs.
        let group = [
            a_look("q", Some("k"), 1, now()),
            a_look("p", Some("k"), 1, now()),
            a_look("r", None, 1, now()),
            a_look("p", None, 2, now()),
        ];
        let [q, p, r, p2] = look(&mut conn, &group).await.expect("looks").try_into().expect("four");
        assert_eq!(p, all);
        assert_eq!((q.replay, q.overrides, q.policy_generation), (None, vec![other_project], 0));
        assert_eq!((r.replay, r.overrides, r.policy_generation), (None, vec![], 0));
        assert_eq!((p2.replay, p2.overrides), (None, vec![kill_switch, other_bytes]));
        let zero = seen(&mut conn, Some("a\0"), 9, now()).await;
        assert!(matches!(zero, Err(StoreError::Unstorable { .. })), "{zero:?}");
    })
    .await;
}
