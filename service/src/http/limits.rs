//! What a key may submit: so many a second, so many a day.
//!
//! The rate is a token bucket of this process that holds a second's worth. The day's quota (UTC) is all
//! processes' together: each takes portions of it from the record and spends them by itself, so that not
//! every submission waits for a row that all of them want. A process that is killed loses what is left of
//! its portion.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::problem::ApiError;
use crate::store::{Store, quotas};

/// What a key's owner agreed to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Allowance {
    pub(super) key_id: Uuid,
    pub(super) rate_per_second: Option<f32>,
    pub(super) daily_quota: Option<u64>,
}

/// Of a quota, at most; a small quota is taken in smaller portions.
const PORTION_MAX: u64 = 64;

/// Keys whose state is held; past it those that have been quiet for long are dropped.
const KEYS_MAX: usize = 10_000;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Portion {
    day: Date,
    left: u64,
}

#[derive(Debug, Default)]
pub(super) struct Limits {
    buckets: Mutex<HashMap<Uuid, Bucket>>,
    portions: Mutex<HashMap<Uuid, Portion>>,
}

impl Limits {
    /// One more submission under this key.
    pub(super) async fn admit(
        &self,
        store: &Store,
        allowance: Allowance,
        now: OffsetDateTime,
    ) -> Result<(), ApiError> {
        if let Some(rate) = allowance.rate_per_second
            && let Err(wait) = self.spend(allowance.key_id, f64::from(rate), Instant::now())
        {
            let detail =
                format!("this key may submit {rate} a second; `shieldgate keys create` sets the rate");
            return Err(too_many("rate_limited", detail, wait));
        }
        let Some(quota) = allowance.daily_quota else { return Ok(()) };
        let day = now.date();
        if self.draw(allowance.key_id, day) {
            return Ok(());
        }
        let wanted = (quota / 50).clamp(1, PORTION_MAX);
        let key_id = allowance.key_id;
        let taken = store.read(async |conn| quotas::take(conn, key_id, day, quota, wanted).await).await?;
        if taken == 0 {
            let tomorrow = day.next_day().unwrap_or(day).midnight().assume_utc();
            let wait = (tomorrow - now).try_into().unwrap_or(Duration::from_secs(1));
            let detail = format!("this key may submit {quota} a day (UTC), and has");
            return Err(too_many("quota_exceeded", detail, wait));
        }
        let mut portions = self.portions.lock().unwrap_or_else(PoisonError::into_inner);
        let portion = portions.entry(key_id).or_insert(Portion { day, left: 0 });
        // One of it is spent here; of a portion of another day nothing is left.
        let before = if portion.day == day { portion.left } else { 0 };
        *portion = Portion { day, left: before + taken - 1 };
        Ok(())
    }

    /// At the end: what was taken and not spent.
    pub(super) async fn give_back(&self, store: &Store) {
        let portions = std::mem::take(&mut *self.portions.lock().unwrap_or_else(PoisonError::into_inner));
        for (key_id, Portion { day, left }) in portions.into_iter().filter(|(_, portion)| portion.left > 0) {
            let back = store.read(async |conn| quotas::give_back(conn, key_id, day, left).await).await;
            if let Err(error) = back {
                tracing::warn!(%error, "unused quota could not be given back");
                return;
            }
        }
    }

    /// Takes a token, or says how long it will be until there is one.
    fn spend(&self, key_id: Uuid, rate: f64, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= KEYS_MAX {
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(60));
        }
        let full = rate.max(1.0);
        let bucket = buckets.entry(key_id).or_insert(Bucket { tokens: full, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * rate).min(full);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::try_from_secs_f64((1.0 - bucket.tokens) / rate).unwrap_or(Duration::MAX));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    fn draw(&self, key_id: Uuid, day: Date) -> bool {
        let mut portions = self.portions.lock().unwrap_or_else(PoisonError::into_inner);
        match portions.get_mut(&key_id).filter(|portion| portion.day == day && portion.left > 0) {
            Some(portion) => {
                portion.left -= 1;
                true
            }
            None => false,
        }
    }
}

fn too_many(code: &'static str, detail: String, wait: Duration) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, detail).after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_second_and_fills_again() {
        let (limits, key, begin) = (Limits::default(), Uuid::now_v7(), Instant::now());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let spent = |ms: u64| (0..20).take_while(|_| limits.spend(key, 5.0, at(ms)).is_ok()).count();
        assert_eq!(spent(0), 5);
        assert_eq!(limits.spend(key, 5.0, at(0)), Err(Duration::from_millis(200)));
        assert_eq!(spent(100), 0);
        assert_eq!(spent(400), 2);
        assert_eq!(spent(60_000), 5, "not more than a second's worth");
        // Another key has its own; one that may submit every ten seconds may submit at first.
        assert!(limits.spend(Uuid::now_v7(), 0.1, at(0)).is_ok());
        let slow = Uuid::now_v7();
        assert!(limits.spend(slow, 0.1, at(0)).is_ok());
        assert_eq!(limits.spend(slow, 0.1, at(4_000)), Err(Duration::from_secs(6)));
        // Time that seems to run backwards takes nothing away.
        assert!(limits.spend(slow, 0.1, at(10_000)).is_ok());
        assert!(limits.spend(slow, 0.1, at(0)).is_err());
    }
}
