//! One bad frame among good ones: found, named, and counted as the policy says.

use serde_json::json;
use shieldgate_tests::samples;

use crate::stage::{policy, stage};

/// `steady` gives half the brightness: black is fine, white is 0.5 and so for review.
const BLACK: u8 = 0;
const WHITE: u8 = 255;

#[tokio::test]
async fn a_flash_of_ten_milliseconds_is_found_and_named() {
    let alpha = policy("alpha", &["steady"], "fail");
    let beta = policy("beta", &["steady"], "fail").replace("frames: max", "frames: {at_least: 2}");
    let gate = stage(&["steady"]).policy("alpha", &alpha).policy("beta", &beta).start().await;
    let caller = gate.caller(&gate.key("moderate,admin"));

    let mut frames = vec![(BLACK, 100); 21];
    frames[13] = (WHITE, 10);
    let once = samples::gif_of(&frames);
    let answer = caller.upload(&once).await;
    let verdict = answer.expect(200);
    let content = &verdict["content"];
    // Frames that look alike are scored by one of them.
    assert_eq!((&content["frames_total"], &content["frames_scored"]), (&json!(21), &json!(21)));
    assert_eq!(content["frames_distinct"], 2);
    assert_eq!(verdict["action"], "review");
    let of = |policy: &str| {
        let answers = verdict["policies"].as_array().expect("policies");
        answers.iter().find(|answer| answer["policy"] == policy).expect("answered").clone()
    };
    let (alpha, beta) = (of("alpha"), of("beta"));
    assert_eq!((&alpha["action"], &alpha["probability"]), (&json!("review"), &json!(0.5)));
    assert_eq!(alpha["judges"][0]["worst"], json!({"frame": 13, "at_ms": 1300}));
    // Two frames must be bad for this one; the second worst is a black one.
    assert_eq!((&beta["action"], &beta["probability"]), (&json!("allow"), &json!(0.0)));

    // The same from the record.
    let again = caller.upload(&once).await;
    assert_eq!(again.expect(200)["cached"], true);
    assert_eq!(again.json["content"], verdict["content"]);
    for (at, answer) in verdict["policies"].as_array().expect("policies").iter().enumerate() {
        let recalled = &again.json["policies"][at];
        for member in ["action", "probability", "judges"] {
            assert_eq!(recalled[member], answer[member], "{member}");
        }
        assert_eq!(recalled["outcome"], "recalled");
    }

    // Two flashes that differ by a shade are two bad frames.
    frames[5] = (WHITE - 1, 10);
    let twice = caller.upload(&samples::gif_of(&frames)).await;
    let answers = twice.expect(200)["policies"].as_array().expect("policies").clone();
    assert!(answers.iter().all(|answer| answer["action"] == "review"), "{answers:?}");
}

#[tokio::test]
async fn more_frames_than_are_looked_at_are_a_review_and_never_a_pass() {
    let alpha = policy("alpha", &["steady"], "fail");
    let gate = stage(&["steady"]).policy("alpha", &alpha).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let frames: Vec<(u8, u16)> = (0..60).map(|shade| (shade, 40)).collect();
    let answer = caller.upload(&samples::gif_of(&frames)).await;
    let verdict = answer.expect(200);
    let scored = verdict["content"]["frames_scored"].as_u64().expect("a number");
    assert!((8..60).contains(&scored), "{scored}");
    assert_eq!(verdict["content"]["frames_total"], 60);
    assert_eq!((&verdict["action"], &verdict["policies"][0]["action"]), (&json!("review"), &json!("allow")));
    assert_eq!(verdict["raised"][0]["code"], "frames_unscored");
}
