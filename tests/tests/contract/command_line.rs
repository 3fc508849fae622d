//! The command line as such: exit codes, what goes where, commands with and without a running service.

use shieldgate_tests::{Gate, shieldgate};
use tempfile::TempDir;

#[test]
fn wrong_use_is_2_and_help_is_0() {
    let folder = TempDir::new().expect("a folder");
    let run = |args: &[&str]| shieldgate(folder.path(), args, &[]);
    for args in [
        &[][..],
        &["nothing"],
        &["serve", "--no-such-flag"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--device", "tpu"],
        &["serve", "--media-keep", "some"],
        &["serve", "--queue-max", "-1"],
        &["keys"],
        &["models", "list", "--log-format", "xml"],
    ] {
        let done = run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}{}", done.stdout, done.stderr);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}: {done:?}");
    }
    for args in [&["--help"][..], &["serve", "--help"], &["keys", "create", "--help"], &["--version"]] {
        let done = run(args);
        assert!(
            done.code == Some(0) && !done.stdout.is_empty() && done.stderr.is_empty(),
            "{args:?}: {done:?}"
        );
    }
    let version = run(&["--version"]).good();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    // Every option says its name in the environment.
    let help = run(&["serve", "--help"]).good();
    assert!(help.contains("SHIELDGATE_LISTEN") && help.contains("--data-dir"), "{help}");
    assert_eq!(
        std::fs::read_dir(folder.path()).map(Iterator::count).unwrap_or_default(),
        0,
        "nothing was made"
    );
}

#[test]
fn commands_work_without_a_service_and_end_their_postgres() {
    let folder = TempDir::new().expect("a folder");
    let run = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--data-dir", "data"]).collect();
        shieldgate(folder.path(), &args, &[])
    };
    let created = run(&["keys", "create", "--name", "first", "--scopes", "moderate"]);
    assert!(created.stderr.is_empty(), "progress is not shown for a command: {}", created.stderr);
    let key = created.good();
    assert!(key.starts_with("sg_") && key.lines().count() == 1, "{key}");
    assert!(
        !folder.path().join("data/postgres/postmaster.pid").exists(),
        "it stopped the cluster it started"
    );
    assert!(run(&["keys", "list"]).good().contains("first"));
    run(&["migrate"]).good();
    let doctor = run(&["doctor"]).good();
    assert!(doctor.lines().all(|line| line.starts_with("ok ")), "{doctor}");
}

#[tokio::test]
async fn a_database_that_is_away_or_foreign_is_said() {
    let folder = TempDir::new().expect("a folder");
    let run = |args: &[&str], env: &[(&str, &str)]| shieldgate(folder.path(), args, env);
    let error = run(&["keys", "list"], &[("DATABASE_URL", "mysql://a")]).bad(1);
    assert!(error.contains("`DATABASE_URL` is no Postgres URL"), "{error}");
    let error = run(&["keys", "list"], &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]).bad(1);
    assert!(!error.contains("panicked"), "{error}");
    // Somebody else's folder is not made a cluster.
    let data = folder.path().join("mine");
    std::fs::create_dir_all(data.join("postgres")).expect("makes a folder");
    std::fs::write(data.join("postgres/letter.txt"), "dear").expect("writes");
    let failed = Gate::with().data_dir(&data).try_start().await.expect_err("it must not start");
    assert!(failed.code == Some(1) && failed.log.contains("mine/postgres"), "{}", failed.log);
    assert_eq!(std::fs::read_to_string(data.join("postgres/letter.txt")).ok().as_deref(), Some("dear"));
    std::fs::remove_file(data.join("postgres/letter.txt")).expect("removes");
    std::fs::write(data.join("postgres/PG_VERSION"), "9\n").expect("writes");
    let failed = Gate::with().data_dir(&data).try_start().await.expect_err("it must not start");
    assert!(failed.log.contains('9') && failed.log.contains("18"), "it names both versions: {}", failed.log);
}
