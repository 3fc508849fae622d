//! From answers and thresholds to actions: pure, without I/O, clock or async.
//!
//! Failures meet `on_error` here and nowhere else.

use shieldgate_models::{Failure, JudgeCard};

use crate::policy::Frames;
use crate::policy::active::ActivePolicy;
use crate::scheduler::Scored;
use crate::store::overrides::Override;
use crate::verdict::{
    Action, ComputedOn, ErrorNote, Facts, ImageExtent, JudgeAnswer, Outcome, PolicyAnswer, Thresholds,
    Verdict, Worst,
};

/// One judge's answer to one policy's question.
#[derive(Debug, Clone)]
pub struct Answered<'a> {
    pub card: &'a JudgeCard,
    pub result: Result<Scored, Failure>,
    pub recalled: bool,
    /// Where a recalled probability was computed, if elsewhere.
    pub computed_on: Option<ComputedOn>,
}

/// A judge failed and the policy says that there is to be no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy `{policy}` could not be judged: {failure}")]
pub struct Undecided {
    pub policy: String,
    pub judge: String,
    pub failure: Failure,
}

/// Something a verdict must never say; a defect of ours, not of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the verdict contradicts itself: {0}")]
pub struct Breach(String);

/// `p ≥ block` → block, else `p ≥ review` → review, else allow.
pub fn act(probability: f32, thresholds: Thresholds) -> Action {
    if probability >= thresholds.block {
        Action::Block
    } else if probability >= thresholds.review {
        Action::Review
    } else {
        Action::Allow
    }
}

/// The frame that decides, and its probability: the worst, or the n-th worst where the policy wants at
/// least n to reach a threshold. Where there are fewer, all of them must.
fn deciding_frame(scored: &Scored, frames: Frames) -> (f32, Worst) {
    let wanted = match frames {
        Frames::Max => 1,
        Frames::AtLeast(count) => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let nth = wanted.min(scored.frames.len()).checked_sub(1).and_then(|at| scored.frames.get(at));
    nth.map_or_else(
        || (scored.probability.get(), scored.worst.clone()),
        |frame| (frame.probability, Worst::Frame(frame.place.clone())),
    )
}

/// One policy's answer: the worst of its judges'. `answers` are in the order of `active.asked`.
pub fn decide(active: &ActivePolicy, answers: Vec<Answered<'_>>) -> Result<PolicyAnswer, Undecided> {
    let policy = &active.policy;
    let recalled = answers.iter().all(|answer| answer.recalled);
    let mut judges: Vec<JudgeAnswer> = Vec::with_capacity(answers.len());
    let mut failed: Option<ErrorNote> = None;
    for (asked, answer) in active.asked.iter().zip(answers) {
        let thresholds = asked.judge.thresholds;
        let (probability, action, worst, error) = match answer.result {
            Ok(scored) => {
                let (p, place) = deciding_frame(&scored, policy.frames);
                (Some(p), Some(act(p, thresholds)), Some(place), None)
            }
            Err(failure) => {
                let Some(action) = policy.on_error.action() else {
                    return Err(Undecided {
                        policy: policy.id.clone(),
                        judge: answer.card.name.clone(),
                        failure,
                    });
                };
                let note = ErrorNote {
                    code: failure.code().to_owned(),
                    message: format!("judge `{}`: {failure}", answer.card.name),
                };
                failed.get_or_insert_with(|| note.clone());
                (None, Some(action), None, Some(note))
            }
        };
        judges.push(JudgeAnswer {
            name: answer.card.name.clone(),
            digest: answer.card.digest.to_string(),
            demo: answer.card.demo,
            probability,
            action,
            thresholds,
            worst,
            error,
            computed_on: answer.computed_on,
        });
    }
    // A judge that did answer may be more severe than `on_error`: the worst counts here as anywhere.
    let action = judges.iter().filter_map(|judge| judge.action).max().unwrap_or(Action::Review);
    let deciding = judges
        .iter()
        .filter(|judge| judge.action == Some(action) && judge.probability.is_some())
        .max_by(|a, b| a.probability.unwrap_or(0.0).total_cmp(&b.probability.unwrap_or(0.0)));
    let outcome = match (&failed, recalled) {
        (Some(_), _) => Outcome::OnError,
        (None, true) => Outcome::Recalled,
        (None, false) => Outcome::Judged,
    };
    Ok(PolicyAnswer {
        policy: policy.id.clone(),
        version: active.version.clone(),
        outcome,
        action,
        probability: if failed.is_some() { None } else { deciding.and_then(|judge| judge.probability) },
        thresholds: deciding.or(judges.first()).map(|judge| judge.thresholds),
        error: failed,
        judges,
        judges_not_run: active.judges_not_run.clone(),
        override_id: None,
    })
}

/// What an override makes of a policy: no judge is asked.
pub fn overridden(active: &ActivePolicy, by: &Override) -> PolicyAnswer {
    PolicyAnswer {
        policy: active.policy.id.clone(),
        version: active.version.clone(),
        outcome: Outcome::Override,
        action: by.action,
        probability: None,
        thresholds: None,
        error: None,
        judges: Vec::new(),
        judges_not_run: Vec::new(),
        override_id: Some(by.id),
    }
}

/// The override that decides `policy`, if any: the one for these bytes and this policy, else the one for
/// these bytes, else the policy's kill switch. Among equals the newest; `overrides` come newest first.
pub fn override_for<'o>(policy: &str, overrides: &'o [Override]) -> Option<&'o Override> {
    let of_policy = |o: &&Override| o.policy.as_deref() == Some(policy);
    let of_bytes = |o: &&Override| o.sha256.is_some();
    overrides
        .iter()
        .find(|o| of_bytes(o) && of_policy(o))
        .or_else(|| overrides.iter().find(|o| of_bytes(o) && o.policy.is_none()))
        .or_else(|| overrides.iter().find(|o| !of_bytes(o) && of_policy(o)))
}

/// The verdict's action, and what raised it above the policies' own. `facts` say how many frames the
/// judges were shown; where one of them failed, its policy's `on_error` has spoken already.
pub fn conclude(policies: &[PolicyAnswer], facts: &Facts) -> (Action, Vec<ErrorNote>) {
    let counted = policies.iter().filter(|policy| policy.outcome != Outcome::Shadow);
    let action = counted.map(|policy| policy.action).max().unwrap_or(Action::Review);
    // Where every policy is overridden, nothing rests on what was seen.
    if policies.iter().all(|policy| policy.outcome == Outcome::Override) {
        return (action, Vec::new());
    }
    let mut raised = facts.doubts.clone();
    if let Some(ImageExtent { frames_scored, frames_total, .. }) = facts.content.image()
        && frames_scored < frames_total
    {
        raised.push(ErrorNote {
            code: "frames_unscored".to_owned(),
            message: format!(
                "{frames_scored} of {frames_total} frames were scored: a person should see the rest"
            ),
        });
    }
    if raised.is_empty() { (action, raised) } else { (action.max(Action::Review), raised) }
}

/// What every verdict must hold, checked before it is recorded and on what came back from the record.
pub fn check(verdict: &Verdict, requested: &[String]) -> Result<(), Breach> {
    let breach = |what: String| Err(Breach(what));
    for policy in requested {
        let answered = verdict.policies.iter().filter(|answer| answer.policy == *policy).count();
        let not_run = verdict.policies_not_run.iter().filter(|other| other.policy == *policy).count();
        if answered + not_run != 1 {
            return breach(format!(
                "policy `{policy}` has {answered} answers and is {not_run} times not run"
            ));
        }
    }
    for answer in &verdict.policies {
        let severe = answer.outcome == Outcome::Shadow || verdict.action >= answer.action;
        if !severe {
            return breach(format!("its action is milder than that of policy `{}`", answer.policy));
        }
        let failed = answer.judges.iter().any(|judge| judge.probability.is_none());
        if failed != (answer.outcome == Outcome::OnError) && answer.outcome != Outcome::Shadow {
            return breach(format!("a judge of policy `{}` failed and the outcome hides it", answer.policy));
        }
        if answer.judges.is_empty() && answer.outcome != Outcome::Override {
            return breach(format!("policy `{}` was answered and no judge was asked", answer.policy));
        }
        for judge in &answer.judges {
            if let (Some(p), Some(action)) = (judge.probability, judge.action)
                && action != act(p, judge.thresholds)
            {
                return breach(format!("judge `{}` at {p} does not mean {action:?}", judge.name));
            }
        }
    }
    if verdict.policies.is_empty() {
        return breach("nothing was judged".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shieldgate_models::{Digest, Probability, Question};

    use super::*;
    use crate::policy::active::Asked;
    use crate::policy::{Calibration, JudgeUse, Modality, OnError, Policy, WhenMissing};
    use crate::verdict::{FrameAt, FrameScore};

    fn policy(on_error: OnError, judges: &[(&str, f32, f32)]) -> ActivePolicy {
        let judges: Vec<JudgeUse> = judges
            .iter()
            .map(|(name, review, block)| JudgeUse {
                head: None,
                name: (*name).to_owned(),
                thresholds: Thresholds { review: *review, block: *block },
                calibration: Calibration::default(),
            })
            .collect();
        let asked = judges
            .iter()
            .map(|judge| Asked { judge: judge.clone(), question: Question::new("?".to_owned(), 1.0, 0.0) })
            .collect();
        ActivePolicy {
            policy: Policy {
                id: "violence".to_owned(),
                title: "Violence".to_owned(),
                modality: Modality::Image,
                text: "No violence".to_owned(),
                judges,
                on_error,
                when_missing: WhenMissing::Refuse,
                frames: Frames::Max,
                openai: Vec::new(),
            },
            version: "v".to_owned(),
            asked,
            judges_not_run: Vec::new(),
        }
    }

    fn card(name: &str) -> JudgeCard {
        JudgeCard {
            name: name.to_owned(),
            kind: "classifier",
            modality: shieldgate_models::Modality::Image,
            digest: Digest::of(name.as_bytes()),
            demo: false,
        }
    }

    fn at_frame(frame: u32) -> Worst {
        Worst::Frame(FrameAt { frame, at_ms: u64::from(frame) * 40, background: None })
    }

    fn scored(p: f32) -> Result<Scored, Failure> {
        let worst = at_frame(0);
        let probability = Probability::try_from(p).expect("a probability");
        Ok(Scored { probability, worst, frames: Vec::new() })
    }

    fn answered(card: &JudgeCard, result: Result<Scored, Failure>) -> Answered<'_> {
        Answered { card, result, recalled: false, computed_on: None }
    }

    #[test]
    fn thresholds_are_inclusive() {
        let thresholds = Thresholds { review: 0.5, block: 0.8 };
        let cases = [
            (0.0, Action::Allow),
            (0.49, Action::Allow),
            (0.5, Action::Review),
            (0.79, Action::Review),
            (0.8, Action::Block),
            (1.0, Action::Block),
        ];
        for (p, action) in cases {
            assert_eq!(act(p, thresholds), action, "{p}");
        }
    }

    #[test]
    fn the_worst_judge_decides_on_its_own_scale() {
        let (a, b) = (card("a"), card("b"));
        let active = policy(OnError::Fail, &[("a", 0.5, 0.9), ("b", 0.1, 0.2)]);
        let answer =
            decide(&active, vec![answered(&a, scored(0.6)), answered(&b, scored(0.25))]).expect("decided");
        assert_eq!((answer.action, answer.probability), (Action::Block, Some(0.25)));
        assert_eq!(answer.thresholds, Some(Thresholds { review: 0.1, block: 0.2 }));
        assert_eq!(answer.outcome, Outcome::Judged);
    }

    #[test]
    fn a_failure_is_on_error_and_never_an_unsaid_allow() {
        let a = card("a");
        for (on_error, action) in [
            (OnError::Review, Action::Review),
            (OnError::Block, Action::Block),
            (OnError::Allow, Action::Allow),
        ] {
            let active = policy(on_error, &[("a", 0.5, 0.9)]);
            let answer = decide(&active, vec![answered(&a, Err(Failure::TimedOut))]).expect("decided");
            assert_eq!((answer.action, answer.outcome, answer.probability), (action, Outcome::OnError, None));
            assert_eq!(answer.error.map(|error| error.code).as_deref(), Some("judge_timed_out"));
        }
        let active = policy(OnError::Fail, &[("a", 0.5, 0.9)]);
        assert!(decide(&active, vec![answered(&a, Err(Failure::TimedOut))]).is_err());
    }

    #[test]
    fn a_judge_that_answered_may_be_more_severe_than_on_error() {
        let (a, b) = (card("a"), card("b"));
        let active = policy(OnError::Allow, &[("a", 0.5, 0.9), ("b", 0.5, 0.9)]);
        let answers = vec![answered(&a, Err(Failure::TimedOut)), answered(&b, scored(0.95))];
        let answer = decide(&active, answers).expect("decided");
        assert_eq!(
            (answer.action, answer.outcome, answer.probability),
            (Action::Block, Outcome::OnError, None)
        );
    }

    #[test]
    fn frames_decide_as_the_policy_says() {
        let a = card("a");
        let ranked = [(7, 0.95), (2, 0.6), (0, 0.1)].map(|(frame, probability)| FrameScore {
            probability,
            place: FrameAt { frame, at_ms: u64::from(frame) * 40, background: None },
        });
        let decided = |frames: Frames, ranked: &[FrameScore]| {
            let scored = Scored {
                probability: Probability::try_from(0.95).expect("a probability"),
                worst: at_frame(7),
                frames: ranked.to_vec(),
            };
            let mut active = policy(OnError::Fail, &[("a", 0.5, 0.9)]);
            active.policy.frames = frames;
            let answer = decide(&active, vec![answered(&a, Ok(scored))]).expect("decided");
            let Some(Worst::Frame(worst)) = &answer.judges[0].worst else { panic!("{answer:?}") };
            (answer.action, answer.probability, Some(worst.frame))
        };
        assert_eq!(decided(Frames::Max, &ranked), (Action::Block, Some(0.95), Some(7)));
        assert_eq!(decided(Frames::AtLeast(1), &ranked), (Action::Block, Some(0.95), Some(7)));
        assert_eq!(decided(Frames::AtLeast(2), &ranked), (Action::Review, Some(0.6), Some(2)));
        assert_eq!(decided(Frames::AtLeast(3), &ranked), (Action::Allow, Some(0.1), Some(0)));
        // Fewer frames than the policy wants: it must not become one that nothing can break.
        assert_eq!(decided(Frames::AtLeast(9), &ranked), (Action::Allow, Some(0.1), Some(0)));
        assert_eq!(decided(Frames::AtLeast(2), &[]), (Action::Block, Some(0.95), Some(7)));
    }

    #[test]
    fn recalled_only_if_all_were() {
        let (a, b) = (card("a"), card("b"));
        let active = policy(OnError::Fail, &[("a", 0.5, 0.9), ("b", 0.5, 0.9)]);
        let recalled = |card| Answered { card, result: scored(0.1), recalled: true, computed_on: None };
        let outcome = |answers| decide(&active, answers).expect("decided").outcome;
        assert_eq!(outcome(vec![recalled(&a), recalled(&b)]), Outcome::Recalled);
        assert_eq!(outcome(vec![recalled(&a), answered(&b, scored(0.1))]), Outcome::Judged);
    }
}
