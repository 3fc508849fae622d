//! The policies in force for one project, each with the judges that will be asked and their questions.

use shieldgate_models::{Judge, PolicyText, Question};

use super::{JudgeUse, Modality, Policy, WhenMissing};
use crate::verdict::{JudgeNotRun, PolicyNotRun};

/// One active version, resolved against the judges of this process.
#[derive(Debug, Clone)]
pub struct ActivePolicy {
    pub policy: Policy,
    pub version: String,
    /// The judges that will be asked; empty where none is installed.
    pub asked: Vec<Asked>,
    pub judges_not_run: Vec<JudgeNotRun>,
}

/// One judge of one policy.
#[derive(Debug, Clone)]
pub struct Asked {
    pub judge: JudgeUse,
    pub question: Question,
}

/// The set in force.
#[derive(Debug, Clone, Default)]
pub struct ActiveSet {
    /// The store's counter when this was read: a newer one means a newer set.
    pub generation: i64,
    pub policies: Vec<ActivePolicy>,
    /// Versions in the shadow: judged and recorded, without effect.
    pub shadows: Vec<ActivePolicy>,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(
        "policy `{policy}` needs judge `{judge}`, which is not installed; add it with `shieldgate models add`, or let the policy say `when_missing: skip` (installed: {installed})"
    )]
    Missing { policy: String, judge: String, installed: String },
    #[error("policy `{policy}` is for {modality}s, and judge `{judge}` judges {judges}s: name another judge")]
    WrongModality { policy: String, modality: &'static str, judge: String, judges: &'static str },
    #[error(transparent)]
    Question(#[from] shieldgate_models::QuestionError),
}

impl ActivePolicy {
    /// Finds the policy's judges among those installed and asks each for its question.
    pub fn resolve<'j>(
        policy: Policy,
        version: String,
        installed: impl Fn(&str) -> Option<&'j dyn Judge>,
        names: &[String],
    ) -> Result<Self, ResolveError> {
        let mut asked = Vec::new();
        let mut judges_not_run = Vec::new();
        for judge in &policy.judges {
            match installed(&judge.name) {
                Some(found) => {
                    let judges = Modality::from(found.card().modality);
                    if judges != policy.modality {
                        return Err(ResolveError::WrongModality {
                            policy: policy.id.clone(),
                            modality: policy.modality.word(),
                            judge: judge.name.clone(),
                            judges: judges.word(),
                        });
                    }
                    let question = found.question(&PolicyText {
                        id: &policy.id,
                        text: &policy.text,
                        head: judge.head.as_deref(),
                        temperature: judge.calibration.temperature,
                        alpha: judge.calibration.alpha,
                    })?;
                    asked.push(Asked { judge: judge.clone(), question });
                }
                None if policy.when_missing == WhenMissing::Skip => judges_not_run.push(JudgeNotRun {
                    name: judge.name.clone(),
                    reason: format!("judge `{}` is not installed", judge.name),
                }),
                None => {
                    return Err(ResolveError::Missing {
                        policy: policy.id.clone(),
                        judge: judge.name.clone(),
                        installed: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
                    });
                }
            }
        }
        Ok(Self { policy, version, asked, judges_not_run })
    }

    /// Why this policy can't be judged at all here, if so.
    pub fn not_run(&self) -> Option<PolicyNotRun> {
        if !self.asked.is_empty() {
            return None;
        }
        let reasons: Vec<&str> = self.judges_not_run.iter().map(|judge| judge.reason.as_str()).collect();
        Some(PolicyNotRun { policy: self.policy.id.clone(), reason: reasons.join("; ") })
    }
}

impl ActiveSet {
    /// The shadow versions of the policies that were selected.
    pub fn shadows_of(&self, selected: &[&ActivePolicy]) -> Vec<ActivePolicy> {
        let asked =
            |shadow: &&ActivePolicy| selected.iter().any(|active| active.policy.id == shadow.policy.id);
        self.shadows.iter().filter(asked).cloned().collect()
    }

    /// The policies for one kind of content; with `only`, those alone, or the first name that is not active.
    pub fn select(&self, modality: Modality, only: Option<&[String]>) -> Result<Vec<&ActivePolicy>, String> {
        let of_kind = || self.policies.iter().filter(move |active| active.policy.modality == modality);
        let Some(only) = only else { return Ok(of_kind().collect()) };
        let mut selected: Vec<&ActivePolicy> = Vec::new();
        for name in only {
            let active = of_kind().find(|active| active.policy.id == *name).ok_or_else(|| name.clone())?;
            if !selected.iter().any(|other| other.policy.id == *name) {
                selected.push(active);
            }
        }
        Ok(selected)
    }
}
