//! The record cannot be changed, by the service or by the owner, in a table or in any partition of it.

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::store::testing::{at, entry, hash, judge, judgement, sqlstate, verdict, with_database};
use crate::store::{audit, judgements, partitions, verdicts};

const APPEND_ONLY: [&str; 7] = [
    "verdicts",
    "verdict_policies",
    "judgements",
    "judgement_shares",
    "audit",
    "audit_seals",
    "review_decisions",
];

/// Our trigger's.
const REFUSED: &str = "23001";
const NO_RIGHT: &str = "42501";

async fn partitions_of(conn: &mut PgConnection, table: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select inhrelid::regclass::text from pg_inherits where inhparent = to_regclass($1) order by 1",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .expect("lists")
}

async fn changes(conn: &mut PgConnection, relation: &str) -> [AssertSqlSafe<String>; 3] {
    let column: String = sqlx::query_scalar(
        "select attname::text from pg_attribute where attrelid = to_regclass($1) and attnum = 1",
    )
    .bind(relation)
    .fetch_one(conn)
    .await
    .expect("has a column");
    [
        AssertSqlSafe(format!("update {relation} set {column} = {column}")),
        AssertSqlSafe(format!("delete from {relation}")),
        AssertSqlSafe(format!("truncate {relation}")),
    ]
}

/// One row in each of the tables that have a way in, a seal and a decision by hand.
async fn fill(conn: &mut PgConnection) {
    let now = at("2026-11-24T12:00:00Z");
    let submitted = verdict("default", now, hash(1));
    verdicts::insert(conn, &[(&submitted, &verdicts::Provenance::default())]).await.expect("inserts");
    judgements::ensure_judge(conn, &hash(7), "classifier", "opennsfw", false).await.expect("a judge");
    for project in ["default", "other"] {
        judge(conn, project, 1, &[judgement(7, 8, 0.5)]).await.expect("inserts");
    }
    audit::append(conn, &[entry("default", "verdict.recorded", "x")]).await.expect("appends");
    sqlx::query(
        "insert into audit_seals (id, first_seq, last_seq, entries, root, checkpoint, key_id, sealed_at)
         values (0, 0, 0, 1, $1, '', '', now())",
    )
    .bind(hash(1))
    .execute(&mut *conn)
    .await
    .expect("seals");
    sqlx::query(
        "insert into review_decisions (verdict_id, id, project, decision, reason, reviewer, at)
         values ($1, $1, 'default', 'uphold', '', 'r', now())",
    )
    .bind(submitted.id)
    .execute(conn)
    .await
    .expect("decides");
}

#[tokio::test]
async fn the_record_cannot_be_changed() {
    with_database(async |db| {
        let (mut owner, mut service) = (db.owner().await, db.service().await);
        // As the service: what it may do on the parents is enough to fill them.
        fill(&mut service).await;
        let made = partitions::ensure(&mut service, at("2031-05-05T00:00:00Z"), 0).await.expect("makes");
        assert_eq!(made.len(), 3, "{made:?}");
        let mut tried = 0;
        for table in APPEND_ONLY {
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
                .fetch_one(&mut service)
                .await
                .expect("the service may read");
            assert_eq!(rows, 1, "{table}: nothing to refuse without a row");
            let mut relations = partitions_of(&mut owner, table).await;
            if table != "audit_seals" {
                assert!(relations.len() >= 2, "{table} has partitions: {relations:?}");
            }
            relations.push(table.to_owned());
            for relation in relations {
                for change in changes(&mut owner, &relation).await {
                    let sql = change.0.clone();
                    assert_eq!(
                        sqlstate(owner.execute(AssertSqlSafe(sql.clone())).await),
                        REFUSED,
                        "owner: {sql}"
                    );
                    assert_eq!(
                        sqlstate(service.execute(AssertSqlSafe(sql.clone())).await),
                        NO_RIGHT,
                        "service: {sql}"
                    );
                    tried += 1;
                }
            }
        }
        assert!(tried > 150, "{tried}");
        // A new month, both in it and as the one that was just made.
        for relation in ["verdicts_2031_05", "verdict_policies_2031_05", "review_decisions_2031_05"] {
            assert!(
                partitions_of(&mut owner, &relation[..relation.len() - 8])
                    .await
                    .contains(&relation.to_owned())
            );
        }
        // Switching ordinary triggers off for a session does not help.
        owner.execute("set session_replication_role = replica").await.expect("a superuser may");
        assert_eq!(sqlstate(owner.execute("truncate verdicts_2031_05").await), REFUSED);
        assert_eq!(sqlstate(owner.execute("delete from audit").await), REFUSED);
    })
    .await;
}

#[tokio::test]
async fn a_partition_attached_by_hand_is_guarded_too() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        owner
            .execute(
                "create table audit_by_hand (like audit including all);
                 alter table audit attach partition audit_by_hand for values from (900000000000) to (900000000001);
                 insert into audit (seq, id, at, project, actor, act, hashes, detail, leaf_hash)
                 values (900000000000, gen_random_uuid(), now(), 'p', '', '', '{}', '{}', sha256(''))",
            )
            .await
            .expect("attaches");
        assert_eq!(sqlstate(owner.execute("update audit_by_hand set act = 'x'").await), REFUSED);
        assert_eq!(sqlstate(owner.execute("delete from audit_by_hand").await), REFUSED);
    })
    .await;
}

#[tokio::test]
async fn the_service_touches_no_partition_and_makes_no_table() {
    with_database(async |db| {
        let (mut owner, mut service) = (db.owner().await, db.service().await);
        partitions::ensure(&mut service, at("2031-05-05T00:00:00Z"), 0).await.expect("makes");
        for table in APPEND_ONLY.iter().chain(&["contents"]) {
            for partition in partitions_of(&mut owner, table).await {
                let sql = format!("select from {partition}");
                assert_eq!(sqlstate(service.execute(AssertSqlSafe(sql.clone())).await), NO_RIGHT, "{sql}");
                let sql = format!("insert into {partition} default values");
                assert_eq!(sqlstate(service.execute(AssertSqlSafe(sql.clone())).await), NO_RIGHT, "{sql}");
            }
        }
        for sql in [
            "create table mine (a int)",
            "create table mine partition of audit for values from (5) to (6)",
            "alter table audit disable trigger append_only",
            "drop trigger append_only on audit",
            "drop table verdicts_2031_05",
            "select guard_append_only('audit')",
            "select make_range_partition('audit', 'mine', '5', '6')",
            "select grant_service_rights()",
            "select setval('audit_seq', 0)",
            "delete from overrides",
            "delete from policy_versions",
            "update policy_versions set body = '{}'",
            "update overrides set action = 'allow'",
            "update api_keys set scopes = '{admin}'",
            "delete from api_keys",
            "delete from _sqlx_migrations",
        ] {
            assert_eq!(sqlstate(service.execute(sql).await), NO_RIGHT, "{sql}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_must_not_vanish_stays_for_the_owner_too() {
    with_database(async |db| {
        let mut owner = db.owner().await;
        for table in ["overrides", "policy_versions", "policy_generations", "api_keys"] {
            for sql in [format!("delete from {table}"), format!("truncate {table}")] {
                assert_eq!(sqlstate(owner.execute(AssertSqlSafe(sql.clone())).await), REFUSED, "{sql}");
            }
        }
    })
    .await;
}
