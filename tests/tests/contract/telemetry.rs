//! What a collector is told over OTLP: one span a stage, metrics and logs, and nothing that is the client's.

use reqwest::Method;
use shieldgate_tests::{Collector, Gate, samples};

#[tokio::test]
async fn a_collector_gets_a_span_a_stage_and_metrics_and_logs() {
    let collector = Collector::start().await;
    let mut gate = Gate::with().env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).start().await;
    let key = gate.key("moderate");
    let caller = gate.caller(&key);
    let trace = [0xab; 16];
    let parent = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
    let request = caller.request(Method::POST, "/v1/images?ref=secret-reference");
    let request = request.header("traceparent", parent).body(samples::coffee());
    caller.send(request).await.expect(200);
    // What is still on its way goes out at the end.
    assert_eq!(gate.stop().await, Some(0));

    for stage in ["POST /v1/images", "moderate", "decode", "wait", "judge", "classify", "record"] {
        assert!(collector.got("/v1/traces", stage.as_bytes()), "no span `{stage}`");
    }
    assert!(collector.got("/v1/traces", &trace), "the caller's trace goes on");
    assert!(collector.got("/v1/traces", b"shieldgate"));
    assert!(collector.got("/v1/metrics", b"shieldgate_verdicts"));
    assert!(collector.got("/v1/logs", b"answered"));
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        for secret in [key.as_bytes(), b"secret-reference"] {
            assert!(!collector.got(path, secret), "{path} has what is the client's");
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing() {
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let mut gate = Gate::with().env("SHIELDGATE_OTLP_ENDPOINT", format!("http://{nobody}")).start().await;
    gate.caller(&gate.key("moderate")).upload(&samples::coffee()).await.expect(200);
    assert_eq!(gate.stop().await, Some(0));
}

#[test]
fn an_endpoint_that_is_none_is_wrong_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = ["serve", "--data-dir", "d", "--otlp-endpoint", "collector:4318"];
    let done = shieldgate_tests::shieldgate(folder.path(), &args, &[]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.contains("http://collector:4318"), "{done:?}");
}
