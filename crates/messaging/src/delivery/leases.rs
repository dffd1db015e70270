//! Who is online on which node, in Redis: a user is, while some node that holds a connection of theirs
//! keeps its lease.
//!
//! Each node has one lease, renewed every few seconds; each user a hash from lease to status. A
//! change of a user's status is one script on that hash, so of all nodes exactly one sees the user go.
//! A node that lost its lease (it stood still, it was cut off, Redis was emptied) takes a new one under
//! a new name: whoever sweeps the old one cannot take away what was said under the new one.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use moka::sync::Cache;
use parking_lot::Mutex;
use redis::Value;

use super::hub::Status;
use crate::{
    clock::Timestamp,
    ids::UserId,
    shared::{Away, Redis, Script},
};

/// A killed node's users go offline this long after its last renewal, and a sweep.
const LEASE: Duration = Duration::from_secs(8);
/// Three renewals may fail.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// One node sweeps at a time; another may try when it has not finished by then.
const SWEEP_LOCK: Duration = Duration::from_secs(3);
/// What is said of a user is said again this often; twice as long it is kept.
pub const REPETITION: Duration = Duration::from_secs(1800);
const KEPT: Duration = Duration::from_secs(2 * 1800 + 600);
/// Nobody waits for these.
const PATIENCE: Duration = Duration::from_secs(2);
/// Users spoken of in one write.
const CHUNK: usize = 500;
/// What other nodes say is believed this long without asking again.
const BELIEVED: Duration = Duration::from_secs(5);
/// While Redis does not answer, this long.
const REMEMBERED: Duration = Duration::from_secs(60);
const MAX_REMEMBERED: u64 = 100_000;
/// The field that says that others were told that the user went.
const GONE: &str = "-";

/// Sets what one lease says of a user (`0` takes it out). Answers what all leases said before, `-1` if
/// nothing is known, and what they say now.
const SET: &str = r"
local function best(fields)
    local highest = 0
    for i = 1, #fields, 2 do
        if fields[i] ~= '-' then highest = math.max(highest, tonumber(fields[i + 1])) end
    end
    return highest
end
local fields = redis.call('HGETALL', KEYS[1])
local before = #fields == 0 and -1 or best(fields)
if ARGV[2] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    redis.call('HDEL', KEYS[1], '-')
end
local after = best(redis.call('HGETALL', KEYS[1]))
if after == 0 then redis.call('HSET', KEYS[1], '-', 1) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {before, after}
";

/// Renews a lease, or takes it in place of `ARGV[3]`. Answers whether it stood, and which are over. The one
/// that is replaced is left to be swept: something may have been said under it after it lapsed.
const RENEW: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
local stood = until_ms and tonumber(until_ms) > now
if stood or ARGV[3] then redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) end
if ARGV[3] then redis.call('ZADD', KEYS[1], 'NX', now + ARGV[2], ARGV[3]) end
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, 20)
return {stood and 1 or 0, unpack(over)}
";

/// The leases of all nodes that share a Redis. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    set: Script,
    renew: Script,
    /// Grows with every new lease of this node.
    generation: AtomicU32,
    /// Since when the connection stands, by its number.
    up_since: Mutex<Option<(u64, Instant)>>,
    /// Users of whom our lease says something.
    spoken_of: Mutex<HashSet<UserId>>,
    /// What all nodes said, and when that was.
    remembered: Cache<UserId, (Status, Instant)>,
}

impl fmt::Debug for Leases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Leases").field("own", &self.own()).finish_non_exhaustive()
    }
}

/// What became of a user's status over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub user: UserId,
    /// `None` where nothing was known: a first sight, or Redis was emptied.
    pub before: Option<Status>,
    /// Now.
    pub after: Status,
}

/// What a renewal found.
#[derive(Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The lease had lapsed; there is a new one, under which everything is to be said again.
    pub is_new: bool,
    /// Leases of nodes that are gone.
    pub over: Vec<Lapsed>,
}

/// A lease that was not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    name: String,
    /// When its node was last heard of.
    pub last_renewed: Timestamp,
}

impl Leases {
    /// The leases in this Redis.
    pub fn new(redis: &Redis) -> Self {
        Self {
            inner: Arc::new(Inner {
                redis: redis.clone(),
                set: Script::new(SET),
                renew: Script::new(RENEW),
                generation: AtomicU32::new(0),
                up_since: Mutex::default(),
                spoken_of: Mutex::default(),
                remembered: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(REMEMBERED).build(),
            }),
        }
    }

    fn own(&self) -> String {
        format!("{}.{}", self.inner.redis.node(), self.inner.generation.load(Ordering::Relaxed))
    }

    fn users_key(&self, lease: &str) -> String {
        self.inner.redis.key(format_args!("lease:{lease}"))
    }

    /// Users of whom our lease says something.
    pub fn spoken_of(&self) -> Vec<UserId> {
        self.inner.spoken_of.lock().iter().copied().collect()
    }

    /// Says what this node's connections say of some users.
    pub async fn set(&self, users: &[(UserId, Status)]) -> Result<Vec<Change>, Away> {
        let lease = self.own();
        let mut changes = Vec::with_capacity(users.len());
        for chunk in users.chunks(CHUNK) {
            changes.extend(self.set_under(&lease, chunk).await?);
        }
        let mut spoken_of = self.inner.spoken_of.lock();
        for (user, status) in users {
            if *status == Status::Offline {
                spoken_of.remove(user);
            } else {
                spoken_of.insert(*user);
            }
        }
        drop(spoken_of);
        for change in &changes {
            self.believe(change.user, change.after);
        }
        Ok(changes)
    }

    async fn set_under(&self, lease: &str, users: &[(UserId, Status)]) -> Result<Vec<Change>, Away> {
        let redis = &self.inner.redis;
        let members = |keep: bool| -> Vec<i64> {
            let kept = users.iter().filter(|(_, status)| (*status != Status::Offline) == keep);
            kept.map(|(user, _)| user.0).collect()
        };
        let key = self.users_key(lease);
        // On the list before it is said and off it afterwards: whoever sweeps finds all of them.
        let here = members(true);
        if !here.is_empty() {
            let commands = [
                redis::cmd("SADD").arg(&key).arg(here).clone(),
                redis::cmd("PEXPIRE").arg(&key).arg(millis(KEPT)).clone(),
            ];
            redis.ask_all(&commands, PATIENCE).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        let kept = millis(KEPT).to_string();
        let calls: Vec<_> = users
            .iter()
            .map(|(user, status)| {
                let status = number(*status).to_string();
                let arguments = vec![lease.into(), status.into_bytes(), kept.clone().into_bytes()];
                (redis.key(format_args!("presence:{user}")), arguments)
            })
            .collect();
        let values = redis.run_all(&self.inner.set, &calls, PATIENCE).await?;
        let gone = members(false);
        if !gone.is_empty() {
            let commands = [redis::cmd("SREM").arg(&key).arg(gone).clone()];
            redis.ask_all(&commands, PATIENCE).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        Ok(users.iter().zip(values).filter_map(|((user, _), value)| change(*user, value)).collect())
    }

    /// Keeps this node's lease.
    pub async fn renew(&self) -> Result<Renewal, Away> {
        let redis = &self.inner.redis;
        let epoch = (*redis.epochs().borrow()).ok_or(Away)?;
        let up_since = {
            let mut up_since = self.inner.up_since.lock();
            match *up_since {
                Some((known, since)) if known == epoch => since,
                _ => up_since.insert((epoch, Instant::now())).1,
            }
        };
        let (stood, over) = self.run_renewal(None).await?;
        let is_new = !stood;
        if is_new {
            let replaced = self.own();
            self.inner.generation.fetch_add(1, Ordering::Relaxed);
            self.run_renewal(Some(replaced)).await?;
        }
        // After Redis was away nobody has renewed yet: only who does not do so now is gone.
        let over = if up_since.elapsed() > LEASE { over } else { Vec::new() };
        Ok(Renewal { is_new, over })
    }

    async fn run_renewal(&self, replaced: Option<String>) -> Result<(bool, Vec<Lapsed>), Away> {
        let redis = &self.inner.redis;
        let (lease, length) = (self.own(), millis(LEASE).to_string());
        let mut arguments = vec![lease.clone().into_bytes(), length.into_bytes()];
        arguments.extend(replaced.map(String::into_bytes));
        let calls = [(redis.key("leases"), arguments)];
        let mut values = redis.run_all(&self.inner.renew, &calls, PATIENCE).await?;
        let Some(Value::Array(answer)) = values.pop() else { return Err(Away) };
        let mut answer = answer.into_iter();
        let stood = matches!(answer.next(), Some(Value::Int(1)));
        let mut over = Vec::new();
        while let (Some(name), Some(until)) = (answer.next(), answer.next()) {
            if let (Some(name), Some(until)) =
                (text(name), text(until).and_then(|until| until.parse::<f64>().ok()))
                && name != lease
            {
                let until = Timestamp::from_millis(until as i64);
                over.push(Lapsed { name, last_renewed: until.minus(LEASE) });
            }
        }
        Ok((stood, over))
    }

    /// Takes out what a node that is gone said, unless another one is at it.
    pub async fn sweep(&self, lapsed: &Lapsed) -> Result<Vec<Change>, Away> {
        let redis = &self.inner.redis;
        let lock = redis.key(format_args!("sweep:{}", lapsed.name));
        let mine = redis::cmd("SET")
            .arg(lock)
            .arg(redis.node().to_string())
            .arg("NX")
            .arg("PX")
            .arg(millis(SWEEP_LOCK))
            .clone();
        let taken = redis.ask_all(&[mine], PATIENCE).await?.pop().ok_or(Away)??;
        if !matches!(taken, Value::Okay) {
            return Ok(Vec::new());
        }
        let key = self.users_key(&lapsed.name);
        let mut changes = Vec::new();
        loop {
            let some = [redis::cmd("SRANDMEMBER").arg(&key).arg(CHUNK).clone()];
            let some = redis.ask_all(&some, PATIENCE).await?.pop().ok_or(Away)??;
            let users: Vec<i64> = redis::from_redis_value(some).map_err(|_| Away)?;
            if users.is_empty() {
                break;
            }
            let users: Vec<_> = users.into_iter().map(|user| (UserId(user), Status::Offline)).collect();
            changes.extend(self.set_under(&lapsed.name, &users).await?);
        }
        let forget = [redis::cmd("ZREM").arg(redis.key("leases")).arg(&lapsed.name).clone()];
        redis.ask_all(&forget, PATIENCE).await?;
        for change in &changes {
            self.believe(change.user, change.after);
        }
        Ok(changes)
    }

    /// What all nodes say of these users; without those of whom it cannot be known at present.
    pub async fn statuses(&self, users: &[UserId]) -> HashMap<UserId, Status> {
        let inner = &self.inner;
        let mut statuses = HashMap::with_capacity(users.len());
        let mut unsure = Vec::new();
        for user in users {
            let remembered = inner.remembered.get(user);
            if remembered.is_none_or(|(_, since)| since.elapsed() >= BELIEVED) {
                unsure.push(*user);
            }
            statuses.extend(remembered.map(|(status, _)| (*user, status)));
        }
        let commands: Vec<_> = unsure
            .iter()
            .map(|user| redis::cmd("HGETALL").arg(inner.redis.key(format_args!("presence:{user}"))).clone())
            .collect();
        let answers = inner.redis.ask_all(&commands, crate::shared::PATIENCE).await.unwrap_or_default();
        for (user, answer) in unsure.into_iter().zip(answers) {
            let said = answer.and_then(|answer| redis::from_redis_value(answer).map_err(|_| Away));
            let Ok(said): Result<HashMap<String, i64>, Away> = said else { continue };
            let highest = said.iter().filter(|(lease, _)| *lease != GONE).map(|(_, said)| *said).max();
            let status = status(highest.unwrap_or(0));
            self.believe(user, status);
            statuses.insert(user, status);
        }
        statuses
    }

    /// Takes note of what was heard of a user.
    pub fn believe(&self, user: UserId, status: Status) {
        self.inner.remembered.insert(user, (status, Instant::now()));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn number(status: Status) -> i64 {
    match status {
        Status::Offline => 0,
        Status::Away => 1,
        Status::Online => 2,
    }
}

const fn status(number: i64) -> Status {
    match number {
        2.. => Status::Online,
        1 => Status::Away,
        _ => Status::Offline,
    }
}

fn change(user: UserId, answer: Value) -> Option<Change> {
    let (before, after): (i64, i64) = redis::from_redis_value(answer).ok()?;
    Some(Change { user, before: (before >= 0).then(|| status(before)), after: status(after) })
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Double(number) => Some(number.to_string()),
        value => redis::from_redis_value(value).ok(),
    }
}
