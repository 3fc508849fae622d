//! From options to a database: the one that is named, or the private cluster in the data directory.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use super::Failed;
use crate::assets::Assets;
use crate::cluster::{Cluster, ClusterConfig};
use crate::config::{Common, Database};
use crate::store::migrate::{self, Schema};
use crate::store::{Store, StoreConfig, policies};
use crate::timestamp;

/// How long `serve` waits for a Postgres that is named and not there yet, as after a reboot of both.
const PATIENCE: Duration = Duration::from_secs(30);

const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("`{name}` is no Postgres URL\n  hint: postgres://user:password@host:5432/database")]
    Url {
        name: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "the database was last migrated by a newer shieldgate (migrations {0:?} are unknown to this one)\n  hint: run that version, or restore a backup from before"
    )]
    Ahead(Vec<i64>),
    #[error(
        "migration {0} in the database is not this program's: somebody edited history\n  hint: run the version that migrated it"
    )]
    Edited(i64),
    #[error(
        "migration {0} broke off half-way\n  hint: restore the backup, or ask for help with the log of that migration"
    )]
    Broken(i64),
}

/// A store, and the cluster beneath it where that is ours to stop.
pub(super) struct Connected {
    pub(super) store: Store,
    cluster: Option<Cluster>,
}

/// Who asks for the cluster: the service keeps it, a command uses it beside a running service or alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    Command,
}

impl Connected {
    pub(super) async fn open(common: &Common, database: &Database, role: Role) -> Result<Self, Failed> {
        let (owner, service, cluster) = match &database.database_url {
            Some(url) => {
                let service = options(url, "DATABASE_URL")?;
                let owner = match &database.owner_database_url {
                    Some(url) => options(url, "SHIELDGATE_OWNER_DATABASE_URL")?,
                    None => service.clone(),
                };
                (owner, service, None)
            }
            None => {
                let cluster = private(common, role).await?;
                (cluster.owner_options(), cluster.service_options(), Some(cluster))
            }
        };
        let connected = Self { store: store(service, database), cluster };
        match connected.prepare(&owner, role).await {
            Ok(()) => Ok(connected),
            Err(error) => {
                connected.close().await;
                Err(error)
            }
        }
    }

    /// Migrates where that is needed, and applies the shipped policies to an empty database.
    async fn prepare(&self, owner: &PgConnectOptions, role: Role) -> Result<(), Failed> {
        let mut owner_conn = match reach(owner, role).await {
            Ok(conn) => conn,
            // The owner may be out of reach where the service is not: then the schema must be there.
            Err(error) => {
                tracing::warn!(%error, "the owner's connection failed");
                let mut conn = self.store.acquire().await?;
                return match migrate::schema(&mut conn).await? {
                    Schema::Current => Ok(()),
                    _ => Err(error.into()),
                };
            }
        };
        match migrate::schema(&mut owner_conn).await? {
            Schema::Current => {}
            Schema::Empty | Schema::Behind(_) => {
                let migrated = migrate::migrate(owner, timestamp::now()).await?;
                tracing::info!(service_role = migrated.service_role, "migrated the database");
            }
            Schema::Ahead(unknown) => return Err(ConnectError::Ahead(unknown).into()),
            Schema::Edited(version) => return Err(ConnectError::Edited(version).into()),
            Schema::Broken(version) => return Err(ConnectError::Broken(version).into()),
        }
        if self.cluster.is_some() {
            migrate::let_service_log_in(&mut owner_conn).await?;
        }
        owner_conn.close().await?;
        self.first_policies().await
    }

    async fn first_policies(&self) -> Result<(), Failed> {
        let mut conn = self.store.acquire().await?;
        if !policies::is_empty(&mut conn).await? {
            return Ok(());
        }
        drop(conn);
        let shipped = super::policies::shipped()?;
        super::policies::apply(&self.store, "default", &shipped, "system", true).await?;
        tracing::info!(count = shipped.len(), "activated the shipped policies");
        Ok(())
    }

    pub(super) async fn close(self) {
        // What is still on loan belongs to requests that were given up; Postgres ends it with itself.
        if tokio::time::timeout(CLOSE_PATIENCE, self.store.close()).await.is_err() {
            tracing::warn!("some database connections were still in use");
        }
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

async fn private(common: &Common, role: Role) -> Result<Cluster, Failed> {
    let assets = Assets::find(common.assets.as_deref())?;
    std::fs::create_dir_all(&common.data_dir)?;
    let data_dir = std::path::absolute(&common.data_dir)?.join("postgres");
    let config = ClusterConfig::new(assets.postgres_binaries()?, data_dir);
    Ok(match role {
        Role::Service => Cluster::start(config).await?,
        Role::Command => Cluster::attach_or_start(config).await?,
    })
}

fn options(url: &str, name: &'static str) -> Result<PgConnectOptions, ConnectError> {
    // The parser takes any scheme, and the connection would fail later with a message about something else.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        let source = sqlx::Error::Configuration("it does not begin with `postgres://`".into());
        return Err(ConnectError::Url { name, source });
    }
    url.parse::<PgConnectOptions>()
        .map(|options| options.application_name("shieldgate"))
        .map_err(|source| ConnectError::Url { name, source })
}

fn store(options: PgConnectOptions, database: &Database) -> Store {
    let config = StoreConfig {
        max_connections: database.database_connections.max(1),
        acquire_timeout: Duration::from_millis(database.database_timeout_ms.max(1)),
        ..StoreConfig::default()
    };
    Store::connect(options, &config)
}

async fn reach(owner: &PgConnectOptions, role: Role) -> Result<PgConnection, sqlx::Error> {
    let until = tokio::time::Instant::now() + if role == Role::Service { PATIENCE } else { Duration::ZERO };
    loop {
        match PgConnection::connect_with(owner).await {
            Ok(conn) => return Ok(conn),
            // Wrong names and passwords do not get right by waiting.
            Err(error @ sqlx::Error::Database(_)) if !starting(&error) => return Err(error),
            Err(error) if tokio::time::Instant::now() >= until => return Err(error),
            Err(error) => tracing::warn!(%error, "Postgres is not there yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// `cannot_connect_now`: starting up or shutting down.
fn starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P03")
}
