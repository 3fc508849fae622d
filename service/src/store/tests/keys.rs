//! API keys: found by hash, revoked, never removed.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::keys::{ApiKey, Shown, create, list, revoke, shown};
use crate::store::testing::{at, hash, with_database};
use crate::store::{Conflict, StoreError};

fn key(project: &str, seed: u8, created_at: OffsetDateTime) -> ApiKey {
    ApiKey {
        id: Uuid::now_v7(),
        project: project.to_owned(),
        name: "uploads".to_owned(),
        prefix: "sg_abcd".to_owned(),
        hash: hash(seed),
        scopes: vec!["moderate".to_owned(), "read".to_owned()],
        rate_per_second: Some(0.1),
        daily_quota: Some(u64::from(seed) + 1),
        created_at,
        revoked_at: None,
    }
}

#[tokio::test]
async fn a_key_is_found_until_it_is_revoked() {
    with_database(async |db| {
        let mut conn = db.service().await;
        let now = at("2026-11-24T12:00:00.123456Z");
        let (mine, yours) = (key("mine", 1, now), key("yours", 2, now + time::Duration::SECOND));
        for new in [&mine, &yours] {
            create(&mut conn, new).await.expect("creates");
        }
        assert_eq!(shown(&mut conn, &[Shown(hash(1))]).await.expect("looks"), [Some(mine.clone())]);
        assert_eq!(shown(&mut conn, &[Shown(hash(3))]).await.expect("looks"), [None]);
        assert_eq!(list(&mut conn, None).await.expect("lists"), [yours.clone(), mine.clone()]);
        assert_eq!(list(&mut conn, Some("mine")).await.expect("lists"), std::slice::from_ref(&mine));

        assert_eq!(revoke(&mut conn, "yours", mine.id, now).await.expect("asks"), None, "not theirs");
        let revoked = revoke(&mut conn, "mine", mine.id, now).await.expect("revokes").expect("was there");
        assert_eq!(revoked, ApiKey { revoked_at: Some(now), ..mine.clone() });
        assert_eq!(revoke(&mut conn, "mine", mine.id, now).await.expect("asks"), None);
        assert_eq!(shown(&mut conn, &[Shown(hash(1))]).await.expect("looks"), [None]);
        assert_eq!(list(&mut conn, Some("mine")).await.expect("lists"), [revoked]);

        let same = create(&mut conn, &key("mine", 1, now)).await;
        assert!(matches!(same, Err(StoreError::Conflict { conflict: Conflict::ApiKey, .. })), "{same:?}");
        for scopes in [vec![], vec!["root".to_owned()]] {
            let refused = create(&mut conn, &ApiKey { scopes, ..key("mine", 4, now) }).await;
            assert!(matches!(refused, Err(StoreError::Unstorable { what: "scopes", .. })), "{refused:?}");
        }
    })
    .await;
}
