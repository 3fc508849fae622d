//! Requests that are wrong as requests: endless, stalled, cut short, oversized, ill-encoded.

use std::time::{Duration, Instant};

use reqwest::Method;
use shieldgate_tests::raw::Raw;
use shieldgate_tests::{Caller, Gate, samples};

async fn still_good(caller: &Caller, seed: u32) {
    let answer = caller.upload(&samples::unique(2000 + seed)).await;
    assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
}

fn head(key: &str, rest: &str) -> String {
    format!(
        "POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: image/png\r\n{rest}\r\n\r\n"
    )
}

#[tokio::test]
async fn uploads_that_never_end_are_ended() {
    let gate = Gate::with().flag("--body-timeout-ms", 700).flag("--body-bytes-max", 100_000).start().await;
    let key = gate.key("moderate,read");
    let caller = gate.caller(&key);

    // Endless chunks: refused once they are too many.
    let mut raw = Raw::connect(gate.address()).await;
    raw.send(head(&key, "Transfer-Encoding: chunked")).await.expect("sends");
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    for _ in 0..200 {
        // The service may close while we still send.
        if raw.send(&chunk).await.is_err() {
            break;
        }
    }
    let answer = raw.answer().await;
    assert!(matches!(answer.status, 413 | 0), "{answer:?}");
    still_good(&caller, 0).await;

    // The same with a pause for the answer, as a client that reads would see it.
    let mut raw = Raw::connect(gate.address()).await;
    raw.send(head(&key, "Transfer-Encoding: chunked")).await.expect("sends");
    for _ in 0..13 {
        raw.send(&chunk).await.expect("sends");
    }
    let answer = raw.answer().await;
    assert!(
        answer.status == 413 && answer.is_problem() && answer.text.contains("body_too_large"),
        "{answer:?}"
    );

    // Announced as too large: refused before a byte of it is read.
    let mut raw = Raw::connect(gate.address()).await;
    raw.send(head(&key, "Content-Length: 100001")).await.expect("sends");
    let answer = raw.answer().await;
    assert!(answer.status == 413 && answer.is_problem(), "{answer:?}");

    // Stalled: 408 after the time an upload may take, whether it sends nothing or drips.
    for drip in [false, true] {
        let began = Instant::now();
        let mut raw = Raw::connect(gate.address()).await;
        raw.send(head(&key, "Content-Length: 5000")).await.expect("sends");
        if drip {
            for _ in 0..5 {
                raw.send("x").await.expect("sends");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let answer = raw.answer().await;
        assert!(
            answer.status == 408 && answer.is_problem() && answer.text.contains("body_too_slow"),
            "{answer:?}"
        );
        assert!(
            answer.text.contains("0.7 s") || answer.text.contains("700 ms"),
            "it says how long: {answer:?}"
        );
        let took = began.elapsed();
        assert!((Duration::from_millis(600)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
    // A form that stalls, as well.
    let mut raw = Raw::connect(gate.address()).await;
    let form = head(&key, "Content-Length: 5000").replace("image/png", "multipart/form-data; boundary=x");
    raw.send(form + "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc").await.expect("sends");
    let answer = raw.answer().await;
    assert!(answer.status == 408 && answer.is_problem(), "{answer:?}");
    still_good(&caller, 1).await;
    let listed = caller.get("/v1/verdicts").await;
    assert_eq!(
        listed.expect(200)["data"].as_array().map(Vec::len),
        Some(2),
        "nothing but the good ones is on record"
    );
}

#[tokio::test]
async fn bodies_that_break_off_cost_nothing() {
    let gate = Gate::start().await;
    let key = gate.key("moderate,read");
    let caller = gate.caller(&key);
    let coffee = samples::coffee();
    for round in 0..20 {
        let mut raw = Raw::connect(gate.address()).await;
        raw.send(head(&key, &format!("Content-Length: {}", coffee.len()))).await.expect("sends");
        raw.send(&coffee[..coffee.len() / 2]).await.expect("sends");
        if round % 2 == 0 {
            // Our side ends; the answer, if any, is no verdict.
            raw.finish().await;
            let answer = raw.answer().await;
            assert!(matches!(answer.status, 0 | 400), "{answer:?}");
        }
        drop(raw);
    }
    // Chunked, ended without the last chunk.
    let mut raw = Raw::connect(gate.address()).await;
    raw.send(head(&key, "Transfer-Encoding: chunked")).await.expect("sends");
    raw.send("5\r\nabcde\r\n").await.expect("sends");
    raw.finish().await;
    assert!(matches!(raw.answer().await.status, 0 | 400));
    still_good(&caller, 0).await;
    let listed = caller.get("/v1/verdicts").await;
    assert_eq!(
        listed.expect(200)["data"].as_array().map(Vec::len),
        Some(1),
        "half a picture is no submission"
    );
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_forgotten() {
    let gate = Gate::start().await;
    let key = gate.key("moderate,read");
    let caller = gate.caller(&key);
    let huge = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n\r\n", "h".repeat(300_000));
    let many: String = (0..2000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "p".repeat(300_000));
    for (what, bytes) in [
        ("huge header", huge.as_bytes()),
        ("many headers", many.as_bytes()),
        ("long path", long.as_bytes()),
        ("no HTTP", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".as_slice()),
        ("garbage", b"\0\0\0\r\n\r\n"),
        ("two lengths", b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("length and chunked", b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("negative length", b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        ("bad chunk", b"POST /v1/images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        ("header without colon", b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(gate.address()).await;
        drop(raw.send(bytes).await);
        raw.finish().await;
        let answer = raw.answer().await;
        // Refused before there is a request that could be answered in our shape; never a 5xx, never accepted.
        assert!(matches!(answer.status, 0 | 400..=499), "{what}: {answer:?}");
    }
    still_good(&caller, 0).await;
}

#[tokio::test]
async fn ill_encoded_queries_and_json_are_refused() {
    let gate = Gate::start().await;
    let key = gate.key("moderate,read,admin");
    let caller = gate.caller(&key);
    // Replaced by a question mark they would be another id than the client's.
    for path in [
        "/v1/verdicts?ref=%FF",
        "/v1/verdicts?ref=%C3%28",
        "/v1/audit?actor=%ED%A0%80",
        "/v1/overrides?policy=%80",
    ] {
        caller.get(path).await.refused(400, "query_invalid");
    }
    let request = caller.request(Method::POST, "/v1/images?ref=%FF%FE").body(samples::coffee());
    caller.send(request).await.refused(400, "query_invalid");
    for path in ["/v1/verdicts/%FF", "/v1/verdicts/..%2F..", "/v1/verdicts/%00", "/v1/verdicts/1"] {
        caller.get(path).await.refused(400, "id_invalid");
    }
    // No policy has such an id.
    for path in ["/v1/policies/%00", "/v1/policies/%FF", "/v1/policies/a%2Fb", "/v1/policies/Sexual"] {
        caller.get(path).await.refused(404, "not_found");
    }
    for path in
        ["/v1/audit?act=%00", "/v1/overrides?policy=%00", "/v1/verdicts?policy=%00", "/v1/verdicts?ref=a%00"]
    {
        caller.get(path).await.refused(400, "query_invalid");
    }

    let post = |path: &'static str, content_type: &'static str, body: Vec<u8>| {
        let request = caller.request(Method::POST, path).header("content-type", content_type).body(body);
        let caller = caller.clone();
        async move { caller.send(request).await }
    };
    for path in ["/v1/overrides", "/v1/policies/sexual/versions"] {
        for body in
            [b"".as_slice(), b"{", b"nonsense", b"[]", b"null", b"{\"a\":\"\xff\"}", b"\xef\xbb\xbf{}"]
        {
            post(path, "application/json", body.to_vec()).await.refused(400, "json_invalid");
        }
        let deep = [b"[".repeat(50_000), b"]".repeat(50_000)].concat();
        post(path, "application/json", deep).await.refused(400, "json_invalid");
        post(path, "text/plain", b"{}".to_vec()).await.refused(415, "content_type_unsupported");
        post(path, "application/json", vec![b' '; 200_000]).await.refused(413, "body_too_large");
    }
    still_good(&caller, 0).await;
}
