//! `Idempotency-Key`: one verdict a key, also for requests at once; another request under it is a conflict.

use std::collections::HashSet;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use shieldgate_tests::{Gate, Upload, samples};

fn keyed(bytes: &[u8], key: &str) -> Upload {
    Upload { idempotency_key: Some(key.to_owned()), ..Upload::from(bytes) }
}

#[tokio::test]
async fn the_same_request_gets_the_same_verdict_and_another_a_conflict() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let first = caller.upload(keyed(&samples::coffee(), "order-1")).await;
    let again = caller.upload(keyed(&samples::coffee(), "order-1")).await;
    assert_eq!(first.expect(200), again.expect(200));

    // `x-should-retry: false` is checked on every 409.
    caller.upload(keyed(&samples::unique(1), "order-1")).await.refused(409, "idempotency_conflict");
    let with = |query: &str| Upload { query: Some(query.to_owned()), ..keyed(&samples::coffee(), "order-1") };
    for other in ["ref=other", "subject=other", "policies=sexual"] {
        caller.upload(with(other)).await.refused(409, "idempotency_conflict");
    }
    let form = Form::new().part("file", Part::bytes(samples::coffee())).text("metadata", "{\"a\":1}");
    let request =
        caller.request(Method::POST, "/v1/images").header("idempotency-key", "order-1").multipart(form);
    caller.send(request).await.refused(409, "idempotency_conflict");
    // Sent as a form, it is still the same request.
    let form = Form::new().part("file", Part::bytes(samples::coffee()));
    let request =
        caller.request(Method::POST, "/v1/images").header("idempotency-key", "order-1").multipart(form);
    assert_eq!(caller.send(request).await.expect(200)["id"], first.json["id"]);

    // Another key is another submission; a refused request leaves its key free.
    let other = caller.upload(keyed(&samples::coffee(), "order-2")).await;
    assert_ne!(other.expect(200)["id"], first.json["id"]);
    caller.upload(keyed(b"no picture", "order-3")).await.refused(415, "image_type_unsupported");
    caller.upload(keyed(&samples::coffee(), "order-3")).await.expect(200);

    // Keys are a project's own.
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    gate.command(&["policies", "apply", "--activate", "--project", "other", policies]).good();
    let theirs = gate.caller(&gate.key_in("other", "moderate"));
    let theirs = theirs.upload(keyed(&samples::unique(2), "order-1")).await;
    assert_eq!(theirs.expect(200)["project"], "other");

    caller.upload(keyed(&samples::coffee(), &"k".repeat(255))).await.expect(200);
    for bad in [String::new(), "k".repeat(256)] {
        let problem = caller.upload(keyed(&samples::coffee(), &bad)).await;
        assert_eq!(problem.refused(400, "idempotency_key_invalid")["error"]["param"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn of_sixteen_at_once_one_is_recorded() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.upload(keyed(&samples::coffee(), "once")).await })
        })
        .collect();
    let mut ids = HashSet::new();
    for request in requests {
        let answer = request.await.expect("it ends");
        ids.insert(answer.expect(200)["id"].as_str().map(str::to_owned));
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let mut owner = gate.owner().await;
    let verdicts: i64 =
        sqlx::query_scalar("select count(*) from verdicts").fetch_one(&mut owner).await.expect("counts");
    assert_eq!(verdicts, 1);
}
