//! A day's quota is never taken twice over, by however many processes.

use time::macros::date;
use uuid::Uuid;

use crate::store::quotas::{give_back, sweep, take};
use crate::store::testing::with_database;

#[tokio::test]
async fn portions_add_up_to_the_quota_and_no_further() {
    with_database(async |db| {
        let (key, day) = (Uuid::now_v7(), date!(2026 - 11 - 24));
        let store = db.store();
        let taking = (0..20).map(|_| async {
            let mut conn = store.acquire().await.expect("connects");
            take(&mut conn, key, day, 100, 7).await.expect("takes")
        });
        let taken: u64 = futures_util::future::join_all(taking).await.into_iter().sum();
        assert_eq!(taken, 100);

        let mut conn = db.service().await;
        give_back(&mut conn, key, day, 5).await.expect("gives back");
        assert_eq!(take(&mut conn, key, day, 100, 7).await.expect("takes"), 5);
        // Another day, another key, a larger quota: each has its own.
        assert_eq!(take(&mut conn, key, date!(2026 - 11 - 25), 100, 7).await.expect("takes"), 7);
        assert_eq!(take(&mut conn, Uuid::now_v7(), day, 3, 7).await.expect("takes"), 3);
        assert_eq!(take(&mut conn, key, day, 104, 7).await.expect("takes"), 4);
        // A smaller one than was taken already.
        assert_eq!(take(&mut conn, key, day, 50, 7).await.expect("takes"), 0);
        assert_eq!(sweep(&mut conn, date!(2026 - 11 - 25)).await.expect("sweeps"), 2);
    })
    .await;
}
