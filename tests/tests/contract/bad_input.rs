//! Bad pictures and bad fields: the right 4xx, the one shape of problems, and a service that goes on.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;
use shieldgate_tests::{Answer, Caller, Gate, Upload, hostile, samples};

/// A good upload, different each time so that it is really judged.
async fn still_good(caller: &Caller, seed: u32) {
    let answer = caller.upload(&samples::unique(1000 + seed)).await;
    assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
}

#[tokio::test]
async fn bad_pictures_are_refused_by_what_is_wrong_with_them() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let coffee = samples::coffee();
    let jpeg = samples::media("baseline_420.jpg");
    let svg =
        b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("empty", vec![], 400, "image_empty"),
        ("text", b"just text".to_vec(), 415, "image_type_unsupported"),
        ("svg", svg.to_vec(), 415, "image_type_unsupported"),
        ("html", b"<!doctype html><title>x</title>".to_vec(), 415, "image_type_unsupported"),
        ("pdf", b"%PDF-1.7\n1 0 obj\n".to_vec(), 415, "image_type_unsupported"),
        ("avif", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1".to_vec(), 415, "image_type_unsupported"),
        ("bigtiff", b"II+\0\x08\0\0\0".to_vec(), 415, "image_type_unsupported"),
        ("truncated jpeg", jpeg[..jpeg.len() / 2].to_vec(), 422, "image_truncated"),
        ("truncated png", coffee[..coffee.len() / 2].to_vec(), 422, "image_truncated"),
        ("100 000 × 100 000", hostile::png_claiming(100_000, 100_000), 422, "image_too_many_pixels"),
        ("100 000 × 1", hostile::png_claiming(100_000, 1), 422, "image_side_too_long"),
        ("0 × 5", hostile::png_claiming(0, 5), 422, "image_no_pixels"),
        ("2³² − 1", hostile::png_claiming(u32::MAX, u32::MAX), 422, "image_too_many_pixels"),
        ("zip appended", [coffee.clone(), hostile::zip("x.exe", b"MZ")].concat(), 422, "appended_archive"),
        (
            "script appended",
            [coffee.clone(), b"<?php system($_GET['c']);".to_vec()].concat(),
            422,
            "appended_script",
        ),
    ];
    for (seed, (what, bytes, status, code)) in (0..).zip(cases) {
        let answer = caller.upload(&bytes).await;
        let found = (answer.status, answer.json["error"]["code"].as_str().unwrap_or_default());
        assert_eq!(found, (status, code), "{what}: {}", answer.text());
        assert_eq!(answer.json["error"]["type"], "invalid_request_error", "{what}");
        still_good(&caller, seed).await;
    }
    // What a wrong checksum or a lie in the header comes to, both decoders' word for it.
    let mut flipped = coffee.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let answer = caller.upload(&flipped).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(matches!(answer.json["error"]["code"].as_str(), Some("image_corrupt" | "image_truncated")));

    // None of them is on record; refusals are no verdicts.
    let listed = caller.get("/v1/verdicts?action=block").await;
    assert_eq!(listed.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_text_bomb_costs_no_memory() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    still_good(&caller, 0).await;
    let before = gate.memory_peak();
    let bomb = hostile::png_with_text_bomb(1 << 30);
    for _ in 0..3 {
        let answer = caller.upload(&bomb).await;
        assert!(matches!(answer.status, 200 | 422), "{}", answer.text());
    }
    let grown = gate.memory_peak().saturating_sub(before);
    assert!(grown < 128 << 20, "{} MiB for a bomb of {} bytes", grown >> 20, bomb.len());
    still_good(&caller, 1).await;
}

#[tokio::test]
async fn a_large_picture_is_bounded_before_it_is_decoded() {
    let gate = Gate::with().flag("--pixels-max", 64 * 64).flag("--body-bytes-max", 20_000).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let square = |side| samples::png(&image::RgbImage::new(side, side).into());
    caller.upload(&square(64)).await.expect(200);
    caller.upload(&square(65)).await.refused(422, "image_too_many_pixels");
    caller.upload(vec![0; 20_001].as_slice()).await.refused(413, "body_too_large");
    still_good(&caller, 0).await;
}

async fn form(caller: &Caller, form: Form) -> Answer {
    caller.send(caller.request(Method::POST, "/v1/images").multipart(form)).await
}

fn file() -> Part {
    Part::bytes(samples::coffee()).file_name("a.png")
}

#[tokio::test]
async fn wrong_forms_are_named() {
    let gate = Gate::with().flag("--body-bytes-max", 100_000).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    form(&caller, Form::new().part("file", file())).await.expect(200);

    form(&caller, Form::new().text("ref", "a")).await.refused(400, "part_missing");
    form(&caller, Form::new().part("file", file()).part("file", file())).await.refused(400, "part_repeated");
    form(&caller, Form::new().part("file", file()).text("ref", "a").text("ref", "b"))
        .await
        .refused(400, "part_repeated");
    let unknown = form(&caller, Form::new().part("file", file()).text("metdata", "{}")).await;
    assert!(
        unknown.refused(400, "part_unknown")["detail"]
            .as_str()
            .is_some_and(|text| text.contains("`metdata`"))
    );
    form(&caller, Form::new().part("file", Part::bytes(vec![]))).await.refused(400, "image_empty");
    form(&caller, Form::new().part("file", Part::bytes(vec![0; 100_001])))
        .await
        .refused(413, "body_too_large");
    form(&caller, Form::new().part("file", file()).text("ref", "r".repeat(5000)))
        .await
        .refused(413, "part_too_large");
    let latin = Part::bytes(b"caf\xe9".as_slice());
    form(&caller, Form::new().part("file", file()).part("ref", latin)).await.refused(400, "part_not_utf8");
    form(&caller, Form::new().part("file", file()).text("ref", "")).await.refused(400, "word_invalid");
    form(&caller, Form::new().part("file", file()).text("subject", "s".repeat(256)))
        .await
        .refused(400, "word_invalid");

    for (content_type, body) in [
        ("multipart/form-data", "--x\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=", "--\r\n"),
        ("multipart/form-data; boundary=x", ""),
        ("multipart/form-data; boundary=x", "garbage without any boundary"),
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ncut off",
        ),
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--x--\r\n",
        ),
        ("multipart/form-data; boundary=x", "--x\r\nno header\r\n\r\nbody\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", "--x--\r\n"),
    ] {
        let request =
            caller.request(Method::POST, "/v1/images").header("content-type", content_type).body(body);
        let answer = caller.send(request).await;
        assert_eq!(answer.status, 400, "{content_type} {body:?}: {}", answer.text());
    }
    // An endless number of parts is bounded like everything else.
    let many = (0..3000).fold(Form::new(), |form, _| form.text("x", ""));
    form(&caller, many).await.refused(400, "part_unknown");
    let wrong =
        Upload { content_type: Some("application/json".to_owned()), ..Upload::from(b"{}".as_slice()) };
    let problem = caller.upload(wrong).await;
    assert_eq!(problem.refused(415, "content_type_unsupported")["error"]["param"], "Content-Type");
    still_good(&caller, 0).await;
}

#[tokio::test]
async fn metadata_is_a_small_json_object() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let with = |metadata: String| form(&caller, Form::new().text("metadata", metadata).part("file", file()));
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for good in ["{}".to_owned(), nested(32), format!("{{\"a\":\"{}\"}}", "x".repeat(4096 - 8))] {
        let verdict = with(good.clone()).await;
        let sent: serde_json::Value = serde_json::from_str(&good).expect("JSON");
        assert_eq!(verdict.expect(200)["metadata"], sent);
    }
    for bad in [
        String::new(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"text\"".to_owned(),
        "{\"a\":".to_owned(),
        "{'a':1}".to_owned(),
        "{\"a\":1}{\"b\":2}".to_owned(),
        nested(33),
        nested(600),
        format!("{}1{}", "[".repeat(2000), "]".repeat(2000)),
        "{\"a\":1e999}".to_owned(),
    ] {
        let problem = with(bad.clone()).await;
        assert_eq!(problem.refused(400, "metadata_invalid")["error"]["param"], "metadata", "{bad}");
    }
    with(format!("{{\"a\":\"{}\"}}", "x".repeat(4096))).await.refused(413, "part_too_large");
    // Valid JSON that a database may not like comes back whole or is refused; it is never cut short.
    for odd in ["{\"a\":\"x\\u0000y\"}", "{\"a\\u0000\":1}", "{\"a\":\"\\ud83d\\ude00\"}"] {
        let answer = with(odd.to_owned()).await;
        let sent: serde_json::Value = serde_json::from_str(odd).expect("JSON");
        assert!(matches!(answer.status, 200 | 422), "{odd}: {}", answer.text());
        assert!(answer.status != 200 || answer.json["metadata"] == sent, "{odd}: {}", answer.text());
    }
    // A lone surrogate is no text at all.
    with("{\"a\":\"\\ud800\"}".to_owned()).await.refused(400, "metadata_invalid");
    // Numbers beyond 64 bits and the smallest and largest ones come back as they went in, or are refused.
    for number in ["18446744073709551615", "-9223372036854775808", "1e300", "5e-324", "0.1", "1e-7"] {
        let verdict = with(format!("{{\"n\":{number}}}")).await;
        let sent: serde_json::Value = serde_json::from_str(number).expect("a number");
        assert_eq!(verdict.expect(200)["metadata"]["n"], sent, "{number}");
    }
    still_good(&caller, 0).await;
}
