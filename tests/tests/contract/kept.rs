//! Originals: `--media-keep flagged | all | none`, stored by content under the data directory.

use std::path::{Path, PathBuf};

use shieldgate_tests::{Answer, Gate, samples};

/// Open-NSFW gives `wide` 0.09 and `coffee` 0.005.
const POLICY: &str = "id: sexual\ntitle: S\nmodality: image\ntext: S\njudges:\n  - name: open-nsfw\n    thresholds: {review: 0.05, block: 0.08}\n";

fn place(data_dir: &Path, answer: &Answer) -> PathBuf {
    let sha256 = answer.expect(200)["content"]["sha256"].as_str().expect("a hash");
    data_dir.join("media").join(&sha256[..2]).join(&sha256[2..4]).join(sha256)
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn what_is_kept_follows_the_setting() {
    for (keep, blocked_kept, allowed_kept) in
        [("flagged", true, false), ("all", true, true), ("none", false, false)]
    {
        // The default is `flagged`.
        let setup = Gate::with().policy("sexual", POLICY);
        let setup = if keep == "flagged" { setup } else { setup.flag("--media-keep", keep) };
        let mut gate = setup.start().await;
        let caller = gate.caller(&gate.key("moderate"));
        let blocked = caller.upload(&samples::golden("wide")).await;
        let allowed = caller.upload(&samples::coffee()).await;
        assert_eq!(
            (&blocked.expect(200)["action"], &allowed.expect(200)["action"]),
            (&"block".into(), &"allow".into())
        );
        for (answer, kept, bytes) in
            [(&blocked, blocked_kept, samples::golden("wide")), (&allowed, allowed_kept, samples::coffee())]
        {
            let found = std::fs::read(place(gate.data_dir(), answer)).ok();
            assert_eq!(found, kept.then_some(bytes), "`{keep}`");
        }
        let expected = usize::from(blocked_kept) + usize::from(allowed_kept);
        assert_eq!(files(&gate.data_dir().join("media")), expected, "`{keep}` leaves nothing else behind");

        // On record: where, and until when.
        let mut owner = gate.owner().await;
        let kept: i64 =
            sqlx::query_scalar("select count(*) from contents where kept_until > now() + interval '29 days'")
                .fetch_one(&mut owner)
                .await
                .expect("counts");
        assert_eq!(usize::try_from(kept), Ok(expected), "`{keep}`");
        assert_eq!(gate.stop().await, Some(0));
    }
}
