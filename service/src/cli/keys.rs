//! `shieldgate keys create|list|revoke`.

use std::process::ExitCode;
use std::str::FromStr;

use conf::{Conf, Subcommands};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::connect::{Connected, Role};
use super::{Failed, output};
use crate::config::{Common, Database};
use crate::http::auth::{KEY_PREFIX, Scope};
use crate::store::keys::{self, ApiKey};
use crate::store::{self, Store, audit};
use crate::timestamp;

#[derive(Conf)]
pub(super) struct Keys {
    #[conf(subcommands)]
    command: KeysCommand,
}

#[derive(Subcommands)]
enum KeysCommand {
    /// Make a key and print it, once and alone, on stdout.
    Create(Create),
    /// List keys; what they are is not on record, only their hashes.
    List(List),
    /// Revoke a key; it is refused from the next request on.
    Revoke(Revoke),
}

#[derive(Conf)]
struct Create {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// What the key is for; the audit log names it.
    #[arg(long, env = "SHIELDGATE_NAME")]
    name: Name,
    /// What it may do, separated by commas: moderate, read, review, admin.
    #[arg(long, env = "SHIELDGATE_SCOPES")]
    scopes: Scopes,
    /// The project it belongs to.
    #[arg(long, env = "SHIELDGATE_PROJECT", default_value = "default")]
    project: Name,
    /// Submissions a second, in each process; no limit where absent.
    #[arg(long)]
    rate: Option<Rate>,
    /// Submissions a day (UTC), in all processes together; no limit where absent.
    #[arg(long)]
    daily_quota: Option<std::num::NonZeroU32>,
}

#[derive(Conf)]
struct List {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// Of one project only.
    #[arg(long, env = "SHIELDGATE_PROJECT")]
    project: Option<Name>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Conf)]
struct Revoke {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
    /// Id of the key, as `keys list` shows it.
    #[arg(pos)]
    id: Uuid,
    /// The project it belongs to.
    #[arg(long, env = "SHIELDGATE_PROJECT", default_value = "default")]
    project: Name,
}

#[derive(Serialize)]
struct Listed {
    id: Uuid,
    project: String,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    rate_per_second: Option<f32>,
    daily_quota: Option<u64>,
    #[serde(with = "timestamp")]
    created_at: time::OffsetDateTime,
    #[serde(with = "timestamp::option")]
    revoked_at: Option<time::OffsetDateTime>,
}

impl Keys {
    pub(super) fn common(&self) -> &Common {
        match &self.command {
            KeysCommand::Create(it) => &it.common,
            KeysCommand::List(it) => &it.common,
            KeysCommand::Revoke(it) => &it.common,
        }
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failed> {
        match self.command {
            KeysCommand::Create(create) => {
                let connected = Connected::open(&create.common, &create.database, Role::Command).await?;
                let made = make(&connected.store, &create).await;
                let judged = has_policies(&connected.store, &create.project.0).await;
                connected.close().await;
                let (id, key) = made?;
                if let Ok(false) = judged {
                    output::note(format_args!(
                        "project `{0}` has no active policy, so uploads will be answered 503\n  hint: `shieldgate policies apply DIR --activate --project {0}`",
                        create.project.0
                    ));
                }
                output::secret(&key).map_err(|error| {
                    format!("key `{id}` was made, but could not be printed ({error})\n  hint: `shieldgate keys revoke {id}`, and make another")
                })?;
            }
            KeysCommand::List(list) => {
                let connected = Connected::open(&list.common, &list.database, Role::Command).await?;
                let found = listed(&connected.store, list.project.as_ref().map(|name| name.0.as_str())).await;
                connected.close().await;
                show(&found?, list.json)?;
            }
            KeysCommand::Revoke(revoke) => {
                let connected = Connected::open(&revoke.common, &revoke.database, Role::Command).await?;
                let done = end(&connected.store, &revoke).await;
                connected.close().await;
                let key = done?.ok_or_else(|| {
                    format!("project `{}` has no key `{}` that is not revoked", revoke.project.0, revoke.id)
                })?;
                output::note(format_args!("revoked key `{}`", key.name));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Wrong ones are wrong use, so they are refused with the other options.
#[derive(Debug, Clone)]
struct Scopes(Vec<String>);

impl FromStr for Scopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut scopes = Vec::new();
        for word in text.split(',') {
            let word = word.trim().parse::<Scope>()?.word().to_owned();
            if !scopes.contains(&word) {
                scopes.push(word);
            }
        }
        Ok(Self(scopes))
    }
}

/// Submissions a second.
#[derive(Debug, Clone)]
struct Rate(f32);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.parse::<f32>().ok().filter(|rate| (0.001..=1e6).contains(rate));
        rate.map(Self).ok_or_else(|| format!("`{text}` is no rate: expected 0.001 to 1000000 a second"))
    }
}

/// Names end up in logs, the audit log and addresses.
#[derive(Debug, Clone)]
struct Name(String);

const NAME_BYTES_MAX: usize = 64;

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
        if !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}` is no name: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` and `@`"))
    }
}

async fn make(store: &Store, create: &Create) -> Result<(Uuid, String), Failed> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("{KEY_PREFIX}{secret}");
    let row = ApiKey {
        id: Uuid::now_v7(),
        project: create.project.0.clone(),
        name: create.name.0.clone(),
        prefix: key.chars().take(KEY_PREFIX.len() + 6).collect(),
        hash: Sha256::digest(key.as_bytes()).into(),
        scopes: create.scopes.0.clone(),
        rate_per_second: create.rate.as_ref().map(|rate| rate.0),
        daily_quota: create.daily_quota.map(|quota| u64::from(quota.get())),
        created_at: timestamp::now(),
        revoked_at: None,
    };
    let mut transaction = store.begin().await?;
    keys::create(&mut transaction, &row).await?;
    audit::append(&mut transaction, &[entry(&row, "key.created")]).await?;
    Store::commit(transaction).await?;
    Ok((row.id, key))
}

async fn has_policies(store: &Store, project: &str) -> store::Result<bool> {
    let mut conn = store.acquire().await?;
    Ok(!store::policies::in_force(&mut conn, project).await?.policies.is_empty())
}

async fn listed(store: &Store, project: Option<&str>) -> Result<Vec<ApiKey>, Failed> {
    let mut conn = store.acquire().await?;
    Ok(keys::list(&mut conn, project).await?)
}

async fn end(store: &Store, revoke: &Revoke) -> Result<Option<ApiKey>, Failed> {
    let mut transaction = store.begin().await?;
    let revoked = keys::revoke(&mut transaction, &revoke.project.0, revoke.id, timestamp::now()).await?;
    if let Some(key) = &revoked {
        audit::append(&mut transaction, &[entry(key, "key.revoked")]).await?;
    }
    Store::commit(transaction).await?;
    Ok(revoked)
}

fn entry(key: &ApiKey, act: &str) -> audit::Entry {
    audit::Entry {
        id: Uuid::now_v7(),
        at: timestamp::now(),
        project: key.project.clone(),
        actor: super::policies::person(),
        act: act.to_owned(),
        target: Some(key.id.to_string()),
        hashes: json!({}),
        detail: json!({
            "name": key.name,
            "prefix": key.prefix,
            "scopes": key.scopes,
            "rate_per_second": key.rate_per_second,
            "daily_quota": key.daily_quota,
        }),
    }
}

fn show(found: &[ApiKey], as_json: bool) -> Result<(), Failed> {
    let listed = found.iter().map(|key| Listed {
        id: key.id,
        project: key.project.clone(),
        name: key.name.clone(),
        prefix: key.prefix.clone(),
        scopes: key.scopes.clone(),
        rate_per_second: key.rate_per_second,
        daily_quota: key.daily_quota,
        created_at: key.created_at,
        revoked_at: key.revoked_at,
    });
    if as_json {
        return output::json(&listed.collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = listed
        .map(|key| {
            let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
            let limits = limits(&key);
            vec![
                key.id.to_string(),
                key.project,
                key.name,
                format!("{}…", key.prefix),
                key.scopes.join(","),
                limits,
                state.to_owned(),
            ]
        })
        .collect();
    output::table(&["ID", "PROJECT", "NAME", "KEY", "SCOPES", "LIMITS", "STATE"], &rows);
    Ok(())
}

fn limits(key: &Listed) -> String {
    let rate = key.rate_per_second.map(|rate| format!("{rate}/s"));
    let quota = key.daily_quota.map(|quota| format!("{quota}/day"));
    let limits: Vec<String> = rate.into_iter().chain(quota).collect();
    if limits.is_empty() { "none".to_owned() } else { limits.join(", ") }
}
