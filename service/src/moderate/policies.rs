//! The policy sets in force, one a project, read again when the store's generation moves on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use super::{ModerateError, Moderator};
use crate::policy::Policy;
use crate::policy::active::{ActivePolicy, ActiveSet, ResolveError};
use crate::scheduler::Scheduler;
use crate::store::policies::State;
use crate::store::{self, Store, StoreError};

/// Every request compares generations, so a change made by any process counts from the next request on.
#[derive(Default)]
pub struct PolicyCache {
    sets: RwLock<HashMap<String, Arc<ActiveSet>>>,
}

impl PolicyCache {
    /// The set of `project` at `generation`, or at the one that has come since.
    pub async fn get(
        &self,
        store: &Store,
        scheduler: &Scheduler,
        project: &str,
        generation: i64,
    ) -> Result<Arc<ActiveSet>, ModerateError> {
        let held = self.sets.read().unwrap_or_else(PoisonError::into_inner).get(project).cloned();
        // Equal and not newer: after a restore from a backup the counter begins lower.
        if let Some(set) = held.filter(|set| set.generation == generation) {
            return Ok(set);
        }
        let set = Arc::new(load(store, scheduler, project).await?);
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        sets.insert(project.to_owned(), Arc::clone(&set));
        Ok(set)
    }
}

impl Moderator {
    /// Which categories of the OpenAI moderation API the policies of `project` feed, by policy.
    pub async fn feeds(&self, project: &str) -> Result<BTreeMap<String, Vec<String>>, ModerateError> {
        let held = self.policies.sets.read().unwrap_or_else(PoisonError::into_inner).get(project).cloned();
        let set = match held {
            // That of the verdicts just given, or a newer one.
            Some(set) => set,
            None => Arc::new(self.store.in_time(load(&self.store, &self.scheduler, project)).await?),
        };
        let of = |active: &ActivePolicy| (active.policy.id.clone(), active.policy.openai.clone());
        Ok(set.policies.iter().map(of).collect())
    }
}

/// Reads and resolves the versions in force. A shadow version that can't be judged here is left out: it
/// has no effect, so its lack must have none either.
pub async fn load(store: &Store, scheduler: &Scheduler, project: &str) -> Result<ActiveSet, ModerateError> {
    let in_force = {
        let mut conn = store.acquire().await?;
        store::policies::in_force(&mut conn, project).await?
    };
    let (mut policies, mut shadows) = (Vec::new(), Vec::new());
    for version in in_force.policies {
        let shadow = version.state == State::Shadow;
        let policy: Policy =
            serde_json::from_value(version.body).map_err(|source| StoreError::Inconsistent {
                table: "policy_versions",
                column: "body",
                row: format!("{project}/{}/{}", version.policy, version.version),
                source: Box::new(source),
            })?;
        match (resolve(policy, version.version, scheduler), shadow) {
            (resolved, false) => policies.push(resolved?),
            (Ok(resolved), true) => shadows.push(resolved),
            (Err(error), true) => tracing::warn!(project, %error, "a shadow version is not judged here"),
        }
    }
    Ok(ActiveSet { generation: in_force.generation, policies, shadows })
}

/// Against the judges of this process.
pub fn resolve(policy: Policy, version: String, scheduler: &Scheduler) -> Result<ActivePolicy, ResolveError> {
    let names: Vec<String> = scheduler.cards().map(|card| card.name.clone()).collect();
    ActivePolicy::resolve(policy, version, |name| scheduler.judge(name), &names)
}
