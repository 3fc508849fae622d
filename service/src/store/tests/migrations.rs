//! The migrations and the partitions: repeated, at once, and by whoever may.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::store::migrate::{Schema, let_service_log_in, migrate, schema};
use crate::store::partitions::{self, MONTHS_AHEAD};
use crate::store::testing::{at, hash, sqlstate, verdict, with_database, with_empty_database};
use crate::store::verdicts;

#[tokio::test]
async fn twice_and_at_once_is_harmless() {
    with_empty_database(async |db| {
        let mut conn = db.owner().await;
        assert_eq!(schema(&mut conn).await.expect("asks"), Schema::Empty);
        let now = at("2026-11-24T12:00:00Z");
        let (one, two, three) =
            tokio::join!(migrate(&db.options, now), migrate(&db.options, now), migrate(&db.options, now));
        for migrated in [one, two, three] {
            assert!(migrated.expect("migrates").service_role);
        }
        let again = migrate(&db.options, now).await.expect("migrates again");
        assert_eq!(again.partitions, []);
        assert_eq!(schema(&mut conn).await.expect("asks"), Schema::Current);
        assert_eq!(schema(&mut db.service().await).await.expect("the service may ask"), Schema::Current);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_does_not_fit_is_told() {
    with_database(async |db| {
        let mut conn = db.owner().await;
        for (change, expected) in [
            ("update _sqlx_migrations set success = false where version = 3", Schema::Broken(3)),
            (
                "update _sqlx_migrations set success = true, checksum = '' where version = 3",
                Schema::Edited(3),
            ),
            ("delete from _sqlx_migrations where version = 3", Schema::Behind(vec![3])),
            ("update _sqlx_migrations set version = 9999 where version = 4", Schema::Ahead(vec![9999])),
        ] {
            conn.execute(change).await.expect("changes");
            assert_eq!(schema(&mut conn).await.expect("asks"), expected, "{change}");
        }
        let refused = migrate(&db.options, at("2026-11-24T12:00:00Z")).await.expect_err("does not fit");
        assert!(refused.to_string().contains("newer"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_plain_owner_may_migrate_and_still_not_change_the_record() {
    with_empty_database(async |db| {
        let mut admin = db.owner().await;
        let database: String =
            sqlx::query_scalar("select current_database()::text").fetch_one(&mut admin).await.expect("reads");
        // Neither superuser nor allowed to make roles.
        let owner = format!("{database}_owner");
        for sql in [format!("create role {owner}"), format!("alter database {database} owner to {owner}")] {
            admin.execute(AssertSqlSafe(sql)).await.expect("sets up");
        }
        let options = db.options.clone().options([("role", owner.as_str())]);
        migrate(&options, at("2026-11-24T12:00:00Z")).await.expect("migrates");
        let mut conn = PgConnection::connect_with(&options).await.expect("connects");
        for sql in ["truncate audit", "delete from verdicts_default", "update judgements_03 set runtime = ''"]
        {
            assert_eq!(sqlstate(conn.execute(sql).await), "23001", "{sql}");
        }
        let privileges = crate::store::privileges(&mut conn).await.expect("asks");
        assert!(privileges.owns_tables && !privileges.superuser && privileges.can_record);
        drop(conn);
        for sql in [
            format!("alter database {database} owner to current_user"),
            format!("reassign owned by {owner} to current_user"),
            format!("drop role {owner}"),
        ] {
            admin.execute(AssertSqlSafe(sql)).await.expect("cleans up");
        }
    })
    .await;
}

#[tokio::test]
async fn the_service_may_be_let_in() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        let_service_log_in(&mut owner).await.expect("lets it in");
        let may: bool =
            sqlx::query_scalar("select rolcanlogin from pg_roles where rolname = 'shieldgate_service'")
                .fetch_one(&mut owner)
                .await
                .expect("asks");
        assert!(may);
        assert!(let_service_log_in(&mut db.service().await).await.is_err(), "only by the owner");
    })
    .await;
}

#[tokio::test]
async fn partitions_are_made_ahead_by_the_service_and_only_once() {
    with_database(async |db| {
        let mut service = db.service().await;
        let now = at("2027-01-31T23:00:00Z");
        let made = partitions::ensure(&mut service, now, MONTHS_AHEAD).await.expect("makes");
        // November to February are there from the migration.
        let names: Vec<&str> = made.iter().map(|made| made.partition.as_str()).collect();
        assert_eq!(
            names,
            [
                "verdicts_2027_03",
                "verdict_policies_2027_03",
                "review_decisions_2027_03",
                "verdicts_2027_04",
                "verdict_policies_2027_04",
                "review_decisions_2027_04",
            ]
        );
        assert!(made.iter().all(|made| made.refused.is_none()));
        assert_eq!(partitions::ensure(&mut service, now, MONTHS_AHEAD).await.expect("asks"), []);
        // Bounds by the time prefix of the id, in UTC whatever the session's zone is.
        service.execute("set timezone = 'Pacific/Auckland'").await.expect("sets");
        partitions::ensure(&mut service, at("2030-06-15T00:00:00Z"), 0).await.expect("makes");
        for (time, expected) in [
            ("2030-05-31T23:59:59.999999Z", "verdicts_default"),
            ("2030-06-01T00:00:00Z", "verdicts_2030_06"),
            ("2030-06-30T23:59:59.999999Z", "verdicts_2030_06"),
            ("2030-07-01T00:00:00Z", "verdicts_default"),
        ] {
            let submitted = verdict("default", at(time), hash(1));
            verdicts::insert(&mut service, &[(&submitted, &verdicts::Provenance::default())])
                .await
                .expect("inserts");
            let holder: String =
                sqlx::query_scalar("select tableoid::regclass::text from verdicts where id = $1")
                    .bind(submitted.id)
                    .fetch_one(&mut service)
                    .await
                    .expect("reads");
            assert_eq!(holder, expected, "{time}");
        }
        for (at_text, months) in
            [("2019-01-01", 0), ("2300-01-01", 0), ("2027-01-01", 25), ("2027-01-01", -1)]
        {
            let refused = sqlx::query("select ensure_partitions($1::text::timestamptz, $2)")
                .bind(at_text)
                .bind(months)
                .execute(&mut service)
                .await;
            assert_eq!(sqlstate(refused), "22023", "{at_text} {months}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_next_audit_partition_is_there_before_it_is_needed() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        let now = at("2026-11-24T12:00:00Z");
        owner.execute("select setval('audit_seq', 9999999)").await.expect("jumps");
        let mut service = db.service().await;
        let entry = crate::store::testing::entry("default", "a", "b");
        crate::store::audit::append(&mut service, &[entry]).await.expect("appends");
        let seq: i64 =
            sqlx::query_scalar("select seq from audit").fetch_one(&mut service).await.expect("reads");
        assert_eq!(seq, 10_000_000);
        let made = partitions::ensure(&mut service, now, 0).await.expect("makes");
        assert_eq!(made.iter().map(|made| made.partition.as_str()).collect::<Vec<_>>(), ["audit_000002"]);
        let holder: String = sqlx::query_scalar("select tableoid::regclass::text from audit")
            .fetch_one(&mut service)
            .await
            .expect("reads");
        assert_eq!(holder, "audit_000001");
    })
    .await;
}

#[tokio::test]
async fn a_late_partition_is_reported_and_nothing_is_lost() {
    with_database(async |db| {
        let mut service = db.service().await;
        let late = at("2033-03-03T03:03:03Z");
        assert_eq!(partitions::astray(&mut service).await.expect("asks"), [""; 0]);
        let submitted = verdict("default", late, hash(1));
        verdicts::insert(&mut service, &[(&submitted, &verdicts::Provenance::default())])
            .await
            .expect("inserts");
        assert_eq!(partitions::astray(&mut service).await.expect("asks"), ["verdict_policies", "verdicts"]);
        let made = partitions::ensure(&mut service, late, 0).await.expect("reports, does not fail");
        let refused: Vec<bool> = made.iter().map(|made| made.refused.is_some()).collect();
        assert_eq!(refused, [true, true, false], "{made:?}");
        // A table that is in use is no reason to fail either, and half-made tables do not stay.
        assert_eq!(
            verdicts::by_id(&mut service, "default", submitted.id).await.expect("reads"),
            Some(submitted)
        );
        let half: bool = sqlx::query_scalar("select to_regclass('verdicts_2033_03') is null")
            .fetch_one(&mut service)
            .await
            .expect("asks");
        assert!(half);
    })
    .await;
}
