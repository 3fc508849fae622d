//! The record of a running service refuses every change, to the service's role and to the tables' owner.

use sqlx::PgConnection;

use crate::stage::{GREY, policy, rows, stage, upload};

const PARENTS: [&str; 4] = ["audit", "verdicts", "verdict_policies", "judgements"];

/// A column that each table has, for an UPDATE that changes nothing.
fn column(table: &str) -> &'static str {
    if table.starts_with("audit") { "actor" } else { "project" }
}

async fn refused(conn: &mut PgConnection, statement: String, codes: &[&str]) {
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
        .execute(conn)
        .await
        .err()
        .unwrap_or_else(|| panic!("`{statement}` was not refused"));
    let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
    assert!(code.as_deref().is_some_and(|code| codes.contains(&code)), "`{statement}`: {error}");
}

async fn leaves(conn: &mut PgConnection, parent: &str) -> Vec<String> {
    sqlx::query_scalar("select relid::regclass::text from pg_partition_tree($1::regclass) where isleaf")
        .bind(parent)
        .fetch_all(conn)
        .await
        .expect("Postgres answers")
}

#[tokio::test]
async fn update_delete_and_truncate_are_refused_on_every_table_and_partition() {
    let gate = stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    for _ in 0..3 {
        caller.upload(upload(GREY, "alpha")).await.expect(200);
    }
    let (mut service, mut owner) = (gate.service_role().await, gate.owner().await);
    let user: String =
        sqlx::query_scalar("select current_user::text").fetch_one(&mut service).await.expect("answers");
    assert_eq!(user, "shieldgate_service");
    let before = rows(&mut owner).await;
    assert!(
        before.iter().filter(|(table, _)| PARENTS.contains(&table.as_str())).all(|(_, count)| *count >= 3),
        "{before:?}"
    );

    // As the service itself makes them: a year from now.
    let made: Vec<String> =
        sqlx::query_scalar("select partition_name from ensure_partitions(now() + interval '1 year', 2)")
            .fetch_all(&mut service)
            .await
            .expect("the service may make partitions");
    assert!(made.iter().any(|name| name.starts_with("verdicts_")), "{made:?}");

    let mut tried = 0;
    for parent in PARENTS {
        let mut tables = leaves(&mut owner, parent).await;
        assert!(tables.len() >= 2, "{parent}: {tables:?}");
        if matches!(parent, "verdicts" | "verdict_policies") {
            assert!(made.iter().any(|new| tables.contains(new)), "{parent}: a new partition is among them");
        }
        tables.push(parent.to_owned());
        for table in tables {
            let column = column(&table);
            for statement in [
                format!("update {table} set {column} = {column}"),
                format!("delete from {table}"),
                format!("truncate {table}"),
                format!("truncate {table} cascade"),
            ] {
                // 42501: no such right. 23001: the trigger's refusal, which binds the owner too.
                refused(&mut service, statement.clone(), &["42501", "23001"]).await;
                refused(&mut owner, statement, &["23001"]).await;
                tried += 1;
            }
            refused(&mut service, format!("alter table {table} disable trigger all"), &["42501"]).await;
            refused(&mut service, format!("drop table {table}"), &["42501"]).await;
        }
    }
    assert!(tried > 100, "only {tried}");
    refused(&mut service, "set role shieldgate_owner".to_owned(), &["42501"]).await;
    assert_eq!(before, rows(&mut owner).await);
    caller.upload(upload(GREY, "alpha")).await.expect(200);
}
