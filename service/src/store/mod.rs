//! All SQL of the house: free functions over a connection, so that the caller owns the transaction.
//!
//! To add a statement: put it into the file of its subject; take ids and times as arguments; read it
//! into a private row type that a `TryFrom` turns into the domain type, where a value that cannot be
//! read back is [`StoreError::Inconsistent`] and neither a panic nor a default; open a span
//! `db.subject.verb` with `skip_all`; add a test that runs it on a real database. What the service's
//! role may do stands in `migrations/0012_service_role.sql`: a new table needs its line in a new
//! version of that function.

pub mod admission;
pub mod audit;
pub mod contents;
pub mod cursor;
mod error;
mod group;
pub mod idempotency;
pub mod judgements;
pub mod keys;
mod loss;
pub mod migrate;
pub mod overrides;
pub mod partitions;
pub mod policies;
pub(crate) mod provision;
pub mod quotas;
mod read;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod verdicts;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgPool, Postgres};

pub use cursor::{Cursor, CursorError, Page};
pub use error::{Conflict, StoreError};
pub use group::{Group, Grouped};
pub use sqlx::PgConnection;

pub type Result<T> = std::result::Result<T, StoreError>;

/// Dropped without [`Store::commit`], it rolls back.
pub type Transaction = sqlx::Transaction<'static, Postgres>;
/// A connection on loan; dropped, it goes back.
pub type Connection = sqlx::pool::PoolConnection<Postgres>;

/// A SHA-256, of whatever.
pub type Sha256 = [u8; 32];

#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub max_connections: u32,
    /// How long a request waits for a connection before it is told that the database is away.
    pub acquire_timeout: Duration,
    /// Bounds every statement, so that a stuck one gives its connection back.
    pub statement_timeout: Duration,
    /// Bounds the wait for a row that another transaction holds.
    pub lock_timeout: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(3),
        }
    }
}

/// Beyond the time that a connection and the statements may take: past it Postgres, or the way to it, hangs.
const SLACK: Duration = Duration::from_secs(2);

/// The pool of connections. It connects when it is first asked and again after every loss: a Postgres
/// that comes back needs no restart of ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    patience: Duration,
}

impl Store {
    /// Reaches for nothing yet, so it cannot fail; [`Store::ping`] can.
    pub fn connect(options: PgConnectOptions, config: &StoreConfig) -> Self {
        let patience = config.acquire_timeout + config.statement_timeout + SLACK;
        let statement_timeout = format!("{}ms", config.statement_timeout.as_millis());
        let lock_timeout = format!("{}ms", config.lock_timeout.as_millis());
        // By SET and not as start-up parameters, which poolers refuse.
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            // Asked after only where it has been idle: a round trip more for each request is dear.
            .test_before_acquire(false)
            .before_acquire(|conn, now| {
                Box::pin(async move {
                    if loss::is_doubtful(now.idle_for) {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |conn, _| {
                let (statement_timeout, lock_timeout) = (statement_timeout.clone(), lock_timeout.clone());
                Box::pin(async move {
                    sqlx::query(
                        "select set_config('statement_timeout', $1, false),
                                -- Over partitions a plan costs more than what it plans: made once for each
                                -- statement, it chooses its partitions when it runs.
                                set_config('plan_cache_mode', 'force_generic_plan', false),
                                set_config('lock_timeout', $2, false),
                                -- A transaction whose owner died keeps neither rows nor vacuum waiting.
                                set_config('idle_in_transaction_session_timeout', '60s', false)",
                    )
                    .bind(statement_timeout)
                    .bind(lock_timeout)
                    .execute(conn)
                    .await
                    .map(drop)
                })
            })
            .connect_lazy_with(options);
        Self { pool, patience }
    }

    /// Never hold one while a judge works: the size of the pool would become the size of the batch.
    pub async fn acquire(&self) -> Result<Connection> {
        Ok(self.pool.acquire().await?)
    }

    pub async fn begin(&self) -> Result<Transaction> {
        Ok(self.pool.begin().await?)
    }

    /// An error leaves open whether it was committed: answer 503, the retry finds out.
    #[tracing::instrument(name = "db.store.commit", skip_all)]
    pub async fn commit(mut transaction: Transaction) -> Result<()> {
        // Postgres answers the COMMIT of a failed transaction with a silent ROLLBACK, and sqlx takes it for
        // success. Should anybody ever swallow a statement's error, this one fails in its place.
        sqlx::query("select 1").execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Bounds `work` on our side: Postgres's own time-outs say nothing when it is frozen or the network
    /// swallows its answers.
    pub async fn in_time<T, E: From<StoreError>>(
        &self,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(done) => done,
            Err(_) => {
                let source = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
                Err(StoreError::Unavailable { source }.into())
            }
        }
    }

    /// Reads over one connection, in bounded time.
    pub async fn read<T>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T>) -> Result<T> {
        self.in_time(async { work(&mut *self.acquire().await?).await }).await
    }

    /// One transaction, in bounded time: what `work` did is committed where it says `Ok`, else rolled back.
    pub async fn write<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let write = async {
            let mut transaction = self.begin().await?;
            let done = work(&mut transaction).await?;
            Self::commit(transaction).await?;
            Ok(done)
        };
        self.in_time(write).await
    }

    #[tracing::instrument(name = "db.store.ping", skip_all)]
    pub async fn ping(&self) -> Result<()> {
        let mut conn = self.acquire().await?;
        sqlx::query("select 1").execute(&mut *conn).await?;
        Ok(())
    }

    /// Waits for the connections on loan, then closes all.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Connections open and, of these, idle.
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }
}

/// Whom we are logged in as, for the warning that start-up and `doctor` give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    pub user: String,
    pub superuser: bool,
    /// May take the append-only guards away.
    pub owns_tables: bool,
    /// May do what the service needs; without it every upload would end in a 503.
    pub can_record: bool,
}

impl Privileges {
    /// The service should run as neither.
    pub fn too_many(&self) -> bool {
        self.superuser || self.owns_tables
    }
}

#[tracing::instrument(name = "db.store.privileges", skip_all)]
pub async fn privileges(conn: &mut PgConnection) -> Result<Privileges> {
    let (user, superuser, owns_tables, can_record): (String, bool, bool, bool) = sqlx::query_as(
        "select current_user::text,
                (select rolsuper from pg_roles where rolname = current_user),
                coalesce((select bool_or(pg_has_role(relowner, 'usage')) from pg_class
                          where oid in (to_regclass('verdicts'), to_regclass('audit'))), false),
                coalesce(has_table_privilege(to_regclass('verdicts'), 'insert')
                         and has_table_privilege(to_regclass('audit'), 'insert'), false)",
    )
    .fetch_one(conn)
    .await?;
    Ok(Privileges { user, superuser, owns_tables, can_record })
}
