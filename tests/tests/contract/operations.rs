//! For operators: health, readiness, metrics, the API's description, request ids.

use reqwest::Method;
use serde_json::json;
use shieldgate_tests::{Gate, samples};

#[tokio::test]
async fn operators_need_no_key() {
    let gate = Gate::start().await;
    let nobody = gate.nobody();
    let health = nobody.get("/healthz").await;
    assert_eq!(health.expect(200)["status"], "ok");
    assert_eq!(health.json["version"], env!("CARGO_PKG_VERSION"), "one version for the whole house");
    let ready = nobody.get("/readyz").await;
    assert_eq!(ready.expect(200)["status"], "ready");
    let judge = &ready.json["judges"][0];
    assert_eq!((&judge["name"], &judge["kind"]), (&json!("open-nsfw"), &json!("classifier")));
    assert_eq!((&judge["demo"], &ready.json["device"]), (&json!(false), &json!("cpu")));

    let document = nobody.get("/openapi.json").await;
    assert_eq!(document.expect(200)["openapi"].as_str().map(|v| &v[..4]), Some("3.1."));
    assert_eq!(document.json["info"]["license"]["identifier"], "Apache-2.0");
    assert_eq!(document.json["components"]["securitySchemes"]["key"]["scheme"], "bearer");
}

#[tokio::test]
async fn metrics_count_what_happened_and_name_nobody() {
    let gate = Gate::start().await;
    let key = gate.key("moderate");
    let caller = gate.caller(&key);
    caller.upload(&samples::coffee()).await.expect(200);
    caller.upload(&samples::coffee()).await.expect(200);
    caller.upload(b"text".as_slice()).await.refused(415, "image_type_unsupported");
    let asked = caller.request(Method::POST, "/v1/images").header("idempotency-key", "x".repeat(256));
    caller.send(asked.body(samples::coffee())).await.refused(400, "idempotency_key_invalid");
    let metrics = gate.nobody().get("/metrics").await;
    metrics.expect(200);
    assert!(
        metrics.header("content-type").is_some_and(|value| value.starts_with("text/plain; version=0.0.4"))
    );
    let text = metrics.text();
    let value = |name: &str, labels: &[&str]| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let posted = ["method=\"POST\"", "route=\"/v1/images\""];
    assert_eq!(
        value("shieldgate_http_requests_total", &[posted[0], posted[1], "status=\"200\""]),
        Some(2.0),
        "{text}"
    );
    assert_eq!(value("shieldgate_http_requests_total", &[posted[0], posted[1], "status=\"415\""]), Some(1.0));
    assert_eq!(value("shieldgate_verdicts_total", &["action=\"allow\"", "cached=\"false\""]), Some(1.0));
    assert_eq!(value("shieldgate_verdicts_total", &["action=\"allow\"", "cached=\"true\""]), Some(1.0));
    assert_eq!(
        value("shieldgate_moderation_failures_total", &["reason=\"image_type_unsupported\""]),
        Some(1.0)
    );
    assert_eq!(
        value("shieldgate_policy_answers_total", &["policy=\"sexual\"", "outcome=\"recalled\""]),
        Some(1.0)
    );
    assert_eq!(
        value("shieldgate_moderation_failures_total", &["reason=\"idempotency_key_invalid\""]),
        Some(1.0),
        "turned away before it was looked at"
    );
    assert!(value("shieldgate_http_request_duration_seconds_bucket", &posted).is_some());
    assert!(!text.contains(&key) && !text.contains("test-moderate"), "no label may name a key");
}

#[tokio::test]
async fn metrics_may_have_a_listener_of_their_own() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let gate = Gate::with().env("SHIELDGATE_METRICS_LISTEN", port).start().await;
    let beside = |path: &str| gate.client().get(format!("http://{port}{path}"));
    let metrics = shieldgate_tests::send(beside("/metrics")).await;
    metrics.expect(200);
    assert!(metrics.text().contains("shieldgate_judge_queue"), "{}", metrics.text());
    shieldgate_tests::send(beside("/readyz")).await.expect(200);
    shieldgate_tests::send(beside("/v1/verdicts")).await.refused(404, "no_such_route");
    shieldgate_tests::send(gate.client().get(gate.url("/metrics"))).await.refused(404, "no_such_route");
}

#[tokio::test]
async fn the_documentation_is_a_page_that_loads_nothing_from_elsewhere() {
    let gate = Gate::start().await;
    let get = |path: &str| shieldgate_tests::send(gate.client().get(gate.url(path)));
    let page = get("/docs").await;
    page.expect(200);
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let html = page.text();
    assert!(html.contains("<base href=\"/docs/\">") && !html.contains("//unpkg"), "{html}");
    let links: Vec<&str> = html
        .split(['"', '\''])
        .filter(|link| link.ends_with(".js") || link.ends_with(".css"))
        .map(|link| link.trim_start_matches("./"))
        .collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links {
        get(&format!("/docs/{link}")).await.expect(200);
    }
    let initial = get("/docs/swagger-initializer.js").await.text();
    assert!(initial.contains("/openapi.json") && initial.contains("\"validatorUrl\": \"none\""), "{initial}");
    get("/docs/../Cargo.toml").await.refused(404, "no_such_route");
    get("/docs/none.js").await.refused(404, "no_such_route");
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let gate = Gate::start().await;
    let key = gate.key("moderate,admin");
    let caller = gate.caller(&key);
    let with = |id: &str| caller.request(Method::GET, "/healthz").header("x-request-id", id.to_owned());
    assert_eq!(caller.send(with("trace-1:a/b.c")).await.header("x-request-id"), Some("trace-1:a/b.c"));
    // What could break a log line is not echoed.
    for bad in ["two words", "<script>", "\"", &"x".repeat(129)] {
        let made = caller.send(with(bad)).await.header("x-request-id").map(str::to_owned);
        let id = made.as_deref().and_then(|id| id.parse::<uuid::Uuid>().ok());
        assert_eq!(id.map(|id| id.get_version_num()), Some(7), "{made:?} for `{bad}`");
    }
    // It is in the log and in the verdict's audit entry.
    let request = caller.request(Method::POST, "/v1/images").header("x-request-id", "trace-2");
    caller.send(request.body(samples::coffee())).await.expect(200);
    let audit = caller.get("/v1/audit?act=verdict.recorded").await;
    assert_eq!(audit.expect(200)["data"][0]["detail"]["request_id"], "trace-2");
    assert!(gate.log().contains("trace-2"));
    assert!(!gate.log().contains(&key), "no key in the log");

    let problem = caller.get("/v1/nothing").await;
    assert_eq!(problem.refused(404, "no_such_route")["error"]["type"], "invalid_request_error");
    let problem = caller.send(caller.request(Method::PUT, "/v1/images")).await;
    problem.refused(405, "method_not_allowed");
    assert_eq!(problem.header("allow"), Some("POST"));
    let problem = caller.send(caller.request(Method::DELETE, "/v1/overrides")).await;
    problem.refused(405, "method_not_allowed");
    assert_eq!(problem.header("allow"), Some("GET, POST"));
}

#[tokio::test]
async fn the_audit_log_is_listed_page_by_page() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,admin"));
    let verdict = caller.upload(&samples::coffee()).await;
    let id = verdict.expect(200)["id"].as_str().unwrap_or_default().to_owned();
    let entry = caller.get(&format!("/v1/audit?target={id}")).await;
    let entry = &entry.expect(200)["data"][0];
    assert_eq!(
        (&entry["act"], &entry["actor"]),
        (&json!("verdict.recorded"), &json!(gate.actor("test-moderate.admin")))
    );
    assert_eq!(entry["hashes"]["content"], verdict.json["content"]["sha256"]);
    assert!(entry["leaf_hash"].as_str().is_some_and(|hash| hash.starts_with("sha256:")));
    // No metadata, no content.
    assert!(entry["detail"].get("metadata").is_none());

    let all = caller.get("/v1/audit?limit=200").await;
    let all: Vec<i64> = sequence(&all.expect(200)["data"]);
    assert!(all.is_sorted_by(|newer, older| newer > older) && all.len() >= 8, "{all:?}");
    let mut paged = Vec::new();
    let mut path = "/v1/audit?limit=3".to_owned();
    loop {
        let page = caller.get(&path).await;
        paged.extend(sequence(&page.expect(200)["data"]));
        match page.json["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/audit?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
    caller.get("/v1/audit?since=never").await.refused(400, "time_invalid");
    caller.get("/v1/audit?limit=0").await.refused(400, "limit_invalid");
}

fn sequence(data: &serde_json::Value) -> Vec<i64> {
    data.as_array().into_iter().flatten().filter_map(|entry| entry["seq"].as_i64()).collect()
}
