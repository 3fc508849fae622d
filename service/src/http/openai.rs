//! The OpenAI moderation shape, out of verdicts. All 13 keys always stand in all three maps: official clients read
//! a missing key as safe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::policy::{Modality, OPENAI_CATEGORIES};
use crate::verdict::{Action, Outcome, PolicyAnswer, Verdict};

/// Answer of `POST /v1/moderations`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Moderation {
    /// `modr-` and the submission's id.
    id: String,
    /// `shieldgate`: which judges answered stands in the verdicts.
    model: String,
    /// One for a string or for an array of parts; one each for an array of strings.
    results: Vec<ModerationResult>,
    shieldgate: Recorded,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ModerationResult {
    /// Any category, or an action other than allow.
    flagged: bool,
    /// All 13: whether a policy that feeds it does not allow.
    categories: BTreeMap<String, bool>,
    /// All 13: the probability that decided the policy; 0 where no policy covers the category.
    category_scores: BTreeMap<String, f32>,
    /// All 13: `text`, `image`, or nothing where no policy covers the category.
    category_applied_input_types: BTreeMap<String, Vec<String>>,
}

/// What is on record.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Recorded {
    submission_id: Uuid,
    /// The worst of all.
    action: Action,
    /// One a content, in the order of the input.
    verdicts: Vec<Verdict>,
}

/// Which categories a policy feeds, by its id.
pub(super) type Feeds = BTreeMap<String, Vec<String>>;

/// `together`: all verdicts make one result.
pub(super) fn moderation(
    submission_id: Uuid,
    verdicts: Vec<Verdict>,
    together: bool,
    feeds: &Feeds,
) -> Moderation {
    let results = if together {
        vec![result(&verdicts, feeds)]
    } else {
        verdicts.iter().map(|verdict| result(std::slice::from_ref(verdict), feeds)).collect()
    };
    let action = verdicts.iter().map(|verdict| verdict.action).max().unwrap_or(Action::Review);
    Moderation {
        id: format!("modr-{}", submission_id.simple()),
        model: "shieldgate".to_owned(),
        results,
        shieldgate: Recorded { submission_id, action, verdicts },
    }
}

fn result(verdicts: &[Verdict], feeds: &Feeds) -> ModerationResult {
    let all = || OPENAI_CATEGORIES.iter().map(|category| (*category).to_owned());
    let mut result = ModerationResult {
        flagged: verdicts.iter().any(|verdict| verdict.action != Action::Allow),
        categories: all().map(|category| (category, false)).collect(),
        category_scores: all().map(|category| (category, 0.0)).collect(),
        category_applied_input_types: all().map(|category| (category, Vec::new())).collect(),
    };
    for verdict in verdicts {
        let modality = Modality::from(verdict.content.modality()).word();
        let counted = verdict.policies.iter().filter(|answer| answer.outcome != Outcome::Shadow);
        for (answer, category) in counted.flat_map(|answer| {
            feeds.get(&answer.policy).into_iter().flatten().map(move |category| (answer, category))
        }) {
            if let Some(held) = result.categories.get_mut(category) {
                *held |= answer.action != Action::Allow;
            }
            if let Some(score) = result.category_scores.get_mut(category) {
                *score = score.max(score_of(answer));
            }
            if let Some(types) = result.category_applied_input_types.get_mut(category)
                && !types.iter().any(|known| known == modality)
            {
                types.push(modality.to_owned());
            }
        }
    }
    result.flagged |= result.categories.values().any(|held| *held);
    result
}

/// Where no probability decided (an override, `on_error`), the action does: clients compare scores.
fn score_of(answer: &PolicyAnswer) -> f32 {
    match (answer.probability, answer.action) {
        (Some(probability), _) => probability,
        (None, Action::Allow) => 0.0,
        (None, Action::Review | Action::Block) => 1.0,
    }
}

/// The policy whose judge failed and whose `on_error` would let it pass: this shape has no place to say so.
pub(super) fn passed_unjudged(verdicts: &[Verdict]) -> Option<&PolicyAnswer> {
    let mut answers = verdicts.iter().flat_map(|verdict| &verdict.policies);
    answers.find(|answer| answer.outcome == Outcome::OnError && answer.action == Action::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{answer, at, hash, verdict};

    fn feeds() -> Feeds {
        let of = |categories: &[&str]| categories.iter().map(|category| (*category).to_owned()).collect();
        Feeds::from([
            ("gore".to_owned(), of(&["violence", "violence/graphic"])),
            ("cruel".to_owned(), of(&["violence"])),
        ])
    }

    fn of(answers: Vec<PolicyAnswer>, action: Action) -> Verdict {
        let mut verdict = verdict("default", at("2026-11-25T12:00:00.000001Z"), hash(1));
        (verdict.policies, verdict.action) = (answers, action);
        verdict
    }

    fn answered(policy: &str, probability: Option<f32>, action: Action, outcome: Outcome) -> PolicyAnswer {
        PolicyAnswer { probability, action, outcome, ..answer(policy, 0.5) }
    }

    #[test]
    fn all_thirteen_stand_in_all_maps_and_the_worst_policy_decides() {
        let verdict = of(
            vec![
                answered("gore", Some(0.2), Action::Allow, Outcome::Judged),
                answered("cruel", Some(0.9), Action::Block, Outcome::Recalled),
                answered("gore", Some(1.0), Action::Block, Outcome::Shadow),
            ],
            Action::Block,
        );
        let told = moderation(verdict.submission_id, vec![verdict.clone(), verdict], true, &feeds());
        let [result] = told.results.as_slice() else { panic!("{told:?}") };
        for keys in [
            result.categories.keys().collect::<Vec<_>>(),
            result.category_scores.keys().collect(),
            result.category_applied_input_types.keys().collect(),
        ] {
            let mut expected = OPENAI_CATEGORIES;
            expected.sort_unstable();
            assert_eq!(keys, expected);
        }
        assert!(result.flagged && result.categories["violence"] && !result.categories["violence/graphic"]);
        assert_eq!(
            (result.category_scores["violence"], result.category_scores["violence/graphic"]),
            (0.9, 0.2)
        );
        assert_eq!(result.category_scores["hate"], 0.0);
        assert_eq!(result.category_applied_input_types["violence"], ["image"]);
        assert!(result.category_applied_input_types["hate"].is_empty());
    }

    #[test]
    fn an_action_that_no_category_shows_flags_all_the_same() {
        let raised =
            of(vec![answered("uncategorised", Some(0.1), Action::Allow, Outcome::Judged)], Action::Review);
        let told = moderation(raised.submission_id, vec![raised], false, &feeds());
        assert!(told.results[0].flagged && told.results[0].categories.values().all(|held| !held));
    }

    #[test]
    fn without_a_probability_the_action_is_the_score() {
        for (action, score) in [(Action::Allow, 0.0), (Action::Review, 1.0), (Action::Block, 1.0)] {
            let verdict = of(vec![answered("cruel", None, action, Outcome::Override)], action);
            let told = moderation(verdict.submission_id, vec![verdict], false, &feeds());
            assert_eq!(told.results[0].category_scores["violence"], score);
        }
        let passed = [of(vec![answered("cruel", None, Action::Allow, Outcome::OnError)], Action::Allow)];
        assert!(passed_unjudged(&passed).is_some());
        let reviewed = [of(vec![answered("cruel", None, Action::Review, Outcome::OnError)], Action::Review)];
        assert!(passed_unjudged(&reviewed).is_none());
    }
}
