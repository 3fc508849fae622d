//! `shieldgate policies check|apply|activate|retire|list`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use conf::{Conf, Subcommands};
use shieldgate_models::Judge;
use shieldgate_models::installed::Installed;

use super::connect::{Connected, Role};
use super::{Failed, output};
use crate::assets::Assets;
use crate::config::{Common, Database};
use crate::policy::Policy;
use crate::policy::active::ActivePolicy;
use crate::policy::file::{self, FileFault};
use crate::policy::lifecycle;
use crate::store::policies::{Named, PolicyVersion, State};
use crate::store::{self, Store};
use crate::timestamp;

#[derive(Conf)]
pub(super) struct Policies {
    #[conf(subcommands)]
    command: PoliciesCommand,
}

#[derive(Subcommands)]
enum PoliciesCommand {
    /// Check policy files; needs no database.
    Check(Check),
    /// Import policy files as drafts.
    Apply(Apply),
    /// Activate a version; an older one is the rollback.
    Activate(Move),
    /// Retire a version, so that it judges no more.
    Retire(Move),
    /// List versions and their states.
    List(List),
}

#[derive(Conf)]
struct Check {
    #[conf(flatten)]
    common: Common,
    /// A folder of policy files, or one file.
    #[arg(pos)]
    path: PathBuf,
}

#[derive(Conf)]
struct Apply {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// A folder of policy files, or one file.
    #[arg(pos)]
    path: PathBuf,
    /// Activate them as well.
    #[arg(long)]
    activate: bool,
    /// The project they are for.
    #[arg(long, env = "SHIELDGATE_PROJECT", default_value = "default")]
    project: String,
}

#[derive(Conf)]
struct Move {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// The policy's id.
    #[arg(pos)]
    policy: String,
    /// The version, or as much of its beginning as is unambiguous.
    #[arg(pos)]
    version: String,
    /// The project it belongs to.
    #[arg(long, env = "SHIELDGATE_PROJECT", default_value = "default")]
    project: String,
}

#[derive(Conf)]
struct List {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// The project.
    #[arg(long, env = "SHIELDGATE_PROJECT", default_value = "default")]
    project: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

impl Policies {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            PoliciesCommand::Check(it) => &it.common,
            PoliciesCommand::Apply(it) => &it.common,
            PoliciesCommand::Activate(it) | PoliciesCommand::Retire(it) => &it.common,
            PoliciesCommand::List(it) => &it.common,
        }
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failed> {
        match self.command {
            PoliciesCommand::Check(check) => {
                for policy in read(&check.path)? {
                    output::line(format_args!("{} {} good", policy.id, short(&policy.version()?)));
                }
            }
            PoliciesCommand::Apply(it) => {
                let read = read(&it.path)?;
                if it.activate {
                    askable(&it.common, &read)?;
                }
                let connected = Connected::open(&it.common, &it.database, Role::Command).await?;
                let done = apply(&connected.store, &it.project, &read, &person(), it.activate).await;
                connected.close().await;
                for applied in done? {
                    output::line(applied);
                }
            }
            PoliciesCommand::Activate(it) => change(it, State::Active).await?,
            PoliciesCommand::Retire(it) => change(it, State::Retired).await?,
            PoliciesCommand::List(it) => {
                let connected = Connected::open(&it.common, &it.database, Role::Command).await?;
                let found = versions(&connected.store, &it.project, None).await;
                connected.close().await;
                show(&found?, it.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Who acts on this machine, as the audit log names it.
pub(super) fn person() -> String {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let name =
        name.filter(|name| !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control));
    // SAFETY: geteuid has no preconditions and always succeeds.
    format!("cli:{}", name.unwrap_or_else(|| format!("uid-{}", unsafe { libc::geteuid() })))
}

pub(super) fn shipped() -> Result<Vec<Policy>, Failed> {
    file::SHIPPED
        .iter()
        .map(|(name, text)| file::parse(Path::new(name), text).map_err(|faults| joined(&faults)))
        .collect()
}

pub(super) fn read(path: &Path) -> Result<Vec<Policy>, Failed> {
    file::read_all(path).map_err(|faults| joined(&faults))
}

fn joined(faults: &[FileFault]) -> Failed {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\nerror: ").into()
}

/// A policy that can't be judged would turn every upload into a 503: so its judges are opened and asked
/// for their questions before it is activated, as the service does.
fn askable(common: &Common, policies: &[Policy]) -> Result<(), Failed> {
    let installed = super::models::all(common, &Assets::find(common.assets.as_deref())?)?;
    let opened = super::models::open_for(&super::models::runtime(common)?, &installed, policies)?;
    resolve(policies, &opened, &installed).map(drop)
}

/// Against the judges of this machine that are open.
pub(super) fn resolve(
    policies: &[Policy],
    opened: &[Box<dyn Judge>],
    installed: &[Installed],
) -> Result<Vec<ActivePolicy>, Failed> {
    let names: Vec<String> = installed.iter().map(|model| model.name.clone()).collect();
    let find = |name: &str| opened.iter().map(|judge| &**judge).find(|judge| judge.card().name == name);
    let resolved = policies
        .iter()
        .map(|policy| Ok(ActivePolicy::resolve(policy.clone(), policy.version()?, find, &names)?));
    resolved.collect()
}

fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}

/// One transaction: all of them or none.
pub(super) async fn apply(
    store: &Store,
    project: &str,
    policies: &[Policy],
    actor: &str,
    activate: bool,
) -> Result<Vec<String>, Failed> {
    let mut transaction = store.begin().await?;
    let mut lines = Vec::new();
    for policy in policies {
        let at = timestamp::now();
        let imported = lifecycle::import(&mut transaction, project, policy, actor, at).await?;
        let mut what = match (imported.new, imported.state) {
            (true, _) => "imported as draft".to_owned(),
            (false, state) => format!("was there already, {}", word(state)),
        };
        if activate {
            let named = Named { project, policy: &policy.id, version: &imported.version };
            let moved = lifecycle::set_state(&mut transaction, named, State::Active, actor, at).await?;
            if moved.changed {
                what = "active".to_owned();
            }
        }
        lines.push(format!("{} {} {what}", policy.id, short(&imported.version)));
    }
    Store::commit(transaction).await?;
    Ok(lines)
}

fn word(state: State) -> &'static str {
    match state {
        State::Draft => "draft",
        State::Shadow => "shadow",
        State::Active => "active",
        State::Retired => "retired",
    }
}

async fn versions(store: &Store, project: &str, policy: Option<&str>) -> Result<Vec<PolicyVersion>, Failed> {
    let mut conn = store.acquire().await?;
    Ok(store::policies::versions(&mut conn, project, policy).await?)
}

async fn change(it: Move, state: State) -> Result<(), Failed> {
    let connected = Connected::open(&it.common, &it.database, Role::Command).await?;
    let done = moved(&connected.store, &it, state).await;
    connected.close().await;
    output::line(done?);
    Ok(())
}

async fn moved(store: &Store, it: &Move, state: State) -> Result<String, Failed> {
    let known = versions(store, &it.project, Some(&it.policy)).await?;
    let fitting: Vec<&PolicyVersion> =
        known.iter().filter(|known| known.version.starts_with(&it.version)).collect();
    let [found] = fitting.as_slice() else {
        let listed: Vec<&str> = known.iter().map(|known| short(&known.version)).collect();
        let why = if fitting.is_empty() { "no" } else { "more than one" };
        return Err(format!(
            "policy `{}` of project `{}` has {why} version that begins with `{}`\n  hint: its versions are {}",
            it.policy,
            it.project,
            it.version,
            if listed.is_empty() { "none; `policies apply` imports one".to_owned() } else { listed.join(", ") }
        )
        .into());
    };
    if state == State::Active {
        askable(&it.common, &[serde_json::from_value(found.body.clone())?])?;
    }
    let named = Named { project: &it.project, policy: &it.policy, version: &found.version };
    let mut transaction = store.begin().await?;
    let moved = lifecycle::set_state(&mut transaction, named, state, &person(), timestamp::now()).await?;
    Store::commit(transaction).await?;
    let displaced = moved.displaced.map(|old| format!("; {} is retired", short(&old))).unwrap_or_default();
    Ok(format!("{} {} {}{displaced}", it.policy, short(&found.version), word(state)))
}

fn show(found: &[PolicyVersion], as_json: bool) -> Result<(), Failed> {
    if as_json {
        let rows = found.iter().map(|row| {
            serde_json::json!({"policy": row.policy, "version": row.version, "state": row.state, "body": row.body})
        });
        return output::json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|row| {
            vec![
                row.policy.clone(),
                short(&row.version).to_owned(),
                word(row.state).to_owned(),
                row.state_by.clone(),
            ]
        })
        .collect();
    output::table(&["POLICY", "VERSION", "STATE", "BY"], &rows);
    Ok(())
}
