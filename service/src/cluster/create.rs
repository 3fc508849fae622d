//! The cluster's folder: made by `initdb` on the first start, checked on every later one.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::ClusterConfig;
use super::error::ClusterError;
use super::run_as::{RunAs, own_name};

pub(super) const SUPERUSER: &str = "postgres";

/// From this version on a cluster needs no locale of the system.
const BUILTIN_LOCALES_SINCE: u32 = 17;

/// Makes sure that `data` is a cluster these binaries can run, owned by whom they run as.
pub(super) async fn ensure(config: &ClusterConfig, data: &Path) -> Result<RunAs, ClusterError> {
    let binaries = config.binaries.as_path();
    let failed = |source| ClusterError::DataDir { path: data.to_owned(), source };
    sweep(data).map_err(failed)?;
    let version = std::fs::read_to_string(data.join("PG_VERSION"));
    match version {
        Ok(found) => {
            let run_as = RunAs::choose(config.ways.as_deref(), binaries, data).await?;
            let expected = major_version(&run_as, binaries).await?;
            if found.trim() != expected.to_string() {
                let found = found.trim().to_owned();
                return Err(ClusterError::ForeignVersion { data_dir: data.to_owned(), found, expected });
            }
            run_as.own(data).map_err(failed)?;
            Ok(run_as)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if data.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(ClusterError::NotACluster(data.to_owned()));
            }
            create(config, data).await
        }
        Err(source) => Err(failed(source)),
    }
}

/// Made beside its place and renamed into it: a first start that is killed leaves nothing half.
async fn create(config: &ClusterConfig, data: &Path) -> Result<RunAs, ClusterError> {
    let binaries = config.binaries.as_path();
    let failed = |source| ClusterError::DataDir { path: data.to_owned(), source };
    let incoming = incoming(data);
    DirBuilder::new().mode(0o700).create(&incoming).map_err(failed)?;
    let run_as = RunAs::choose(config.ways.as_deref(), binaries, &incoming).await?;
    let version = major_version(&run_as, binaries).await?;

    let mut command = run_as.command(binaries.join("initdb"));
    command.arg("--pgdata").arg(&incoming).current_dir("/");
    command.args(["--username", SUPERUSER, "--encoding=UTF8", "--auth=reject", "--data-checksums"]);
    if version >= BUILTIN_LOCALES_SINCE {
        command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]);
    } else {
        command.arg("--locale=C");
    }
    let program = || "initdb".to_owned();
    // Killed with its future, or the next start would sweep the folder under its hands.
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| ClusterError::Program { program: program(), output: error.to_string() })?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(ClusterError::Program { program: program(), output });
    }
    // An empty folder may stand at the place; renaming over it is allowed.
    std::fs::rename(&incoming, data).map_err(failed)?;
    if let Some(parent) = data.parent() {
        std::fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    tracing::info!(data_dir = %data.display(), version, "made the private Postgres cluster");
    Ok(run_as)
}

/// Who may connect, written on every start because it follows from how Postgres runs today. The
/// socket's folder is closed to everybody but its owner. Where that owner is not us, only our own
/// user may come in; inside a user namespace all users look alike, so there the folder alone guards.
pub(super) async fn write_access_rules(run_as: &RunAs, data: &Path) -> Result<(), ClusterError> {
    let failed = |source| ClusterError::DataDir { path: data.to_owned(), source };
    let version = std::fs::read_to_string(data.join("PG_VERSION")).map_err(failed)?;
    let maps_to_all = version.trim().parse::<u32>().is_ok_and(|major| major >= 16);
    let (rules, names) = match own_name().await {
        Some(name) if run_as.peers_are_visible() && maps_to_all => {
            ("local all all peer map=shieldgate\n", format!("shieldgate \"{name}\" all\n"))
        }
        _ => ("local all all trust\n", String::new()),
    };
    for (file, content) in [("pg_hba.conf", rules), ("pg_ident.conf", names.as_str())] {
        let path = data.join(file);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(content) {
            std::fs::write(&path, content).map_err(failed)?;
            run_as.own(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// `postgres (PostgreSQL) 18.6` → 18.
async fn major_version(run_as: &RunAs, binaries: &Path) -> Result<u32, ClusterError> {
    let program = binaries.join("postgres");
    let failed = |output: String| ClusterError::Program {
        program: format!("{} --version", program.display()),
        output,
    };
    let output = run_as.command(&program).arg("--version").current_dir("/").output().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number
        .and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .ok_or_else(|| failed(format!("{text}{}", String::from_utf8_lossy(&output.stderr))))
}

fn incoming(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".incoming");
    data.with_file_name(name)
}

/// What an interrupted `initdb` left. We hold the lock, so nobody is at it.
fn sweep(data: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(incoming(data)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
