//! The policies' lifecycle over HTTP and the command line; the running service follows at once.

use serde_json::{Value, json};
use shieldgate_tests::{Answer, Caller, Gate, samples, shieldgate};
use tempfile::TempDir;

fn body(review: f64, block: f64) -> Value {
    json!({
        "id": "sexual", "title": "S", "modality": "image", "text": "No such thing.",
        "judges": [{"name": "open-nsfw", "thresholds": {"review": review, "block": block}}],
    })
}

async fn verdict(caller: &Caller) -> (String, String) {
    let answer = caller.upload(&samples::coffee()).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&answer.expect(200)["action"]), text(&answer.json["policies"][0]["version"]))
}

fn version(answer: &Answer) -> String {
    answer.json["version"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn versions_are_imported_activated_and_rolled_back_over_http() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let shipped = verdict(&caller).await;
    assert_eq!(shipped.0, "allow");

    // A draft judges nothing. Open-NSFW gives coffee 0.0046.
    let draft = caller.post("/v1/policies/sexual/versions", &body(0.001, 0.002)).await;
    assert_eq!(
        (draft.expect(201)["state"].as_str(), &draft.json["displaced"]),
        (Some("draft"), &Value::Null)
    );
    assert_eq!(verdict(&caller).await, shipped);
    // The same content is the same version, however it is written.
    let again = caller.post("/v1/policies/sexual/versions", &body(1e-3, 2e-3)).await;
    assert_eq!((again.expect(200)["state"].as_str(), version(&again)), (Some("draft"), version(&draft)));

    let strict = version(&draft);
    let path = |version: &str| format!("/v1/policies/sexual/versions/{version}/activate");
    let activated = caller.post(&path(&strict), &json!({"state": "active"})).await;
    assert_eq!(activated.expect(200)["displaced"], json!(shipped.1));
    // From the very next request on, and without asking the judge again: only thresholds changed.
    assert_eq!(verdict(&caller).await, ("block".to_owned(), strict.clone()));
    let recalled = caller.upload(&samples::coffee()).await;
    assert_eq!(recalled.expect(200)["cached"], true);

    let view = caller.get("/v1/policies/sexual").await;
    assert_eq!(view.expect(200)["active"], json!(strict));
    let states: Vec<&Value> =
        view.json["versions"].as_array().into_iter().flatten().map(|v| &v["state"]).collect();
    assert_eq!(states, ["active", "retired"]);
    assert_eq!(
        view.json["versions"][0]["body"]["judges"][0]["thresholds"],
        json!({"review": 0.001, "block": 0.002})
    );
    let list = caller.get("/v1/policies").await;
    let ids: Vec<&Value> =
        list.expect(200)["data"].as_array().into_iter().flatten().map(|p| &p["id"]).collect();
    let shipped_ids: Vec<&str> = ["dangerous", "harassment-text", "hate-text", "self-harm-text", "sexual"]
        .into_iter()
        .chain(["sexual-text", "violence", "violence-text"])
        .collect();
    assert_eq!(ids, shipped_ids);

    // The rollback is an activation; without a body it means the same.
    let back = caller.send(caller.request(reqwest::Method::POST, &path(&shipped.1))).await;
    assert_eq!(back.expect(200)["displaced"], json!(strict));
    assert_eq!(verdict(&caller).await, shipped);
    // Activating what is active changes nothing.
    let unchanged = caller.post(&path(&shipped.1), &json!({})).await;
    assert_eq!(unchanged.expect(200)["displaced"], Value::Null);

    // Who did it, and what it changed.
    let audit = caller.get("/v1/audit?act=policy.activated&target=sexual").await;
    let entries = audit.expect(200)["data"].as_array().cloned().unwrap_or_default();
    assert_eq!(entries.len(), 3, "two here, one at the first start: {entries:#?}");
    assert_eq!(entries[0]["actor"], json!(gate.actor("test-moderate.read.admin")));
    assert_eq!(entries[1]["hashes"]["version"], json!(strict));
    let diff = &entries[1]["detail"]["diff"]["judges"];
    assert_eq!(diff["after"][0]["thresholds"]["block"], json!(0.002), "{}", entries[1]);

    caller.post(&path(&"0".repeat(64)), &json!({})).await.refused(404, "not_found");
    caller.post("/v1/policies/none/versions/0/activate", &json!({})).await.refused(404, "not_found");
    caller.get("/v1/policies/none").await.refused(404, "not_found");
}

#[tokio::test]
async fn an_activation_that_is_not_understood_changes_nothing() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let shipped = verdict(&caller).await;
    let draft = caller.post("/v1/policies/sexual/versions", &body(0.001, 0.002)).await;
    draft.expect(201);
    let path = format!("/v1/policies/sexual/versions/{}/activate", version(&draft));
    caller.post(&path, &json!({"state": "retired"})).await.refused(422, "state_not_offered");
    for wrong in ["{\"state\": \"shad", "{\"sate\": \"shadow\"}", "[]", "{\"state\": 1}", "nonsense"] {
        let request = caller.request(reqwest::Method::POST, &path);
        let request = request.header("content-type", "application/json").body(wrong);
        caller.send(request).await.refused(400, "json_invalid");
    }
    // Written without saying that it is JSON, it must not be taken for absent either.
    let request = caller.request(reqwest::Method::POST, &path).body("{\"state\": \"retired\"}");
    let answer = caller.send(request).await;
    assert!(matches!(answer.status, 415 | 422), "{}: {}", answer.status, answer.text());
    assert_eq!(verdict(&caller).await, shipped);
}

#[tokio::test]
async fn a_version_in_the_shadow_is_judged_and_compared_and_never_acts() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let draft = caller.post("/v1/policies/sexual/versions", &body(0.001, 0.002)).await;
    draft.expect(201);
    let path = format!("/v1/policies/sexual/versions/{}/activate", version(&draft));
    let change = caller.post(&path, &json!({"state": "shadow"})).await;
    assert_eq!((&change.expect(200)["state"], &change.json["displaced"]), (&json!("shadow"), &json!(null)));

    // Blocked by the version in the shadow, allowed by the active one.
    let answer = caller.upload(&samples::coffee()).await;
    assert_eq!(answer.expect(200)["action"], "allow");
    assert!(answer.json["policies"].as_array().into_iter().flatten().all(|p| p["outcome"] != "shadow"));
    let id = answer.json["id"].as_str().expect("an id").to_owned();
    // A second one, whose judgement is recalled.
    caller.upload(&samples::coffee()).await.expect(200);
    let mut view = caller.get("/v1/policies/sexual").await;
    for _ in 0..100 {
        if view.expect(200)["shadow"]["compared"] == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        view = caller.get("/v1/policies/sexual").await;
    }
    let shadow = &view.json["shadow"];
    assert_eq!(shadow["version"], json!(version(&draft)), "{shadow}");
    let counts = ["compared", "agreed", "stricter", "milder"].map(|name| shadow[name].clone());
    assert_eq!(counts, [json!(2), json!(0), json!(2), json!(0)], "{shadow}");
    assert_eq!(shadow["pairs"], json!([{"active": "allow", "shadow": "block", "count": 2}]));

    // It stands beside the answer on record, and the action is what it was.
    let read = caller.get(&format!("/v1/verdicts/{id}")).await;
    assert_eq!(read.expect(200)["action"], "allow");
    let answers = read.json["policies"].as_array().expect("policies");
    let shadows: Vec<_> = answers.iter().filter(|answer| answer["outcome"] == "shadow").collect();
    assert_eq!((shadows.len(), &shadows[0]["action"]), (1, &json!("block")), "{answers:?}");
    let audit = caller.get(&format!("/v1/audit?target={id}&act=verdict.shadowed")).await;
    assert_eq!(audit.expect(200)["data"][0]["detail"]["actions"], json!({"sexual": "block"}));
    assert_eq!(caller.get("/v1/verdicts?action=block").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_meant_or_judged_is_refused() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("read,admin"));
    let changed = |pointer: &str, value: Value| {
        let mut policy = body(0.5, 0.8);
        *policy.pointer_mut(pointer).expect("it is there") = value;
        policy
    };
    for (policy, status, code) in [
        (body(0.9, 0.8), 422, "policy_invalid"),
        (body(0.5, 1.5), 422, "policy_invalid"),
        (changed("/judges", json!([])), 422, "policy_invalid"),
        (changed("/text", json!("")), 422, "policy_invalid"),
        (changed("/id", json!("other")), 422, "policy_id_differs"),
        (changed("/modality", json!("smell")), 400, "json_invalid"),
        (changed("/title", json!(7)), 400, "json_invalid"),
        (json!([]), 400, "json_invalid"),
        (json!({}), 400, "json_invalid"),
    ] {
        let answer = caller.post("/v1/policies/sexual/versions", &policy).await;
        assert_eq!(
            (answer.status, &answer.json["error"]["code"]),
            (status, &json!(code)),
            "{policy}: {}",
            answer.text()
        );
    }
    // A judge that is not here: it may be drafted, and not be activated.
    let draft =
        caller.post("/v1/policies/sexual/versions", &changed("/judges/0/name", json!("absent"))).await;
    draft.expect(201);
    let path = format!("/v1/policies/sexual/versions/{}/activate", version(&draft));
    let problem = caller.post(&path, &json!({})).await;
    let detail = problem.refused(422, "judge_missing")["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("`absent`") && detail.contains("open-nsfw"), "{detail}");
}

#[tokio::test]
async fn the_command_line_does_the_same_beside_the_running_service() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let shipped = verdict(&caller).await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sexual.yaml");
    let yaml = "id: sexual\ntitle: S\nmodality: image\ntext: S\njudges:\n  - name: open-nsfw\n    thresholds: {review: 0.001, block: 0.9}\n";
    std::fs::write(&file, yaml).expect("writes");
    let path = file.to_str().expect("a plain name");

    let applied = gate.command(&["policies", "apply", path]).good();
    assert!(applied.starts_with("sexual ") && applied.ends_with("imported as draft"), "{applied}");
    let strict = applied.split(' ').nth(1).expect("the version's beginning").to_owned();
    assert_eq!(verdict(&caller).await, shipped);
    assert!(gate.command(&["policies", "apply", path]).good().ends_with("was there already, draft"));

    gate.command(&["policies", "activate", "sexual", &strict]).good();
    let now = verdict(&caller).await;
    assert!(now.0 == "review" && now.1.starts_with(&strict), "{now:?}");
    let listed: Value =
        serde_json::from_str(&gate.command(&["policies", "list", "--json"]).good()).expect("JSON");
    let states: Vec<(&Value, &Value)> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["policy"] == "sexual")
        .map(|row| (&row["version"], &row["state"]))
        .collect();
    assert_eq!(states, [(&json!(now.1), &json!("active")), (&json!(shipped.1), &json!("retired"))]);

    gate.command(&["policies", "activate", "sexual", &shipped.1]).good();
    assert_eq!(verdict(&caller).await, shipped);
    gate.command(&["policies", "retire", "sexual", &shipped.1]).good();
    // Now nothing is left that could be judged: no verdict rather than an allow.
    caller.upload(&samples::coffee()).await.refused(503, "nothing_judged");
    let error = gate.command(&["policies", "activate", "sexual", "zz"]).bad(1);
    assert!(error.contains("no version that begins with `zz`") && error.contains(&strict), "{error}");
    let audit = caller.get("/v1/audit?target=sexual&act=policy.retired").await;
    assert_eq!(audit.expect(200)["data"].as_array().map(Vec::len), Some(1));
}

#[test]
fn check_names_file_and_line_and_needs_no_database() {
    let folder = TempDir::new().expect("a folder");
    let good = "id: gore\ntitle: Gore\nmodality: image\ntext: No gore.\njudges:\n  - name: a\n    thresholds: {review: 0.5, block: 0.8}\n";
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writes");
    write("gore.yaml", good);
    write("notes.txt", "not a policy");
    let check = || shieldgate(folder.path(), &["policies", "check", "."], &[]);
    assert!(check().good().starts_with("gore "));

    write("above.yaml", &good.replace("id: gore", "id: above").replace("review: 0.5", "review: 0.9"));
    write("typo.yml", &good.replace("id: gore", "id: typo").replace("title", "titel"));
    write("twice.yaml", good);
    write("open.yaml", "id: [");
    let error = check().bad(1);
    // All of them at once, each with what to do.
    for expected in [
        "above.yaml:7: judges[0].thresholds: review 0.9 is above block 0.8",
        "typo.yml:2: ",
        "twice.yaml: policy `gore` is already in",
        "open.yaml:",
    ] {
        assert!(error.contains(expected), "no `{expected}` in\n{error}");
    }
    assert!(!folder.path().join("shieldgate-data").exists(), "a check makes no data directory");
    let missing = shieldgate(folder.path(), &["policies", "check", "nowhere"], &[]).bad(1);
    assert!(missing.contains("nowhere: can't be read"), "{missing}");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    assert_eq!(shieldgate(folder.path(), &["policies", "check", shipped], &[]).good().lines().count(), 8);
}
