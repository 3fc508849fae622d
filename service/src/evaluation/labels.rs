//! Labels of a row, by the names that data sets use, and what they say of a policy.
//!
//! `self-harm/intent`, `self_harm_intent` and `Self-Harm Intent` are one name. A label is a policy's where it
//! is spelt like the policy's id or like one of its OpenAI categories. 1 is *breaks it*, 0 is *does not*; a
//! label that is absent or null says nothing, but that a subcategory is 0 where its category is. `safe` is a
//! name of its own: 1 is *breaks nothing at all*, 0 is *is harmful in some way*.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::policy::Policy;

/// The name for what breaks no policy.
pub(super) const SAFE: &str = "safe";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    by_name: BTreeMap<String, bool>,
    safe: Option<bool>,
}

impl Labels {
    pub(super) fn read(labels: &Map<String, Value>) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for (name, value) in labels {
            let label = match value {
                Value::Null => continue,
                Value::Bool(label) => *label,
                Value::Number(number) if number.as_f64() == Some(0.0) => false,
                Value::Number(number) if number.as_f64() == Some(1.0) => true,
                other => {
                    return Err(format!(
                        "label `{name}` is {other}; expected 0, 1, or null where nobody labelled it"
                    ));
                }
            };
            if found.insert(spelt(name), label).is_some() {
                return Err(format!("label `{name}` stands twice, spelt in two ways: keep one"));
            }
        }
        let safe = found.remove(SAFE);
        match found.iter().find(|(_, label)| **label) {
            Some((name, _)) if safe == Some(true) => {
                Err(format!("it is labelled `{SAFE}`, and `{name}` as well: mend one of the two"))
            }
            _ => Ok(Self { by_name: found, safe }),
        }
    }

    /// One label alone, and it is 1.
    pub(super) fn only(name: &str) -> Self {
        let name = spelt(name);
        if name == SAFE {
            return Self { by_name: BTreeMap::new(), safe: Some(true) };
        }
        Self { by_name: BTreeMap::from([(name, true)]), safe: None }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether the row breaks a policy. The label of its own id decides; else it breaks the policy where it is
    /// in any of the policy's categories, and does not where it is in none of all of them.
    pub fn of_policy(&self, policy: &Policy) -> Option<bool> {
        if self.safe == Some(true) {
            return Some(false);
        }
        if let Some(label) = self.by_name.get(&spelt(&policy.id)) {
            return Some(*label);
        }
        let labels = || policy.openai.iter().map(|category| self.of_category(category));
        if labels().any(|label| label == Some(true)) {
            return Some(true);
        }
        (!policy.openai.is_empty() && labels().all(|label| label == Some(false))).then_some(false)
    }

    fn of_category(&self, category: &str) -> Option<bool> {
        let own = self.by_name.get(&spelt(category)).copied();
        own.or_else(|| {
            let (above, _) = category.split_once('/')?;
            self.by_name.get(&spelt(above)).copied().filter(|label| !label)
        })
    }

    /// Whether the row is harmful in any way that somebody labelled; none where nobody did.
    pub fn harm(&self) -> Option<bool> {
        if self.by_name.values().any(|label| *label) {
            return Some(true);
        }
        match self.safe {
            Some(safe) => Some(!safe),
            None => (!self.by_name.is_empty()).then_some(false),
        }
    }
}

/// Whether a name is a policy's.
pub(super) fn is_of(name: &str, policy: &Policy) -> bool {
    let name = spelt(name);
    name == spelt(&policy.id) || policy.openai.iter().any(|category| name == spelt(category))
}

/// As names are compared.
pub(super) fn spelt(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', '/', ' '], "-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(id: &str, openai: &[&str]) -> Policy {
        serde_json::from_value(json!({
            "id": id, "title": "T", "modality": "text", "text": "T", "openai": openai,
            "judges": [{"name": "a", "thresholds": {"review": 0.5, "block": 0.8}}],
        }))
        .expect("a policy")
    }

    fn labels(value: Value) -> Labels {
        Labels::read(value.as_object().expect("an object")).expect("labels")
    }

    #[test]
    fn names_match_in_every_spelling() {
        let self_harm = policy("self-harm", &["self-harm", "self-harm/intent"]);
        for name in ["self-harm", "self_harm", "Self-Harm", "self/harm", "self harm"] {
            assert_eq!(labels(json!({name: 1})).of_policy(&self_harm), Some(true), "{name}");
            assert!(is_of(name, &self_harm));
        }
        assert_eq!(labels(json!({"self_harm_intent": 1})).of_policy(&self_harm), Some(true));
        assert_eq!(labels(json!({"selfharm": 1})).of_policy(&self_harm), None);
        assert!(!is_of("self-harm/instructions", &self_harm));
    }

    #[test]
    fn what_is_absent_says_nothing() {
        let threats = policy("threats", &["harassment/threatening", "violence"]);
        let of = |value| labels(value).of_policy(&threats);
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"violence": null, "hate": 1})), None);
        assert_eq!(of(json!({"violence": 0})), None, "the other category may be anything");
        assert_eq!(of(json!({"violence": 1})), Some(true));
        assert_eq!(of(json!({"violence": 0, "harassment_threatening": 0})), Some(false));
        // What is no harassment is no threatening one; what is may be.
        assert_eq!(of(json!({"violence": 0, "harassment": 0})), Some(false));
        assert_eq!(of(json!({"violence": 0, "harassment": 1})), None);
        // The policy's own name decides.
        assert_eq!(of(json!({"violence": 1, "threats": 0})), Some(false));
        assert_eq!(of(json!({"threats": true})), Some(true));
    }

    #[test]
    fn any_harm_is_any_label() {
        assert_eq!(labels(json!({})).harm(), None);
        assert_eq!(labels(json!({"a": 0, "b": null})).harm(), Some(false));
        assert_eq!(labels(json!({"a": 0, "b": 1.0})).harm(), Some(true));
    }

    #[test]
    fn safe_is_said_of_everything() {
        let policy = policy("threats", &["violence"]);
        let of = |labels: Labels| (labels.of_policy(&policy), labels.harm());
        assert_eq!(of(labels(json!({"safe": 1}))), (Some(false), Some(false)));
        assert_eq!(of(Labels::only("Safe")), (Some(false), Some(false)));
        assert_eq!(of(labels(json!({"safe": 0, "violence": 0}))), (Some(false), Some(true)));
        assert_eq!(of(labels(json!({"safe": 0}))), (None, Some(true)));
        assert_eq!(of(Labels::only("violence")), (Some(true), Some(true)));
        let both = json!({"safe": 1, "violence": 1});
        let error = Labels::read(both.as_object().expect("an object")).expect_err("refused");
        assert!(error.contains("`safe`, and `violence` as well"), "{error}");
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for bad in [json!({"a": 2}), json!({"a": "1"}), json!({"a": 0.5}), json!({"a": [1]})] {
            let error = Labels::read(bad.as_object().expect("an object")).expect_err("refused");
            assert!(error.starts_with("label `a` is ") && error.contains("expected 0, 1"), "{error}");
        }
        let twice = json!({"self-harm": 0, "self_harm": 1});
        let error = Labels::read(twice.as_object().expect("an object")).expect_err("refused");
        assert!(error.contains("stands twice"), "{error}");
    }
}
