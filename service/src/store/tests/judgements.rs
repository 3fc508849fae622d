//! Recall: the first judgement stays, and nobody learns what others uploaded.

use crate::store::judgements::{Judged, Judgement, Recall, ensure_judge, insert, recall};
use crate::store::testing::{hash, judge, judgement, with_database};
use crate::store::{PgConnection, Result, Sha256, StoreError, contents};
use crate::verdict::{Background, Form, FrameAt, FrameScore, WindowAt, Worst};

fn a_recall(project: &str, sha256: Sha256, asked: &[(Sha256, Sha256)]) -> Recall {
    Recall { project: project.to_owned(), sha256, asked: asked.to_vec() }
}

async fn recalled(
    conn: &mut PgConnection,
    project: &str,
    sha256: &Sha256,
    asked: &[(Sha256, Sha256)],
) -> Result<Vec<Judgement>> {
    Ok(recall(conn, &[a_recall(project, *sha256, asked)]).await?.remove(0))
}

#[tokio::test]
async fn a_judgement_comes_back_as_it_was() {
    with_database(async |db| {
        let mut conn = db.service().await;
        for judge in [7, 8] {
            let id =
                ensure_judge(&mut conn, &hash(judge), "classifier", "a", judge == 8).await.expect("known");
            let again = ensure_judge(&mut conn, &hash(judge), "other", "b", false).await.expect("known");
            assert_eq!(id, again);
        }
        let mut written = vec![
            judgement(7, 1, 0.1),
            judgement(7, 2, 1.0),
            judgement(8, 1, f32::from_bits(1)),
            judgement(8, 2, 0.3),
        ];
        written[1].worst = None;
        written[2].worst = Some(Worst::Frame(FrameAt {
            frame: u32::MAX,
            at_ms: 1 << 60,
            background: Some(Background::Black),
        }));
        written[3].worst = Some(Worst::Window(WindowAt { start: 0, end: 1 << 60, form: Form::Folded }));
        written[0].frames = [(3, 0.1), (0, f32::MIN_POSITIVE), (9, 0.0)]
            .map(|(frame, probability)| FrameScore {
                probability,
                place: FrameAt { frame, at_ms: 40, background: Some(Background::White) },
            })
            .to_vec();
        judge(&mut conn, "p", 9, &written).await.expect("inserts");
        judge(&mut conn, "p", 9, &[]).await.expect("nothing is no mistake");
        let asked: Vec<_> = written.iter().map(|j| (j.judge_digest, j.question_hash)).collect();
        let mut read = recalled(&mut conn, "p", &hash(9), &asked).await.expect("recalls");
        read.sort_by_key(|j| (j.judge_digest, j.question_hash));
        assert_eq!(read, written);
        // Only what was asked, once, and only for these bytes.
        let doubled = [asked[0], asked[0], (hash(7), hash(99)), (hash(99), hash(1))];
        assert_eq!(recalled(&mut conn, "p", &hash(9), &doubled).await.expect("recalls"), written[..1]);
        assert_eq!(recalled(&mut conn, "p", &hash(10), &asked).await.expect("recalls"), []);
        assert_eq!(recalled(&mut conn, "p", &hash(9), &[]).await.expect("recalls"), []);
    })
    .await;
}

#[tokio::test]
async fn the_first_judgement_stays() {
    with_database(async |db| {
        let store = db.store();
        let mut conn = store.acquire().await.expect("connects");
        ensure_judge(&mut conn, &hash(7), "classifier", "a", false).await.expect("known");
        // Two uploads of the same bytes at once, in opposite order: neither fails, neither waits for ever.
        let (mut one, mut two) = (store.begin().await.expect("begins"), store.begin().await.expect("begins"));
        let first = [judgement(7, 1, 0.25), judgement(7, 2, 0.25)];
        judge(&mut one, "p", 9, &first).await.expect("inserts");
        let second = async {
            judge(&mut two, "p", 9, &[judgement(7, 2, 0.75), judgement(7, 1, 0.75)]).await?;
            crate::store::Store::commit(two).await
        };
        let commit = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            crate::store::Store::commit(one).await
        };
        let (second, commit) = tokio::join!(second, commit);
        second.expect("the second one is no error");
        commit.expect("commits");
        let read = recalled(&mut conn, "p", &hash(9), &[(hash(7), hash(1)), (hash(7), hash(2))]).await;
        assert_eq!(read.expect("recalls").iter().map(|j| j.probability).collect::<Vec<_>>(), [0.25, 0.25]);
    })
    .await;
}

#[tokio::test]
async fn recall_is_hidden_from_other_projects() {
    with_database(async |db| {
        let mut conn = db.service().await;
        ensure_judge(&mut conn, &hash(7), "classifier", "a", false).await.expect("known");
        judge(&mut conn, "mine", 9, &[judgement(7, 1, 0.25), judgement(7, 2, 0.5)]).await.expect("inserts");
        let asked = [(hash(7), hash(1)), (hash(7), hash(2))];
        assert_eq!(recalled(&mut conn, "yours", &hash(9), &asked).await.expect("recalls"), []);

        // A verdict of its own for the same bytes, by an override or on another question, changes nothing.
        let own = crate::store::testing::verdict("yours", crate::timestamp::now(), hash(9));
        let seen = contents::Seen { content: &own.content, kept: None, facts: None, at: own.created_at };
        contents::upsert(&mut conn, &[seen]).await.expect("inserts");
        let provenance = crate::store::verdicts::Provenance::default();
        crate::store::verdicts::insert(&mut conn, &[(&own, &provenance)]).await.expect("inserts");
        assert_eq!(recalled(&mut conn, "yours", &hash(9), &asked).await.expect("recalls"), []);

        // Having had it judged does, for just that question; the first one's answer stands.
        for _ in 0..2 {
            judge(&mut conn, "yours", 9, &[judgement(7, 2, 0.75)]).await.expect("inserts");
        }
        let read = recalled(&mut conn, "yours", &hash(9), &asked).await.expect("recalls");
        assert_eq!(read, [judgement(7, 2, 0.5)]);
        let shares: i64 = sqlx::query_scalar("select count(*) from judgement_shares")
            .fetch_one(&mut conn)
            .await
            .expect("counts");
        assert_eq!(shares, 1, "a project's own needs none");
        assert_eq!(recalled(&mut conn, "mine", &hash(9), &asked).await.expect("recalls").len(), 2);
    })
    .await;
}

/// Uploads of two projects that share a transaction: one judgement, and both may recall it.
#[tokio::test]
async fn projects_in_one_statement_share_one_judgement() {
    with_database(async |db| {
        let mut conn = db.service().await;
        ensure_judge(&mut conn, &hash(7), "classifier", "a", false).await.expect("known");
        let (one, other, second) = (judgement(7, 1, 0.25), judgement(7, 1, 0.75), judgement(7, 2, 0.5));
        let (nine, eight) = (hash(9), hash(8));
        let judged = |project, sha256, judgement| Judged { project, sha256, judgement };
        let all = [
            judged("mine", &nine, &one),
            judged("yours", &nine, &other),
            judged("mine", &eight, &second),
            judged("mine", &nine, &one),
        ];
        insert(&mut conn, &all).await.expect("inserts");
        let asked = [(hash(7), hash(1)), (hash(7), hash(2))];
        for project in ["mine", "yours"] {
            let read = recalled(&mut conn, project, &nine, &asked).await.expect("recalls");
            assert_eq!(read.len(), 1, "{project}");
            assert!(read[0] == one || read[0] == other, "the first one stands");
        }
        assert_eq!(recalled(&mut conn, "yours", &eight, &asked).await.expect("recalls"), []);
        assert_eq!(
            recalled(&mut conn, "mine", &eight, &asked).await.expect("recalls"),
            std::slice::from_ref(&second)
        );
        // In one statement each is told its own.
        let group = [
            a_recall("yours", eight, &asked),
            a_recall("mine", eight, &asked),
            a_recall("mine", nine, &[]),
            a_recall("yours", nine, &asked[..1]),
            a_recall("theirs", nine, &asked),
        ];
        let read = recall(&mut conn, &group).await.expect("recalls");
        let lengths: Vec<_> = read.iter().map(Vec::len).collect();
        assert_eq!((read[1].as_slice(), lengths), ([second].as_slice(), vec![0, 1, 0, 1, 0]));
    })
    .await;
}

#[tokio::test]
async fn no_judge_and_no_probability_are_errors() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let refused = judge(&mut conn, "p", 9, &[judgement(7, 1, 0.5)]).await;
        assert!(matches!(refused, Err(StoreError::Inconsistent { table: "judges", .. })), "{refused:?}");
        ensure_judge(&mut conn, &hash(7), "classifier", "a", false).await.expect("known");
        for wrong in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            let refused = judge(&mut conn, "p", 9, &[judgement(7, 1, wrong)]).await;
            assert!(matches!(refused, Err(StoreError::Unstorable { .. })), "{refused:?}");
            // Neither would the table take it.
            let sql = "insert into judgements (sha256, judge_id, question_hash, project, probability, runtime, device, at)
                       values ($1, 1, $1, 'p', $2, '', '', now())";
            let refused = sqlx::query(sql).bind(hash(9)).bind(wrong).execute(&mut conn).await;
            assert_eq!(crate::store::testing::sqlstate(refused), "23514", "{wrong}");
        }
    })
    .await;
}
