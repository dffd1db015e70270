//! The buckets that all nodes share, in Redis: the arithmetic of `gcra` as a script.
//!
//! By Redis's clock, since the nodes' clocks differ: a bucket filled by a clock that is ahead would look
//! emptier to all others.

use super::{
    buckets::Key,
    gcra::{Decision, Quota},
};
use crate::{
    clock::Timestamp,
    shared::{Away, Redis, Script},
};

/// Takes a token: `ARGV` is the interval and the window of the quota, in microseconds. Answers whether one
/// was there, and in how many microseconds the bucket is full again.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = redis.call('GET', KEYS[1])
local latest = now + window
local current = math.min(math.max(full_at and tonumber(full_at) or 0, now), latest)
local taken = current + interval
if taken > latest then return {0, current - now} end
redis.call('SET', KEYS[1], string.format('%.0f', taken), 'PX', math.ceil((taken - now) / 1000))
return {1, taken - now}
";

#[derive(Debug)]
pub(super) struct SharedBuckets {
    redis: Redis,
    take: Script,
}

impl SharedBuckets {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, take: Script::new(TAKE) }
    }

    pub(super) async fn take(
        &self,
        (user, kind): Key,
        quota: Quota,
        now: Timestamp,
    ) -> Result<Decision, Away> {
        let key = self.redis.key(format_args!("limit:{}:{user}", kind.name()));
        let (interval, window) = (quota.interval().to_string(), quota.window().to_string());
        let (allowed, ahead): (bool, i64) =
            self.redis.run(&self.take, &key, &[interval.as_bytes(), window.as_bytes()]).await?;
        let full_at = now.as_millis().saturating_mul(1_000).saturating_add(ahead);
        Ok(quota.decision(allowed, full_at, ahead, now))
    }
}
