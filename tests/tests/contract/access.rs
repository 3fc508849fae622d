//! Who may do what: every route against every scope, and keys that are not, or no longer, good.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use shieldgate_tests::texts::{self, tiny};
use shieldgate_tests::{Caller, Gate, samples};

const SCOPES: [&str; 4] = ["moderate", "read", "review", "admin"];

/// Every route of the OpenAPI document and the scopes that open it; an empty list needs no key.
const ROUTES: [(&str, &str, &[&str]); 19] = [
    ("POST", "/v1/images", &["moderate"]),
    ("POST", "/v1/texts", &["moderate"]),
    ("POST", "/v1/moderations", &["moderate"]),
    ("GET", "/v1/verdicts", &["read"]),
    ("GET", "/v1/verdicts/{id}", &["moderate", "read"]),
    ("GET", "/v1/policies", &["read"]),
    ("GET", "/v1/policies/{id}", &["read"]),
    ("POST", "/v1/policies/{id}/versions", &["admin"]),
    ("POST", "/v1/policies/{id}/versions/{version}/activate", &["admin"]),
    ("GET", "/v1/overrides", &["admin"]),
    ("POST", "/v1/overrides", &["admin"]),
    ("DELETE", "/v1/overrides/{id}", &["admin"]),
    ("GET", "/v1/audit", &["admin"]),
    ("GET", "/healthz", &[]),
    ("HEAD", "/healthz", &[]),
    ("GET", "/readyz", &[]),
    ("HEAD", "/readyz", &[]),
    ("GET", "/metrics", &[]),
    ("GET", "/openapi.json", &[]),
];

/// A request that is in order, so that only the key decides.
async fn ask(caller: &Caller, method: &str, route: &str) -> u16 {
    let path = match route {
        "/v1/policies/{id}" | "/v1/policies/{id}/versions" => route.replace("{id}", "sexual"),
        _ => route.replace("{id}", "01890000-0000-7000-8000-000000000000").replace("{version}", "0"),
    };
    let method: Method = method.parse().expect("a method");
    let request = caller.request(method, &path);
    let request = match route {
        "/v1/images" => request.header("content-type", "image/png").body(samples::coffee()),
        "/v1/texts" => request.json(&json!({"text": "a"})),
        "/v1/moderations" => request.json(&json!({"input": "a"})),
        "/v1/overrides" => {
            request.json(&json!({"policy": "violence", "action": "allow", "reason": "a test"}))
        }
        "/v1/policies/{id}/versions" => request.json(&json!({
            "id": "sexual", "title": "t", "modality": "image", "text": "t",
            "judges": [{"name": "open-nsfw", "thresholds": {"review": 0.4, "block": 0.8}}],
        })),
        "/v1/policies/{id}/versions/{version}/activate" => request.json(&json!({"state": "active"})),
        _ => request,
    };
    caller.send(request).await.status
}

#[tokio::test]
async fn every_route_opens_for_its_scopes_and_no_other() {
    let (_folder, model) = tiny();
    let gate = texts::gate(&model).start().await;
    let documented: BTreeSet<(String, String)> = gate.api().routes().into_iter().collect();
    let listed =
        ROUTES.iter().map(|(method, route, _)| ((*method).to_owned(), (*route).to_owned())).collect();
    assert_eq!(documented, listed, "every route needs its line in ROUTES");

    let callers: Vec<_> = SCOPES.iter().map(|scope| (*scope, gate.caller(&gate.key(scope)))).collect();
    let unknown = gate.caller(&format!("sg_{}", "0".repeat(64)));
    for (method, route, scopes) in ROUTES {
        for (scope, caller) in &callers {
            let status = ask(caller, method, route).await;
            let open = scopes.is_empty() || scopes.contains(scope);
            assert_eq!(status != 403, open, "{method} {route} with `{scope}` gave {status}");
            assert!(
                !open || matches!(status, 200 | 201 | 404),
                "{method} {route} with `{scope}` gave {status}"
            );
        }
        let expected = if scopes.is_empty() { 200 } else { 401 };
        assert_eq!(ask(&gate.nobody(), method, route).await, expected, "{method} {route} without a key");
        assert_eq!(ask(&unknown, method, route).await, expected, "{method} {route} with an unknown key");
        // The document says so too.
        let operation = &gate.api().document["paths"][route][method.to_lowercase()];
        assert_eq!(operation["security"].is_array(), !scopes.is_empty(), "security of {method} {route}");
    }
    // A person's own entrance.
    let index = gate.nobody().get("/").await;
    assert!(index.status == 200 && index.text().contains("/openapi.json"), "{}", index.text());
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_beside_the_running_service() {
    let gate = Gate::start().await;
    let key = gate.key("moderate,read");
    let caller = gate.caller(&key);
    caller.get("/v1/verdicts").await.expect(200);

    let listed: serde_json::Value =
        serde_json::from_str(&gate.command(&["keys", "list", "--json"]).good()).expect("JSON");
    assert_eq!(listed[0]["name"], "test-moderate.read");
    assert_eq!(listed[0]["scopes"], json!(["moderate", "read"]));
    assert_eq!(listed[0]["revoked_at"], json!(null));
    assert!(key.starts_with(listed[0]["prefix"].as_str().unwrap_or("-")), "{listed}");
    assert!(!listed.to_string().contains(&key), "a key is shown once");
    let mut owner = gate.owner().await;
    let on_record: i64 =
        sqlx::query_scalar("select count(*) from api_keys k where k::text like '%' || $1 || '%'")
            .bind(key.trim_start_matches("sg_"))
            .fetch_one(&mut owner)
            .await
            .expect("counts");
    assert_eq!(on_record, 0, "only its hash is on record");

    let id = listed[0]["id"].as_str().unwrap_or_default().to_owned();
    gate.command(&["keys", "revoke", &id, "--project", "other"]).bad(1);
    caller.get("/v1/verdicts").await.expect(200);
    gate.command(&["keys", "revoke", &id]).good();
    caller.get("/v1/verdicts").await.refused(401, "key_invalid");
    caller.upload(&samples::coffee()).await.refused(401, "key_invalid");
    assert!(gate.command(&["keys", "revoke", &id]).bad(1).contains("no key"));

    // Both acts are audited, by whom.
    let admin = gate.caller(&gate.key("admin"));
    for act in ["key.created", "key.revoked"] {
        let audit = admin.get(&format!("/v1/audit?act={act}&target={id}")).await;
        let entries = audit.expect(200)["data"].as_array().cloned().unwrap_or_default();
        assert_eq!(entries.len(), 1, "{act}");
        assert!(
            entries[0]["actor"].as_str().is_some_and(|actor| actor.starts_with("cli:")),
            "{}",
            entries[0]
        );
    }

    // Wrong words are said, not stored.
    assert!(
        gate.command(&["keys", "create", "--name", "a", "--scopes", "moderate,all"]).bad(2).contains("`all`")
    );
    gate.command(&["keys", "create", "--name", "a b", "--scopes", "read"]).bad(2);
    gate.command(&["keys", "create", "--name", "a"]).bad(2);
    gate.command(&["keys", "revoke", "no-uuid"]).bad(2);
}

#[tokio::test]
async fn an_authorization_header_that_is_none_is_refused() {
    let gate = Gate::start().await;
    let key = gate.key("read");
    let nobody = gate.nobody();
    for header in ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", key.as_str(), "Bearer sg_", "Bearer \u{e9}"]
    {
        let request = nobody.request(Method::GET, "/v1/verdicts").header("authorization", header);
        let problem = nobody.send(request).await;
        assert_eq!(
            problem.refused(401, "key_invalid")["error"]["type"],
            "authentication_error",
            "`{header}`"
        );
    }
    // The scheme's case is free (RFC 9110).
    let request =
        nobody.request(Method::GET, "/v1/verdicts").header("authorization", format!("bearer {key}"));
    nobody.send(request).await.expect(200);
    let problem = gate.caller(&key).get("/v1/audit").await;
    assert_eq!(problem.refused(403, "scope_missing")["error"]["type"], "permission_error");
    assert!(problem.json["detail"].as_str().is_some_and(|detail| detail.contains("`admin`")));
}
