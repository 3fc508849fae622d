//! `GET /v1/verdicts`: filters, and pages that don't shift while new rows come in.

use serde_json::Value;
use shieldgate_tests::{Answer, Gate, Upload, samples};

fn ids(page: &Answer) -> Vec<String> {
    let data = page.expect(200)["data"].as_array().cloned().unwrap_or_default();
    data.iter().filter_map(|verdict| verdict["id"].as_str().map(str::to_owned)).collect()
}

fn id(answer: &Answer) -> String {
    answer.expect(200)["id"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_filter_finds_what_it_names_and_nothing_else() {
    // Thresholds between the golden probabilities: coffee 0.005, exact 0.064, wide 0.090.
    let policy = "id: sexual\ntitle: S\nmodality: image\ntext: S\njudges:\n  - name: open-nsfw\n    thresholds: {review: 0.05, block: 0.08}\n";
    let gate = Gate::with().policy("sexual", policy).start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let post = |name: &'static str, query: &'static str| {
        let upload = Upload { query: Some(query.to_owned()), ..Upload::from(&samples::golden(name)) };
        let caller = caller.clone();
        async move { caller.upload(upload).await }
    };
    let allowed = post("coffee", "ref=one").await;
    let reviewed = post("exact", "ref=two").await;
    let blocked = post("wide", "ref=two").await;
    let actions: Vec<&Value> = [&allowed, &reviewed, &blocked].iter().map(|a| &a.json["action"]).collect();
    assert_eq!(actions, ["allow", "review", "block"]);
    let [allowed_id, reviewed_id, blocked_id] = [&allowed, &reviewed, &blocked].map(id);
    let time = |answer: &Answer| answer.json["created_at"].as_str().unwrap_or_default().to_owned();

    let all = [blocked_id.clone(), reviewed_id.clone(), allowed_id.clone()];
    let cases: Vec<(String, Vec<&String>)> = vec![
        (String::new(), all.iter().collect()),
        ("action=allow".into(), vec![&allowed_id]),
        ("action=review".into(), vec![&reviewed_id]),
        ("action=block".into(), vec![&blocked_id]),
        ("ref=two".into(), vec![&blocked_id, &reviewed_id]),
        ("ref=two&action=block".into(), vec![&blocked_id]),
        ("ref=three".into(), vec![]),
        ("source=upload".into(), all.iter().collect()),
        ("source=rescan".into(), vec![]),
        (
            format!("sha256={}", reviewed.json["content"]["sha256"].as_str().unwrap_or_default()),
            vec![&reviewed_id],
        ),
        (format!("sha256={}", "0".repeat(64)), vec![]),
        ("min_probability=0.08".into(), vec![&blocked_id]),
        ("min_probability=0".into(), all.iter().collect()),
        ("policy=sexual".into(), all.iter().collect()),
        ("policy=sexual&min_probability=0.05".into(), vec![&blocked_id, &reviewed_id]),
        // It was not run, so it answered nowhere.
        ("policy=violence".into(), vec![]),
        ("reviewed=false".into(), all.iter().collect()),
        ("reviewed=true".into(), vec![]),
        (format!("since={}", time(&reviewed)), vec![&blocked_id, &reviewed_id]),
        (format!("until={}", time(&reviewed)), vec![&allowed_id]),
        (format!("since={}&until={}", time(&allowed), time(&blocked)), vec![&reviewed_id, &allowed_id]),
        ("since=2999-01-01T00:00:00Z".into(), vec![]),
        // An offset is a time as well.
        ("until=2000-01-01T00:00:00%2B02:00".into(), vec![]),
    ];
    for (query, expected) in cases {
        let page = caller.get(&format!("/v1/verdicts?{query}")).await;
        assert_eq!(ids(&page).iter().collect::<Vec<_>>(), expected, "?{query}");
        assert_eq!(page.json["next_cursor"], Value::Null, "?{query}");
    }
    // What is listed is what was answered.
    assert_eq!(caller.get("/v1/verdicts?limit=1").await.expect(200)["data"][0], blocked.json);

    for (query, code) in [
        ("limit=0", "limit_invalid"),
        ("limit=201", "limit_invalid"),
        ("limit=-1", "query_invalid"),
        ("limit=many", "query_invalid"),
        ("cursor=garbage", "cursor_invalid"),
        ("cursor=", "cursor_invalid"),
        ("action=maybe", "query_invalid"),
        ("sha256=abc", "sha256_invalid"),
        ("since=yesterday", "time_invalid"),
        ("until=2026-13-01T00:00:00Z", "time_invalid"),
        ("min_probability=1.1", "filter_invalid"),
        ("min_probability=NaN", "filter_invalid"),
        ("reviewed=perhaps", "query_invalid"),
        ("colour=red", "query_invalid"),
        ("ref=%00", "query_invalid"),
    ] {
        caller.get(&format!("/v1/verdicts?{query}")).await.refused(400, code);
    }
    caller.get("/v1/verdicts?limit=200").await.expect(200);
    caller.get("/v1/verdicts/not-a-uuid").await.refused(400, "id_invalid");
    caller.get("/v1/verdicts/01890000-0000-7000-8000-000000000000").await.refused(404, "not_found");
    // An audit page's cursor is none of this list's.
    let audit = caller.get("/v1/audit?limit=1").await;
    let foreign = audit.expect(200)["next_cursor"].as_str().unwrap_or_default().to_owned();
    caller.get(&format!("/v1/verdicts?cursor={foreign}")).await.refused(400, "cursor_invalid");
}

#[tokio::test]
async fn pages_do_not_shift_while_new_rows_come_in() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let mut posted = Vec::new();
    for _ in 0..9 {
        posted.push(id(&caller.upload(&samples::coffee()).await));
    }
    posted.reverse();

    let mut seen = Vec::new();
    let mut cursor = String::new();
    for round in 0.. {
        let query = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
        let page = caller.get(&format!("/v1/verdicts?limit=4{query}")).await;
        seen.extend(ids(&page));
        // New rows between the pages: none of them may come, none of the old may be lost.
        caller.upload(&samples::coffee()).await.expect(200);
        match page.json["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => {
                assert_eq!(round, 2, "nine rows are three pages of at most four");
                break;
            }
        }
    }
    assert_eq!(seen, posted);
    // The last page that is exactly full is the last.
    let page = caller.get("/v1/verdicts?limit=12").await;
    assert_eq!((ids(&page).len(), &page.json["next_cursor"]), (12, &Value::Null));
}
