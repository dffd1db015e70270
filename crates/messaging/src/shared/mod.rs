//! Redis, as an accelerator that nodes share: nothing durable lives only there.
//!
//! Owns the connections and how they heal (`link`), the topologies (`connect`) and the names of keys.
//! What is kept there is decided by those who use it: `delivery::bus`, `delivery::leases`, `limits`,
//! `identity`. Each of them goes on by itself, for this node alone, while Redis is away.

mod connect;
mod link;
pub(crate) mod outbound;
mod script;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Cmd, FromRedisValue, Value};
use tokio::sync::watch;

pub(crate) use connect::{Pushed, Wire};
pub(crate) use link::Link;
pub(crate) use script::Script;

use crate::config::{ConfigError, RedisUrl};
use connect::Target;

/// How long a request waits for Redis before it goes on without: a Redis that hangs must not hang
/// what it is to accelerate.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);
/// After a request that waited in vain, the next ones do not wait at all until Redis gives a sign of
/// life, for which it is asked at once; or for this long.
const MISTRUST: Duration = Duration::from_secs(2);

/// Redis does not answer, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// The connection to Redis for requests, and what the other uses need to make theirs. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    prefix: String,
    node: NodeId,
    link: Link,
    began: Instant,
    /// Milliseconds after `began` until which nothing is asked.
    mistrusted_until: Arc<AtomicU64>,
    /// Of the last sign of life, in microseconds; negative before the first.
    latency_us: Arc<AtomicI64>,
}

/// The name of this process among those that share a Redis; another one after every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// Of this process.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Redis").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Starts to connect, and goes on doing so whenever the connection is lost.
    pub fn start(url: &RedisUrl, prefix: &str) -> Result<Self, ConfigError> {
        let target = Target::new(url).map_err(|rule| ConfigError::new("REDIS_URL", rule))?;
        let latency_us = Arc::new(AtomicI64::new(-1));
        let mistrusted_until = Arc::new(AtomicU64::new(0));
        let (noted, trusted) = (Arc::clone(&latency_us), Arc::clone(&mistrusted_until));
        let link = Link::start(target.clone(), None, move |latency| {
            trusted.store(0, Ordering::Relaxed);
            noted.store(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
        });
        Ok(Self {
            inner: Arc::new(Inner {
                target,
                prefix: prefix.to_owned(),
                node: NodeId::random(),
                link,
                began: Instant::now(),
                mistrusted_until,
                latency_us,
            }),
        })
    }

    /// Waits for the first connection, though not for long. Answers whether it is there.
    pub async fn wait_up(&self, patience: Duration) -> bool {
        let mut epochs = self.epochs();
        tokio::time::timeout(patience, epochs.wait_for(Option::is_some)).await.is_ok_and(|up| up.is_ok())
    }

    /// Whether the connection stands.
    pub fn is_up(&self) -> bool {
        self.inner.link.wire().is_some()
    }

    /// How long Redis took for its last sign of life; `None` while it is away.
    pub fn latency(&self) -> Option<Duration> {
        let micros = u64::try_from(self.inner.latency_us.load(Ordering::Relaxed)).ok()?;
        self.is_up().then(|| Duration::from_micros(micros))
    }

    /// The number of the connection, which grows with every new one; `None` while there is none.
    pub fn epochs(&self) -> watch::Receiver<Option<u64>> {
        self.inner.link.epochs()
    }

    /// This process among those that share Redis.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// A key or channel under the configured prefix.
    pub fn key(&self, rest: impl fmt::Display) -> String {
        format!("{}{rest}", self.inner.prefix)
    }

    /// Another connection, with a receiver of what is pushed over it.
    pub(crate) fn subscriber(&self, pushed: Pushed) -> Link {
        Link::start(self.inner.target.clone(), Some(pushed), |_| {})
    }

    /// Asks for one thing.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let mut wire = self.wire()?;
        let answer = self.in_time(PATIENCE, wire.ask(command)).await?;
        answer.and_then(|value| T::from_redis_value(value).map_err(Into::into)).map_err(|error| {
            tracing::debug!(%error, "Redis refused a request");
            Away
        })
    }

    /// Asks for many things at once; each has an answer of its own.
    pub(crate) async fn ask_all(
        &self,
        commands: &[Cmd],
        patience: Duration,
    ) -> Result<Vec<Result<Value, Away>>, Away> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut wire = self.wire()?;
        let answers = self.in_time(patience, wire.ask_all(commands)).await?;
        Ok(answers
            .into_iter()
            .map(|answer| {
                answer.map_err(|error| {
                    tracing::debug!(%error, "Redis refused a request");
                    Away
                })
            })
            .collect())
    }

    /// Runs a script.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<T, Away> {
        let mut wire = self.wire()?;
        let answer = self.in_time(PATIENCE, script.run(&mut wire, key, arguments)).await?;
        answer.and_then(|value| T::from_redis_value(value).map_err(Into::into)).map_err(|error| {
            tracing::debug!(%error, "Redis refused a script");
            Away
        })
    }

    /// Runs a script for many keys at once.
    pub(crate) async fn run_all(
        &self,
        script: &Script,
        calls: &[(String, Vec<Vec<u8>>)],
        patience: Duration,
    ) -> Result<Vec<Value>, Away> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut wire = self.wire()?;
        let answers = self.in_time(patience, script.run_all(&mut wire, calls)).await?;
        answers.map_err(|error| {
            tracing::debug!(%error, "Redis refused a script");
            Away
        })
    }

    fn wire(&self) -> Result<Wire, Away> {
        let inner = &self.inner;
        let elapsed = inner.began.elapsed().as_millis();
        if elapsed < u128::from(inner.mistrusted_until.load(Ordering::Relaxed)) {
            return Err(Away);
        }
        inner.link.wire().ok_or(Away)
    }

    async fn in_time<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Result<T, Away> {
        if let Ok(answer) = tokio::time::timeout(patience, work).await {
            return Ok(answer);
        }
        let inner = &self.inner;
        // Whoever waits longer than others was not in vain only because of a busy moment.
        if patience == PATIENCE {
            let until = (inner.began.elapsed() + MISTRUST).as_millis();
            inner.mistrusted_until.store(u64::try_from(until).unwrap_or(0), Ordering::Relaxed);
        }
        inner.link.doubt();
        Err(Away)
    }
}
