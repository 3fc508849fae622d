//! `POST /v1/images`: what may be sent, and the verdict's exact shape.

use shieldgate_tests::{Gate, samples};

#[tokio::test]
async fn a_picture_gets_a_verdict_across_restarts() {
    let mut gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let first = caller.upload(&samples::coffee()).await;
    assert_eq!(first.expect(200)["cached"], false);
    gate.kill().await;
    assert!(gate.postmaster_pid().is_some(), "Postgres outlives a killed service");
    gate.restart().await;
    let second = caller.upload(&samples::coffee()).await;
    assert_eq!(second.expect(200)["cached"], true);
    assert_eq!(gate.stop().await, Some(0));
}
