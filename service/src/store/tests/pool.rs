//! The pool comes back by itself; errors of a lost connection are told from others.

use std::time::{Duration, Instant};

use sqlx::Executor as _;
use sqlx::postgres::PgConnectOptions;

use crate::store::testing::{entry, unavailable, with_database};
use crate::store::{Privileges, Store, StoreConfig, audit, privileges};

#[tokio::test]
async fn a_lost_connection_is_an_error_and_the_next_one_works() {
    with_database(async |db| {
        let store = db.store();
        store.ping().await.expect("the database is there");
        let mut transaction = store.begin().await.expect("begins");
        audit::append(&mut transaction, &[entry("default", "a", "lost")]).await.expect("appends");

        let mut owner = db.owner().await;
        owner
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid()",
            )
            .await
            .expect("kills them");
        assert!(unavailable(audit::append(&mut transaction, &[entry("default", "a", "late")]).await));
        assert!(unavailable(Store::commit(transaction).await));

        for _ in 0..8 {
            store.ping().await.expect("a new connection");
        }
        let rows: i64 =
            sqlx::query_scalar("select count(*) from audit").fetch_one(&mut owner).await.expect("counts");
        assert_eq!(rows, 0, "the broken transaction left nothing");
    })
    .await;
}

#[tokio::test]
async fn no_server_is_an_error_in_time() {
    let nowhere = PgConnectOptions::new().socket("/nonexistent").username("nobody").database("none");
    let config = StoreConfig { acquire_timeout: Duration::from_millis(300), ..StoreConfig::default() };
    let began = Instant::now();
    assert!(unavailable(Store::connect(nowhere, &config).ping().await));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn statements_and_locks_are_bounded() {
    with_database(async |db| {
        let config = StoreConfig {
            statement_timeout: Duration::from_millis(200),
            lock_timeout: Duration::from_millis(100),
            ..StoreConfig::default()
        };
        let store = Store::connect(db.options.clone(), &config);
        let mut conn = store.acquire().await.expect("connects");
        assert!(conn.execute("select pg_sleep(30)").await.is_err());
        let mut other = db.owner().await;
        other.execute("begin; lock table overrides").await.expect("locks");
        assert!(conn.execute("select from overrides").await.is_err());
    })
    .await;
}

#[tokio::test]
async fn privileges_tell_the_owner_from_the_service() {
    with_database(async |db| {
        let owner = privileges(&mut db.owner().await).await.expect("asks");
        assert!(owner.superuser && owner.owns_tables && owner.can_record && owner.too_many());
        let service = privileges(&mut db.service().await).await.expect("asks");
        let expected = Privileges {
            user: "shieldgate_service".to_owned(),
            superuser: false,
            owns_tables: false,
            can_record: true,
        };
        assert_eq!(service, expected);
        assert!(!service.too_many());
    })
    .await;
}
