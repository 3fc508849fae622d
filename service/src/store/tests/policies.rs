//! The life of a policy version.

use serde_json::json;
use sqlx::Executor as _;
use time::OffsetDateTime;

use crate::store::Store;
use crate::store::policies::{
    Change, Import, Named, State, import_draft, in_force, is_empty, set_state, version, versions,
};
use crate::store::testing::{at, sqlstate, with_database};

fn now() -> OffsetDateTime {
    at("2026-11-24T12:00:00.123456Z")
}

fn named(version: &'static str) -> Named<'static> {
    Named { project: "p", policy: "sexual", version }
}

#[tokio::test]
async fn draft_active_rolled_back() {
    with_database(async |db| {
        let mut conn = db.service().await;
        assert!(is_empty(&mut conn).await.expect("asks"));
        let body =
            json!({"id": "sexual", "judges": [{"name": "a", "thresholds": {"review": 0.1, "block": 1e-7}}]});
        for name in ["v1", "v2"] {
            let done = import_draft(&mut conn, named(name), &body, "cli:a", now()).await.expect("imports");
            assert_eq!(done, Import::Imported);
        }
        assert!(!is_empty(&mut conn).await.expect("asks"));
        let done = import_draft(&mut conn, named("v1"), &body, "cli:b", now()).await.expect("asks");
        assert_eq!(done, Import::AlreadyThere(State::Draft));
        let idle = in_force(&mut conn, "p").await.expect("reads");
        assert_eq!((idle.generation, idle.policies.len()), (0, 0), "a draft changes nothing");

        let change = set_state(&mut conn, named("v1"), State::Active, "key:1", now()).await.expect("changes");
        assert_eq!(change, Change::Changed { from: State::Draft, displaced: None, generation: 1 });
        let change = set_state(&mut conn, named("v2"), State::Active, "key:2", now()).await.expect("changes");
        assert_eq!(
            change,
            Change::Changed { from: State::Draft, displaced: Some("v1".into()), generation: 2 }
        );
        let active = in_force(&mut conn, "p").await.expect("reads");
        assert_eq!(active.generation, 2);
        assert_eq!(active.policies.len(), 1);
        let v2 = &active.policies[0];
        assert_eq!((v2.version.as_str(), v2.state, &v2.body), ("v2", State::Active, &body));
        assert_eq!((v2.imported_by.as_str(), v2.state_by.as_str()), ("cli:a", "key:2"));
        assert_eq!(
            version(&mut conn, named("v1")).await.expect("reads").map(|v1| v1.state),
            Some(State::Retired)
        );

        // The rollback; and the other in the shadow beside it.
        set_state(&mut conn, named("v1"), State::Active, "key:1", now()).await.expect("changes");
        let change = set_state(&mut conn, named("v2"), State::Shadow, "key:1", now()).await.expect("changes");
        assert_eq!(change, Change::Changed { from: State::Retired, displaced: None, generation: 4 });
        let states = |versions: &[crate::store::policies::PolicyVersion]| {
            versions.iter().map(|version| (version.version.clone(), version.state)).collect::<Vec<_>>()
        };
        let both = [("v1".to_owned(), State::Active), ("v2".to_owned(), State::Shadow)];
        assert_eq!(states(&in_force(&mut conn, "p").await.expect("reads").policies), both);
        assert_eq!(states(&versions(&mut conn, "p", Some("sexual")).await.expect("lists")), both);
        assert_eq!(states(&versions(&mut conn, "p", None).await.expect("lists")), both);
        assert_eq!(versions(&mut conn, "p", Some("none")).await.expect("lists"), []);
        assert_eq!(in_force(&mut conn, "q").await.expect("reads").policies, []);

        let change = set_state(&mut conn, named("v1"), State::Active, "key:9", now()).await.expect("asks");
        assert_eq!(change, Change::Unchanged);
        let change = set_state(&mut conn, named("v9"), State::Active, "key:9", now()).await.expect("asks");
        assert_eq!(change, Change::Unknown);
        let change =
            set_state(&mut conn, named("v1"), State::Retired, "key:1", now()).await.expect("changes");
        assert!(matches!(change, Change::Changed { from: State::Active, displaced: None, .. }));
    })
    .await;
}

#[tokio::test]
async fn of_two_activations_at_once_one_displaces_the_other() {
    with_database(async |db| {
        let store = db.store();
        let mut conn = store.acquire().await.expect("connects");
        for name in ["v1", "v2"] {
            import_draft(&mut conn, named(name), &json!({}), "cli", now()).await.expect("imports");
        }
        let (mut one, mut two) = (store.begin().await.expect("begins"), store.begin().await.expect("begins"));
        set_state(&mut one, named("v1"), State::Active, "a", now()).await.expect("changes");
        let second = async {
            let change = set_state(&mut two, named("v2"), State::Active, "b", now()).await;
            Store::commit(two).await.expect("commits");
            change
        };
        let first = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            Store::commit(one).await.expect("commits");
        };
        let (change, ()) = tokio::join!(second, first);
        let expected = Change::Changed { from: State::Draft, displaced: Some("v1".into()), generation: 2 };
        assert_eq!(change.expect("waits and sees"), expected);
        let active = in_force(&mut conn, "p").await.expect("reads");
        assert_eq!(active.policies.iter().map(|p| p.version.as_str()).collect::<Vec<_>>(), ["v2"]);
    })
    .await;
}

#[tokio::test]
async fn a_version_keeps_its_body_and_one_is_active() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        for name in ["v1", "v2"] {
            import_draft(&mut owner, named(name), &json!({"a": 1}), "cli", now()).await.expect("imports");
        }
        assert_eq!(sqlstate(owner.execute("update policy_versions set body = '{}'").await), "23001");
        assert_eq!(sqlstate(owner.execute("update policy_versions set state = 'active'").await), "23505");
        assert_eq!(sqlstate(owner.execute("update policy_versions set state = 'live'").await), "23514");
    })
    .await;
}
