//! More than it can take: every upload is answered, 200 or a refusal that says when to come again.

use std::time::{Duration, Instant};

use shieldgate_tests::Caller;
use shieldgate_tests::raw::Raw;
use tokio::task::JoinSet;

use crate::stage::{GREY, SLOW, Seen, count, on_record, policy, recovered, stage, upload, verdicts};

async fn at_once(caller: &Caller, uploads: usize, level: u8) -> Vec<Seen> {
    let mut set = JoinSet::new();
    for _ in 0..uploads {
        let caller = caller.clone();
        set.spawn(async move { Seen::Answered(caller.upload(upload(level, "alpha")).await) });
    }
    set.join_all().await
}

#[tokio::test]
async fn a_full_queue_and_a_full_house_are_429_and_lose_nothing() {
    for (flag, most) in [("--queue-max", 3), ("--in-flight-max", 2)] {
        let gate = stage(&["slow"])
            .policy("alpha", &policy("alpha", &["slow"], "fail"))
            .flag(flag, most)
            .start()
            .await;
        let caller = gate.caller(&gate.key("moderate"));
        let seen = at_once(&caller, 40, SLOW).await;
        assert_eq!(seen.len(), 40);
        let answered = verdicts(&seen, &[429]);
        let refused = count(&seen, 429);
        assert_eq!(answered.len() + refused, 40);
        assert!(
            answered.len() >= most && refused > 0,
            "{flag}: {} answered, {refused} refused",
            answered.len()
        );
        for seen in &seen {
            if let Seen::Answered(answer) = seen
                && answer.status == 429
            {
                answer.refused(429, "overloaded");
                assert_eq!(answer.json["error"]["type"], "rate_limit_error");
            }
        }
        on_record(&mut gate.owner().await, &answered).await;
        let verdicts: i64 = sqlx::query_scalar("select count(*) from verdicts")
            .fetch_one(&mut gate.owner().await)
            .await
            .expect("Postgres answers");
        assert_eq!(usize::try_from(verdicts).ok(), Some(answered.len()), "what was refused is not on record");
        // And it is over when it is over.
        caller.upload(upload(GREY, "alpha")).await.expect(200);
    }
}

#[tokio::test]
async fn bodies_that_fill_the_memory_set_aside_for_them_are_503() {
    let gate = stage(&["steady"])
        .policy("alpha", &policy("alpha", &["steady"], "fail"))
        .flag("--body-bytes-max", 4 << 20)
        .flag("--body-budget-bytes", 4 << 20)
        .start()
        .await;
    let key = gate.key("moderate");
    let caller = gate.caller(&key);
    let head = format!(
        "POST /v1/images HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: image/png\r\n\
         content-length: 4190000\r\n\r\n"
    );
    let mut slow = Raw::connect(gate.address()).await;
    for attempt in 1.. {
        slow.send(&head).await.expect("it listens");
        slow.send(vec![0; 4_150_000]).await.expect("it reads");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let answer = caller.upload(upload(GREY, "alpha")).await;
        if answer.status != 200 {
            answer.refused(503, "bodies_over_budget");
            break;
        }
        assert!(attempt < 10, "the memory is never full");
        // Ours was there first and the slow one was refused.
        slow = Raw::connect(gate.address()).await;
    }
    // Its client leaves, and there is room again.
    drop(slow);
    recovered(&caller, Duration::from_secs(10), || upload(GREY, "alpha")).await;
}

#[tokio::test]
async fn a_missed_deadline_is_503_and_never_on_error() {
    let gate = stage(&["slow"])
        .policy("alpha", &policy("alpha", &["slow"], "allow"))
        .flag("--request-timeout-ms", 300)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let since = Instant::now();
    let seen = at_once(&caller, 40, SLOW).await;
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let answered = verdicts(&seen, &[503]);
    assert!(!answered.is_empty(), "the first in the queue is judged");
    assert!(count(&seen, 503) > 0, "forty runs do not fit into 300 ms");
    for seen in &seen {
        if let Seen::Answered(answer) = seen
            && answer.status == 503
        {
            answer.refused(503, "deadline_exceeded");
        }
    }
    // `on_error: allow` must not turn overload into an allow.
    assert!(answered.iter().all(|verdict| verdict["policies"][0]["outcome"] == "judged"));
    on_record(&mut gate.owner().await, &answered).await;
    caller.upload(upload(GREY, "alpha")).await.expect(200);
}
