//! Image URLs in `POST /v1/moderations`: off as shipped, and where switched on never a way inside.
//!
//! What is fetched from hosts that mean ill is tested below HTTP, in `service/tests/fetch.rs`: no service that is
//! started as in production would fetch from a test's server.

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use shieldgate_tests::{Answer, Caller, Gate, samples};

/// Inside, by name, in every spelling, or not there at all.
const REFUSED: [&str; 24] = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "127.0.0.1.",
    "0.0.0.0",
    "0",
    "１２７.1",
    "10.0.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "192.168.0.1",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "localhost",
    "LocalHost",
    "nobody.invalid",
];

async fn post(caller: &Caller, url: &str) -> Answer {
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    caller.post("/v1/moderations", &json!({"input": [part]})).await
}

#[tokio::test]
async fn as_shipped_none_is_fetched() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    for url in ["http://127.0.0.1/", "https://example.org/a.png", "HTTP://example.org"] {
        let answer = post(&caller, url).await;
        let problem = answer.refused(400, "image_url_not_fetched");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("`--fetch-image-urls`"), "{problem}");
        assert_eq!(problem["error"]["param"], "input");
    }
}

#[tokio::test]
async fn switched_on_it_is_no_way_inside() {
    // A port on which a connection would be seen.
    let trap = TcpListener::bind("127.0.0.1:0").expect("a port");
    trap.set_nonblocking(true).expect("it can be asked");
    let port = trap.local_addr().expect("it has an address").port();
    let mut setup = Gate::with().env("SHIELDGATE_FETCH_IMAGE_URLS", "true").flag("--fetch-timeout-ms", 4000);
    // A proxy would be asked instead of the hosts that were looked at.
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        setup = setup.env(name, format!("http://127.0.0.1:{port}"));
    }
    let gate = setup.start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    for host in REFUSED {
        for url in [format!("http://{host}/latest/meta-data/"), format!(r"HTTPS:\\{host}")] {
            let answer = post(&caller, &url).await;
            let problem = answer.refused(422, "image_url_refused");
            let said = "the host of the image URL has no address that images are fetched from";
            assert_eq!(problem["detail"], said, "{url}");
            assert_eq!(problem["error"]["param"], "input");
            assert_eq!(problem["error"]["type"], "invalid_request_error");
        }
    }
    let own = gate.url("/healthz");
    let long = format!("http://example.org/{}", "a".repeat(5000));
    for (url, status, code) in [
        (format!("http://127.0.0.1:{port}/").as_str(), 422, "image_url_port"),
        (&own, 422, "image_url_port"),
        ("http://a@b/", 422, "image_url_credentials"),
        (&format!("http://example.org@127.0.0.1:{port}/"), 422, "image_url_credentials"),
        ("http://", 400, "image_url_invalid"),
        ("http://1.2.3.4.5/", 400, "image_url_invalid"),
        ("file:///etc/passwd", 400, "image_url_invalid"),
        (&long, 400, "image_url_too_long"),
    ] {
        post(&caller, url).await.refused(status, code);
    }
    assert!(trap.accept().is_err(), "nobody may have been connected to");
    // A `data:` URL is judged as ever; of the others nothing is on record.
    let coffee = format!("data:image/jpeg;base64,{}", STANDARD.encode(samples::coffee()));
    post(&caller, &coffee).await.expect(200);
    let listed = caller.get("/v1/verdicts").await;
    assert_eq!(listed.expect(200)["data"].as_array().map(Vec::len), Some(1));
    let metrics = gate.nobody().get("/metrics").await.text();
    assert!(metrics.contains("reason=\"image_url_refused\""), "they are counted");
}

#[test]
fn bounds_that_can_t_be_meant_are_wrong_use() {
    for flag in ["--fetch-timeout-ms", "--fetches-max"] {
        let done = shieldgate_tests::shieldgate(std::path::Path::new("/"), &["serve", flag, "0"], &[]);
        assert!(done.code == Some(2) && done.stderr.contains(flag), "{flag}: {done:?}");
    }
}
