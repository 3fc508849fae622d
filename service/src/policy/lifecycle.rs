//! Import, activation and retirement of policy versions, each audited with actor and diff in its own transaction.

use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Policy;
use crate::store::policies::{self, Change, Import, Named, State};
use crate::store::{StoreError, audit};

#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("policy `{policy}` has no version `{version}`; `shieldgate policies apply` imports one")]
    Unknown { policy: String, version: String },
    #[error("the policy can't be written as JSON")]
    Canonical(#[from] serde_json::Error),
}

pub struct Imported {
    pub version: String,
    pub state: State,
    /// False: the same content was there already.
    pub new: bool,
}

pub struct Moved {
    /// The version that was active before.
    pub displaced: Option<String>,
    /// False: it was in that state already.
    pub changed: bool,
}

/// As draft; the caller commits.
pub async fn import(
    conn: &mut PgConnection,
    project: &str,
    policy: &Policy,
    actor: &str,
    at: OffsetDateTime,
) -> Result<Imported, LifecycleError> {
    let version = policy.version()?;
    let body: Value = serde_json::from_str(&policy.canonical()?)?;
    let named = Named { project, policy: &policy.id, version: &version };
    match policies::import_draft(conn, named, &body, actor, at).await? {
        Import::AlreadyThere(state) => Ok(Imported { version, state, new: false }),
        Import::Imported => {
            let detail = json!({"policy": policy.id, "state": "draft"});
            audit::append(conn, &[entry(named, "policy.imported", detail, actor, at)]).await?;
            Ok(Imported { version, state: State::Draft, new: true })
        }
    }
}

/// The caller commits. Activating a retired version is the rollback.
pub async fn set_state(
    conn: &mut PgConnection,
    named: Named<'_>,
    state: State,
    actor: &str,
    at: OffsetDateTime,
) -> Result<Moved, LifecycleError> {
    match policies::set_state(conn, named, state, actor, at).await? {
        Change::Unknown => Err(LifecycleError::Unknown {
            policy: named.policy.to_owned(),
            version: named.version.to_owned(),
        }),
        Change::Unchanged => Ok(Moved { displaced: None, changed: false }),
        Change::Changed { from, displaced, generation } => {
            let diff = match &displaced {
                Some(before) => {
                    let before = policies::version(conn, Named { version: before, ..named }).await?;
                    let after = policies::version(conn, named).await?;
                    diff(before.as_ref().map(|v| &v.body), after.as_ref().map(|v| &v.body))
                }
                None => Value::Null,
            };
            let act = match state {
                State::Active => "policy.activated",
                State::Shadow => "policy.shadowed",
                State::Retired => "policy.retired",
                State::Draft => "policy.drafted",
            };
            let detail = json!({
                "policy": named.policy, "from": from, "displaced": displaced,
                "generation": generation, "diff": diff,
            });
            audit::append(conn, &[entry(named, act, detail, actor, at)]).await?;
            Ok(Moved { displaced, changed: true })
        }
    }
}

fn entry(named: Named<'_>, act: &str, detail: Value, actor: &str, at: OffsetDateTime) -> audit::Entry {
    audit::Entry {
        id: Uuid::now_v7(),
        at,
        project: named.project.to_owned(),
        actor: actor.to_owned(),
        act: act.to_owned(),
        target: Some(named.policy.to_owned()),
        hashes: json!({"version": named.version}),
        detail,
    }
}

/// The members that differ, each with its value before and after.
fn diff(before: Option<&Value>, after: Option<&Value>) -> Value {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) else {
        return Value::Null;
    };
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let changed = keys
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| (key.clone(), json!({"before": before.get(key), "after": after.get(key)})));
    Value::Object(changed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_what_changed_and_nothing_else() {
        let before = json!({"id": "a", "title": "A", "frames": "max"});
        let after = json!({"id": "a", "title": "B", "openai": []});
        let expected = json!({
            "title": {"before": "A", "after": "B"},
            "frames": {"before": "max", "after": null},
            "openai": {"before": null, "after": []},
        });
        assert_eq!(diff(Some(&before), Some(&after)), expected);
    }
}
