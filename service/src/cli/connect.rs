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

/// How long a command waits for the service beside it to finish its start.
const HANDOVER: Duration = Duration::from_secs(20);

const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("`{name}` is no Postgres URL\n  hint: postgres://user:password@host:5432/database")]
    Url {
        name: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database is not migrated to this version\n  hint: `shieldgate migrate`, as its owner")]
    Behind,
    #[error(
        "the owner's URL is set and the service's is not\n  hint: set `DATABASE_URL` as well; only `migrate` can do with the owner's alone"
    )]
    OwnerAlone,
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

/// Who asks: the service keeps a private cluster, a command uses it beside a running service or alone. A
/// command changes no schema but that of a cluster which it started itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    Migration,
    Command,
}

impl Connected {
    pub(super) async fn open(common: &Common, database: &Database, role: Role) -> Result<Self, Failed> {
        let named = |url: &Option<String>, name| url.as_deref().map(|url| options(url, name)).transpose();
        let service = named(&database.database_url, "DATABASE_URL")?;
        let owner = named(&database.owner_database_url, "SHIELDGATE_OWNER_DATABASE_URL")?;
        let (owner, service, cluster) = match (owner, service) {
            (owner, Some(service)) => (owner.unwrap_or_else(|| service.clone()), service, None),
            (Some(owner), None) if role == Role::Migration => (owner.clone(), owner, None),
            (Some(_), None) => return Err(ConnectError::OwnerAlone.into()),
            (None, None) => {
                let cluster = private(common, role).await?;
                (cluster.owner_options(), cluster.service_options(), Some(cluster))
            }
        };
        let connected = Self { store: store(service, database), cluster };
        let ours = connected.cluster.as_ref().is_some_and(Cluster::is_ours);
        let prepared = if role == Role::Command && !ours {
            connected.expect_current(&owner).await
        } else {
            connected.prepare(&owner, role).await
        };
        match prepared {
            Ok(()) => Ok(connected),
            Err(error) => {
                connected.close().await;
                Err(error)
            }
        }
    }

    /// For commands: a look must not migrate what a running service of another version uses. An empty
    /// database of the operator's is nobody's yet.
    async fn expect_current(&self, owner: &PgConnectOptions) -> Result<(), Failed> {
        let until = tokio::time::Instant::now() + HANDOVER;
        loop {
            let mut conn = self.store.acquire().await?;
            let error = match migrate::schema(&mut conn).await? {
                Schema::Current => return Ok(()),
                Schema::Empty if self.cluster.is_none() => return self.prepare(owner, Role::Command).await,
                Schema::Empty | Schema::Behind(_) => ConnectError::Behind,
                other => return Err(unfit(other).into()),
            };
            // The service beside us may be about to migrate its own cluster.
            if self.cluster.is_none() || tokio::time::Instant::now() >= until {
                return Err(error.into());
            }
            drop(conn);
            tokio::time::sleep(Duration::from_millis(200)).await;
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
            other => return Err(unfit(other).into()),
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

/// What a schema that is neither current nor to be migrated means.
fn unfit(schema: Schema) -> ConnectError {
    match schema {
        Schema::Ahead(unknown) => ConnectError::Ahead(unknown),
        Schema::Edited(version) => ConnectError::Edited(version),
        Schema::Broken(version) => ConnectError::Broken(version),
        Schema::Current | Schema::Empty | Schema::Behind(_) => ConnectError::Behind,
    }
}

async fn private(common: &Common, role: Role) -> Result<Cluster, Failed> {
    let assets = Assets::find(common.assets.as_deref())?;
    std::fs::create_dir_all(&common.data_dir)?;
    let data_dir = std::path::absolute(&common.data_dir)?.join("postgres");
    let config = ClusterConfig::new(assets.postgres_binaries()?, data_dir);
    Ok(match role {
        Role::Service => Cluster::start(config).await?,
        Role::Migration | Role::Command => Cluster::attach_or_start(config).await?,
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
