//! The database and the two roles of a private cluster: the owner migrates, the service only works.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub(crate) const DATABASE: &str = "shieldgate";
pub(crate) const OWNER: &str = "shieldgate_owner";
pub(crate) const SERVICE: &str = "shieldgate_service";

const PATIENCE: Duration = Duration::from_secs(30);

/// Every step asks first, so a start that was killed in between is made whole by the next one.
/// Neither role is a superuser, as with a server that somebody else runs. The migrations may make
/// the service's role as a group; here it also logs in.
pub(crate) async fn provision(superuser: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let work = async {
        let mut connection = PgConnection::connect_with(superuser).await?;
        for statement in [
            "DO $$ BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shieldgate_owner') THEN
                     CREATE ROLE shieldgate_owner;
                 END IF;
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shieldgate_service') THEN
                     CREATE ROLE shieldgate_service;
                 END IF;
                 IF NOT EXISTS (
                     SELECT FROM pg_auth_members
                     WHERE roleid = 'shieldgate_service'::regrole AND member = 'shieldgate_owner'::regrole
                       AND admin_option
                 ) THEN
                     GRANT shieldgate_service TO shieldgate_owner WITH ADMIN OPTION;
                 END IF;
             END $$",
            // The owner may create roles because migrations do, where they find none.
            "ALTER ROLE shieldgate_owner LOGIN CREATEROLE NOSUPERUSER",
            "ALTER ROLE shieldgate_service LOGIN NOCREATEROLE NOSUPERUSER",
        ] {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'shieldgate')")
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            sqlx::raw_sql("CREATE DATABASE shieldgate OWNER shieldgate_owner")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Whether a service beside us has made the cluster ready for its owner.
pub(crate) async fn answers(owner: &PgConnectOptions) -> Result<(), sqlx::Error> {
    match tokio::time::timeout(PATIENCE, PgConnection::connect_with(owner)).await {
        Ok(connection) => connection?.close().await,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}
