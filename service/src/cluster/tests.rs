//! The whole life of a private cluster, on the binaries that `make build` fetched.

use std::os::unix::fs::MetadataExt;

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::run_as::RunAs;
use super::*;
use crate::assets::Assets;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(root: &TempDir) -> ClusterConfig {
    let binaries = Assets::find(None).and_then(|assets| assets.postgres_binaries());
    let binaries = binaries.expect("these tests need the Postgres that `make build` fetches");
    // A space and some depth, as a newcomer's home may have.
    let data_dir = root.path().join("a data folder").join("deep/".repeat(30)).join("postgres");
    ClusterConfig::new(binaries, data_dir)
}

async fn ask(options: PgConnectOptions, question: &'static str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect_with(&options).await?;
    let answer: String = sqlx::query_scalar(question).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

/// Asks until it is answered: what a pool does while Postgres is away.
async fn ask_until_answered(cluster: &Cluster, question: &'static str) -> String {
    let since = std::time::Instant::now();
    loop {
        match ask(cluster.owner_options(), question).await {
            Ok(answer) => return answer,
            Err(error) => assert!(since.elapsed() < PATIENCE, "no answer after {PATIENCE:?}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn data(config: &ClusterConfig) -> PathBuf {
    config.data_dir.canonicalize().expect("made")
}

#[tokio::test]
async fn the_first_start_makes_the_roles_and_the_next_one_finds_the_data() {
    let root = TempDir::new().expect("a folder");
    let cluster = Cluster::start(config(&root)).await.expect("starts");
    ask(cluster.owner_options(), "CREATE TABLE kept AS SELECT 'here'::text AS word; ")
        .await
        .expect_err("no row");
    let roles = "SELECT string_agg(rolname || rolcanlogin || rolsuper, ' ' ORDER BY rolname)
                 FROM pg_roles WHERE rolname LIKE 'shieldgate%'";
    let expected = "shieldgate_ownertruefalse shieldgate_servicetruefalse";
    assert_eq!(ask(cluster.service_options(), roles).await.expect("answers"), expected);
    let durable = "SELECT concat_ws(' ', current_setting('fsync'), current_setting('full_page_writes'),
                   current_setting('synchronous_commit'), current_setting('listen_addresses'))";
    assert_eq!(ask(cluster.service_options(), durable).await.expect("answers"), "on on on ");
    let socket_dir = cluster.socket_dir.clone();
    cluster.stop().await;
    assert!(postmaster::all(&data(&config(&root))).is_empty(), "a process is left");
    assert!(!socket_dir.exists(), "the socket's folder is left");

    let cluster = Cluster::start(config(&root)).await.expect("starts again");
    assert_eq!(ask(cluster.owner_options(), "SELECT word FROM kept").await.expect("answers"), "here");
    cluster.stop().await;
}

#[tokio::test]
async fn a_killed_postmaster_comes_back_also_with_a_backend_at_work() {
    let root = TempDir::new().expect("a folder");
    let cluster = Cluster::start(config(&root)).await.expect("starts");
    let busy = PgConnection::connect_with(&cluster.owner_options()).await.expect("connects");
    // Orphaned with its postmaster; a new one refuses to start beside it.
    let busy = tokio::spawn(async move {
        let mut busy = busy;
        sqlx::raw_sql("SELECT pg_sleep(600)").execute(&mut busy).await
    });
    for _ in 0..2 {
        let before = cluster.postmaster_pid().expect("runs");
        postmaster::send(before, libc::SIGKILL);
        wait_until("the old one is gone", || cluster.postmaster_pid() != Some(before)).await;
        assert_eq!(ask_until_answered(&cluster, "SELECT 'back'").await, "back");
        wait_until("the new one is known", || cluster.postmaster_pid().is_some()).await;
    }
    assert!(busy.await.expect("joins").is_err(), "the query cannot have survived");
    cluster.stop().await;
    assert!(postmaster::all(&data(&config(&root))).is_empty(), "a process is left");
}

#[tokio::test]
async fn a_stop_while_postgres_is_dead_leaves_nothing() {
    let root = TempDir::new().expect("a folder");
    let cluster = Cluster::start(config(&root)).await.expect("starts");
    postmaster::send(cluster.postmaster_pid().expect("runs"), libc::SIGKILL);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let socket_dir = cluster.socket_dir.clone();
    cluster.stop().await;
    assert!(postmaster::all(&data(&config(&root))).is_empty(), "a process is left");
    assert!(!socket_dir.exists(), "the socket's folder is left");
}

#[tokio::test]
async fn the_postmaster_of_a_killed_service_is_adopted() {
    let root = TempDir::new().expect("a folder");
    let cluster = Cluster::start(config(&root)).await.expect("starts");
    let orphan = cluster.postmaster_pid().expect("runs");
    let mut cluster = cluster;
    // What SIGKILL does to a service: its lock is freed, its tasks are gone, nobody tells Postgres.
    let keeper = cluster.keeper.take().expect("kept");
    keeper.watcher.abort();
    keeper.watcher.await.expect_err("aborted");
    drop(keeper._lock);

    let adopter = Cluster::start(config(&root)).await.expect("adopts");
    assert_eq!(adopter.postmaster_pid(), Some(orphan));
    assert_eq!(ask(adopter.service_options(), "SELECT 'same'").await.expect("answers"), "same");
    // An adopted one is no child of ours, and is brought back all the same.
    postmaster::send(orphan, libc::SIGKILL);
    wait_until("the old one is gone", || adopter.postmaster_pid() != Some(orphan)).await;
    assert_eq!(ask_until_answered(&adopter, "SELECT 'back'").await, "back");
    adopter.stop().await;
    assert!(postmaster::all(&data(&config(&root))).is_empty(), "a process is left");
}

#[tokio::test]
async fn a_second_service_is_refused_and_a_command_works_beside_the_first() {
    let root = TempDir::new().expect("a folder");
    let service = Cluster::start(config(&root)).await.expect("starts");
    let error = Cluster::start(config(&root)).await.expect_err("one at a time").to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())) && error.contains("--data-dir"),
        "{error}"
    );

    let command = Cluster::attach_or_start(config(&root)).await.expect("attaches");
    assert_eq!(command.postmaster_pid(), service.postmaster_pid());
    assert_eq!(ask(command.owner_options(), "SELECT 'beside'").await.expect("answers"), "beside");
    command.stop().await;
    assert_eq!(ask(service.owner_options(), "SELECT 'still up'").await.expect("answers"), "still up");

    let elsewhere = TempDir::new().expect("a folder");
    let other = Cluster::start(config(&elsewhere)).await.expect("another folder is another cluster");
    assert_ne!(other.postmaster_pid(), service.postmaster_pid());
    other.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn commands_without_a_service_take_turns_and_leave_nothing_running() {
    let root = TempDir::new().expect("a folder");
    let work = |word: &'static str| {
        let config = config(&root);
        async move {
            let cluster = Cluster::attach_or_start(config).await.expect("starts");
            let answer = ask(cluster.owner_options(), word).await.expect("answers");
            cluster.stop().await;
            answer
        }
    };
    let (one, two) = tokio::join!(work("SELECT 'one'"), work("SELECT 'two'"));
    assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
    assert!(postmaster::all(&data(&config(&root))).is_empty(), "a process is left");
}

#[tokio::test]
async fn a_foreign_version_and_a_foreign_folder_are_refused_untouched() {
    let root = TempDir::new().expect("a folder");
    let config = config(&root);
    std::fs::create_dir_all(&config.data_dir).expect("makes");
    std::fs::write(config.data_dir.join("PG_VERSION"), "15\n").expect("writes");
    let error = Cluster::start(config.clone()).await.expect_err("foreign").to_string();
    assert!(error.contains("Postgres 15") && error.contains("DATABASE_URL"), "{error}");

    std::fs::rename(config.data_dir.join("PG_VERSION"), config.data_dir.join("letters.txt"))
        .expect("renames");
    let error = Cluster::start(config.clone()).await.expect_err("not a cluster").to_string();
    assert!(error.contains("neither empty nor a Postgres cluster"), "{error}");
    assert!(config.data_dir.join("letters.txt").exists());
}

#[tokio::test]
async fn what_an_interrupted_start_left_is_cleared() {
    let root = TempDir::new().expect("a folder");
    let config = config(&root);
    // A first start killed inside initdb, then a pid file whose number is somebody else's by now.
    let half = config.data_dir.with_file_name("postgres.incoming");
    std::fs::create_dir_all(half.join("base")).expect("makes");
    Cluster::start(config.clone()).await.expect("starts").stop().await;
    assert!(!half.exists());
    let stale =
        format!("{}\n{}\n1\n5432\n/tmp\n\n1 1\nready\n", std::process::id(), config.data_dir.display());
    std::fs::write(config.data_dir.join("postmaster.pid"), stale).expect("writes");
    let cluster = Cluster::start(config).await.expect("starts beside a stale pid file");
    assert_eq!(ask(cluster.owner_options(), "SELECT 'up'").await.expect("answers"), "up");
    cluster.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let root = TempDir::new().expect("a folder");
    let config = config(&root);
    Cluster::start(config.clone()).await.expect("starts").stop().await;
    std::fs::remove_dir_all(config.data_dir.join("global")).expect("breaks it");
    let error = Cluster::start(config.clone()).await.expect_err("broken").to_string();
    assert!(error.contains("postgres.log") && error.contains("global"), "{error}");
    assert!(postmaster::all(&data(&config)).is_empty(), "a process is left");
    // And the lock was given back with it.
    let again = Cluster::start(config).await.expect_err("still broken");
    assert!(matches!(again, ClusterError::DiedAtStart { .. }), "{again}");
}

/// Containers often forbid user namespaces; then root drops to another user, which reaches even a
/// private folder. Anybody else cannot become another user, and is told what was tried.
#[tokio::test]
async fn where_namespaces_are_forbidden_root_drops_to_another_user() {
    let root = TempDir::new().expect("a folder");
    let mut config = config(&root);
    config.ways = Some(RunAs::ways_of_root().split_off(1));
    if run_as::own_uid() != 0 {
        let error = Cluster::start(config).await.expect_err("not root").to_string();
        assert!(
            error.contains("no way round it works here") && error.contains("with CAP_DAC_OVERRIDE"),
            "{error}"
        );
        return;
    }
    // Made in a namespace first: the files change hands with the way.
    let mut by_default = config.clone();
    by_default.ways = None;
    Cluster::start(by_default.clone()).await.expect("starts").stop().await;
    let cluster = Cluster::start(config.clone()).await.expect("starts as somebody else");
    let pid = cluster.postmaster_pid().expect("runs");
    assert_ne!(std::fs::metadata(format!("/proc/{pid}")).expect("runs").uid(), 0);
    assert_eq!(ask(cluster.service_options(), "SELECT 'dropped'").await.expect("answers"), "dropped");
    postmaster::send(pid, libc::SIGKILL);
    wait_until("the old one is gone", || cluster.postmaster_pid() != Some(pid)).await;
    assert_eq!(ask_until_answered(&cluster, "SELECT 'back'").await, "back");
    cluster.stop().await;
    let cluster = Cluster::start(by_default).await.expect("takes the files back");
    assert_eq!(ask(cluster.service_options(), "SELECT 'again'").await.expect("answers"), "again");
    cluster.stop().await;
}
