//! A Postgres that is not ours, by `DATABASE_URL`: it goes and comes; two services share it.

use std::time::Duration;

use serde_json::json;
use shieldgate_tests::{Answer, Caller, Upload};
use tokio::task::JoinSet;

use crate::server::Server;
use crate::stage::{
    GREY, Load, Seen, count, grey, on_record, policy, ready, recovered, stage, upload, verdicts,
};

const RECOVERY: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_database_that_goes_away_is_503_and_then_200() {
    let server = Server::start().await;
    let setup = server.under(stage(&["steady"])).policy("alpha", &policy("alpha", &["steady"], "fail"));
    let mut gate = setup.fresh().start().await;
    // Its check looks into the private cluster, and there is none.
    gate.skip_check_at_end();
    assert!(!gate.data_dir().join("postgres").exists(), "no private cluster beside a named database");
    assert!(
        !gate.log().contains("append-only guards away"),
        "the service's user is no owner: {}",
        gate.log()
    );
    let key = server.command(&["keys", "create", "--name", "t", "--scopes", "moderate,read"]).good();
    let caller = gate.caller(&key);
    caller.upload(upload(GREY, "alpha")).await.expect(200);

    let load = Load::begin(&caller, 8, || upload(GREY, "alpha"));
    for mode in ["fast", "immediate", "immediate"] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.down(mode);
        caller.upload(upload(GREY, "alpha")).await.refused(503, "database_unavailable");
        ready(&gate, 503, Duration::from_secs(5)).await;
        assert_eq!(gate.nobody().get("/healthz").await.status, 200, "alive all the same");
        assert_eq!(caller.get("/v1/verdicts").await.status, 503);
        server.up();
        recovered(&caller, RECOVERY, || upload(GREY, "alpha")).await;
        ready(&gate, 200, RECOVERY).await;
    }
    let seen = load.end().await;
    assert!(seen.iter().all(|seen| matches!(seen, Seen::Answered(_))), "the service breaks no connection");
    let answered = verdicts(&seen, &[503]);
    assert!(count(&seen, 503) > 0 && answered.len() > 5, "{} answered", answered.len());
    on_record(&mut server.connect("owner", "gate").await, &answered).await;
    let (verdicts, entries): (i64, i64) = sqlx::query_as(
        "select (select count(*) from verdicts), (select count(distinct target) from audit where act = 'verdict.recorded')",
    )
    .fetch_one(&mut server.connect("owner", "gate").await)
    .await
    .expect("answers");
    assert_eq!(verdicts, entries, "no verdict without audit, no audit without verdict");
    assert_eq!(gate.terminate().await, Some(0));
}

async fn all_at_once(callers: &[&Caller], upload: &Upload) -> Vec<Answer> {
    let mut set = JoinSet::new();
    for caller in callers {
        let (caller, upload) = ((*caller).clone(), upload.clone());
        set.spawn(async move { caller.upload(upload).await });
    }
    set.join_all().await
}

#[tokio::test]
async fn what_one_of_two_services_is_told_counts_at_the_other_at_once() {
    let server = Server::start().await;
    let setup = server.under(stage(&["steady"])).policy("alpha", &policy("alpha", &["steady"], "fail"));
    let mut one = setup.start().await;
    let mut two = server.under(stage(&["steady"])).start().await;
    one.skip_check_at_end();
    two.skip_check_at_end();
    let key = server.command(&["keys", "create", "--name", "t", "--scopes", "moderate,read,admin"]).good();
    let (first, second) = (one.caller(&key), two.caller(&key));
    // Half the brightness, 0.25: allowed at 0.4.
    let picture = Upload { bytes: grey(GREY), query: Some("policies=alpha".to_owned()), ..Upload::default() };
    for caller in [&first, &second] {
        assert_eq!(caller.upload(picture.clone()).await.expect(200)["action"], "allow");
    }

    // A stricter version, imported and activated through the first.
    let stricter = json!({
        "id": "alpha", "title": "Stricter", "modality": "image", "text": "What the fault tests ask.",
        "judges": [{"name": "steady", "thresholds": {"review": 0.1, "block": 0.2}}],
        "on_error": "fail", "when_missing": "refuse", "frames": "max", "openai": [],
    });
    let made = first.post("/v1/policies/alpha/versions", &stricter).await;
    let version = made.json["version"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned();
    let path = format!("/v1/policies/alpha/versions/{version}/activate");
    let before = second.upload(picture.clone()).await;
    assert_eq!(before.expect(200)["action"], "allow", "a draft judges nothing");
    assert_eq!(first.post(&path, &json!({"state": "active"})).await.status, 200);
    for caller in [&second, &first] {
        let answer = caller.upload(picture.clone()).await;
        let verdict = answer.expect(200);
        assert_eq!(verdict["action"], "block", "{verdict:#}");
        assert_eq!(verdict["policies"][0]["version"], version.as_str(), "{verdict:#}");
        assert_eq!(verdict["cached"], true, "thresholds need no model: {verdict:#}");
    }

    // An override, made through the second and taken back through the first.
    let sha256 = before.json["content"]["sha256"].clone();
    let over = json!({"sha256": sha256, "action": "review", "reason": "seen by a person"});
    let made = second.post("/v1/overrides", &over).await;
    assert!(matches!(made.status, 200 | 201), "{}", made.text());
    for caller in [&first, &second] {
        let answer = caller.upload(picture.clone()).await;
        let verdict = answer.expect(200);
        assert_eq!(
            (&verdict["action"], &verdict["policies"][0]["outcome"]),
            (&json!("review"), &json!("override"))
        );
    }
    let id = made.json["id"].as_str().expect("an id");
    assert!(matches!(first.delete(&format!("/v1/overrides/{id}")).await.status, 200 | 204));
    assert_eq!(second.upload(picture.clone()).await.expect(200)["action"], "block");

    // One idempotency key at both, at the same moment: one verdict, or a conflict where the requests differ.
    let keyed =
        |key: &str, picture: &Upload| Upload { idempotency_key: Some(key.to_owned()), ..picture.clone() };
    let (a, b) = tokio::join!(first.upload(keyed("same", &picture)), second.upload(keyed("same", &picture)));
    assert_eq!(a.expect(200)["id"], b.expect(200)["id"]);
    let (a, b) = (keyed("other", &upload(GREY, "alpha")), keyed("other", &upload(GREY, "alpha")));
    let (a, b) = tokio::join!(first.upload(a), second.upload(b));
    let (well, conflict) = if a.status == 200 { (a, b) } else { (b, a) };
    well.expect(200);
    conflict.refused(409, "idempotency_conflict");
    // The same new bytes at both, several times at once: nobody trips over another's judgement.
    let fresh = upload(GREY, "alpha");
    let all = all_at_once(&[&first, &second, &first, &second, &first, &second], &fresh).await;
    assert!(all.iter().all(|answer| answer.status == 200), "{all:?}");

    // A key that is revoked anywhere is gone everywhere.
    let other = server.command(&["keys", "create", "--name", "gone", "--scopes", "moderate"]).good();
    two.caller(&other).upload(picture.clone()).await.expect(200);
    let keys = server.command(&["keys", "list", "--json"]).good();
    let keys: serde_json::Value = serde_json::from_str(&keys).expect("JSON");
    let gone = keys.as_array().into_iter().flatten().find(|key| key["name"] == "gone").expect("it is listed");
    server.command(&["keys", "revoke", gone["id"].as_str().expect("an id")]).good();
    two.caller(&other).upload(picture).await.refused(401, "key_invalid");
}
