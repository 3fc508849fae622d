//! What is seen of a picture: its type by content, orientation, transparency, frames, what trails it.

use serde_json::{Value, json};
use shieldgate_tests::{Gate, samples};

#[tokio::test]
async fn type_and_size_come_from_the_bytes() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    for (name, media_type, width, height) in [
        ("baseline_420.jpg", "image/jpeg", 72, 56),
        ("progressive.jpg", "image/jpeg", 72, 56),
        ("cmyk.jpg", "image/jpeg", 72, 56),
        ("palette.png", "image/png", 48, 32),
        ("lossy.webp", "image/webp", 72, 56),
        ("lossless.webp", "image/webp", 48, 32),
        ("still.gif", "image/gif", 48, 32),
        ("rgb24.bmp", "image/bmp", 48, 32),
        ("rgb_lzw.tif", "image/tiff", 48, 32),
        // As people see it: turned by its EXIF orientation.
        ("exif_1.jpg", "image/jpeg", 48, 32),
        ("exif_3.jpg", "image/jpeg", 48, 32),
        ("exif_6.jpg", "image/jpeg", 32, 48),
        ("exif_8.jpg", "image/jpeg", 32, 48),
        ("exif_6.png", "image/png", 32, 48),
        ("exif_8.webp", "image/webp", 32, 48),
    ] {
        let answer = caller.upload(&samples::media(name)).await;
        let content = &answer.expect(200)["content"];
        let seen = (&content["media_type"], &content["width"], &content["height"]);
        assert_eq!(seen, (&json!(media_type), &json!(width), &json!(height)), "{name}");
        assert_eq!(content["bytes"], samples::media(name).len(), "{name}");
        assert_eq!((&content["frames_total"], &content["frames_scored"]), (&json!(1), &json!(1)), "{name}");
        assert_eq!(answer.json["policies"][0]["outcome"], "judged", "{name}");
    }
    // The photographs that `make run` shows.
    for name in ["astronaut.jpg", "cat.webp", "cameraman.png", "clock.bmp"] {
        assert_eq!(caller.upload(&samples::shown(name)).await.expect(200)["status"], "done", "{name}");
    }
}

#[tokio::test]
async fn every_frame_of_an_animation_is_scored_and_one_too_long_is_reviewed() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,admin"));
    for (bytes, frames) in [
        (samples::gif(1), 1),
        (samples::gif(3), 3),
        (samples::media("animated.gif"), 3),
        (samples::media("animated.png"), 3),
        (samples::media("animated.webp"), 3),
        (samples::media("pages.tif"), 4),
    ] {
        let answer = caller.upload(&bytes).await;
        let content = &answer.expect(200)["content"];
        assert_eq!((&content["frames_total"], &content["frames_scored"]), (&json!(frames), &json!(frames)));
        assert_eq!(answer.json["action"], "allow", "{:#}", answer.json);
        assert_eq!(answer.json.get("raised"), None);
    }
    let bytes = samples::gif(40);
    let answer = caller.upload(&bytes).await;
    let verdict = answer.expect(200);
    assert_eq!(verdict["content"]["frames_total"], 40, "{verdict:#}");
    assert_eq!(verdict["content"]["frames_scored"], 16);
    // Its scored frames are harmless, and that is not enough.
    assert_eq!(verdict["policies"][0]["action"], "allow");
    assert_eq!(verdict["action"], "review");
    assert_eq!(verdict["raised"][0]["code"], "frames_unscored");
    assert!(verdict["raised"][0]["message"].as_str().is_some_and(|text| text.contains("16 of 40")));
    // Recalled, it is no safer.
    let again = caller.upload(&bytes).await;
    assert_eq!((&again.expect(200)["action"], &again.json["cached"]), (&json!("review"), &json!(true)));
    assert_eq!(again.json["raised"], verdict["raised"]);
}

#[tokio::test]
async fn transparency_is_judged_on_white_and_on_black() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    for name in ["rgba.png", "gray_alpha.png", "palette_trns.png", "lossy_alpha.webp", "transparent.gif"] {
        let answer = caller.upload(&samples::media(name)).await;
        let worst = &answer.expect(200)["policies"][0]["judges"][0]["worst"];
        assert!(["white", "black"].map(Value::from).contains(&worst["background"]), "{name}: {worst}");
    }
    let opaque = caller.upload(&samples::media("palette.png")).await;
    assert_eq!(opaque.expect(200)["policies"][0]["judges"][0]["worst"].get("background"), None);
}

#[tokio::test]
async fn ordinary_trailing_data_is_judged_and_reported() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    // As phones append their video.
    let mut motion = samples::media("baseline_420.jpg");
    let video = [b"\0\0\0\x18ftypmp42\0\0\0\0isommp42".as_slice(), &[7; 3000]].concat();
    motion.extend_from_slice(&video);
    let answer = caller.upload(&motion).await;
    assert_eq!(answer.expect(200)["content"]["trailing_bytes"], video.len());
    assert_eq!(answer.json["content"]["bytes"], motion.len());
    let clean = caller.upload(&samples::media("baseline_420.jpg")).await;
    assert_eq!(clean.expect(200)["content"].get("trailing_bytes"), None);
    assert_ne!(clean.json["content"]["sha256"], answer.json["content"]["sha256"]);
}
