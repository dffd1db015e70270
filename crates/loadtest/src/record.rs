//! What is measured while a run goes on: latencies and counts, as a whole and second by second.
//!
//! Owns the figures; what they look like in the end is in `report`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    check::Faults,
    usage::{Shares, Snapshot},
};

/// Latencies in microseconds, from one to ten minutes, to three digits.
pub type Latencies = Histogram<u64>;

/// An empty one.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order")
}

/// Counts of one stretch of time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Messages sent, or requests made.
    pub sent: u64,
    /// Messages confirmed to their sender, or answers had.
    pub confirmed: u64,
    /// Messages that reached the other user.
    pub delivered: u64,
    /// Messages that reached their own sender as an event.
    pub echoed: u64,
    /// Events of every kind that came.
    pub events: u64,
    /// Refusals.
    pub refused: u64,
}

/// One second.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Seconds since the run began, at the end of this stretch.
    pub at_s: f64,
    /// How long the stretch was.
    pub length_s: f64,
    /// Connections that are live.
    pub connections: u64,
    /// What happened.
    pub counts: Counts,
    /// From the scheduled time to the other user, in microseconds.
    pub delivery: Option<Percentiles>,
    /// From the scheduled time to the confirmation, in microseconds.
    pub confirmation: Option<Percentiles>,
    /// CPU.
    pub cpu: Shares,
    /// The service's memory in bytes.
    pub resident: Option<u64>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Half were faster.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// 99 in a hundred.
    pub p99: u64,
    /// 999 in a thousand.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// The percentiles of a histogram that is not empty.
pub fn percentiles(latencies: &Latencies) -> Option<Percentiles> {
    let at = |quantile| latencies.value_at_quantile(quantile);
    (!latencies.is_empty()).then(|| Percentiles {
        count: latencies.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: latencies.max(),
    })
}

/// Everything a run measures.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    from_ns: AtomicU64,
    until_ns: AtomicU64,
    connections: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    delivery: Latencies,
    confirmation: Latencies,
    lateness: Latencies,
    late: u64,
    tick_delivery: Latencies,
    tick_confirmation: Latencies,
    tick: Counts,
    total: Counts,
    measured: Counts,
    rows: Vec<Row>,
    faults: Faults,
    last: (Instant, Snapshot),
}

/// What a run measured.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// From the scheduled time to the other user.
    pub delivery: Latencies,
    /// From the scheduled time to the confirmation.
    pub confirmation: Latencies,
    /// From the scheduled time to the send.
    pub lateness: Latencies,
    /// Sends more than a millisecond behind their schedule.
    pub late: u64,
    /// All there was.
    pub total: Counts,
    /// What there was in the measured stretch.
    pub measured: Counts,
    /// Second by second.
    pub rows: Vec<Row>,
    /// What was wrong.
    pub faults: Faults,
}

/// Behind its schedule by more than this, a send counts as late.
const LATE: Duration = Duration::from_millis(1);

fn micros(duration_ns: u64) -> u64 {
    (duration_ns / 1000).max(1)
}

impl Recorder {
    /// Begins now; measures from the beginning until told otherwise.
    pub fn start() -> Self {
        let start = Instant::now();
        Self {
            start,
            from_ns: AtomicU64::new(0),
            until_ns: AtomicU64::new(u64::MAX),
            connections: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                delivery: latencies(),
                confirmation: latencies(),
                lateness: latencies(),
                late: 0,
                tick_delivery: latencies(),
                tick_confirmation: latencies(),
                tick: Counts::default(),
                total: Counts::default(),
                measured: Counts::default(),
                rows: Vec::new(),
                faults: Faults::default(),
                last: (start, Snapshot::default()),
            }),
        }
    }

    /// Nanoseconds from the run's beginning to a moment.
    pub fn ns_at(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since the run's beginning.
    pub fn now_ns(&self) -> u64 {
        self.ns_at(Instant::now())
    }

    /// The moment so many nanoseconds after the run's beginning.
    pub fn instant(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// Measures only between two moments, in nanoseconds.
    pub fn measure(&self, from_ns: u64, until_ns: u64) {
        self.from_ns.store(from_ns, Relaxed);
        self.until_ns.store(until_ns, Relaxed);
    }

    fn is_measured(&self, ns: u64) -> bool {
        (self.from_ns.load(Relaxed)..self.until_ns.load(Relaxed)).contains(&ns)
    }

    /// One more or one less live connection.
    pub fn connected(&self, is_live: bool) {
        if is_live {
            self.connections.fetch_add(1, Relaxed);
        } else {
            self.connections.fetch_sub(1, Relaxed);
        }
    }

    /// How many connections are live.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    fn count(&self, at_ns: u64, change: impl Fn(&mut Counts)) -> parking_lot::MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        change(&mut inner.tick);
        change(&mut inner.total);
        if self.is_measured(at_ns) {
            change(&mut inner.measured);
        }
        inner
    }

    /// A message went out that was due at a moment.
    pub fn sent(&self, scheduled_ns: u64, at_ns: u64) {
        let mut inner = self.count(at_ns, |counts| counts.sent += 1);
        if self.is_measured(scheduled_ns) {
            let lateness = at_ns.saturating_sub(scheduled_ns);
            inner.lateness.saturating_record(micros(lateness));
            inner.late += u64::from(u128::from(lateness) > LATE.as_nanos());
        }
    }

    /// A message reached the other user. Without a latency it was caught up on after an absence.
    pub fn delivered(&self, scheduled_ns: u64, at_ns: u64, has_latency: bool) {
        let mut inner = self.count(at_ns, |counts| counts.delivered += 1);
        if has_latency && self.is_measured(scheduled_ns) {
            let latency = micros(at_ns.saturating_sub(scheduled_ns));
            inner.delivery.saturating_record(latency);
            inner.tick_delivery.saturating_record(latency);
        }
    }

    /// A message was confirmed, or a request answered.
    pub fn confirmed(&self, scheduled_ns: u64, at_ns: u64) {
        let mut inner = self.count(at_ns, |counts| counts.confirmed += 1);
        if self.is_measured(scheduled_ns) {
            let latency = micros(at_ns.saturating_sub(scheduled_ns));
            inner.confirmation.saturating_record(latency);
            inner.tick_confirmation.saturating_record(latency);
        }
    }

    /// A message reached its own sender as an event.
    pub fn echoed(&self, at_ns: u64) {
        drop(self.count(at_ns, |counts| counts.echoed += 1));
    }

    /// An event of any kind came.
    pub fn event(&self, at_ns: u64) {
        drop(self.count(at_ns, |counts| counts.events += 1));
    }

    /// A message was refused.
    pub fn refused(&self, at_ns: u64) {
        drop(self.count(at_ns, |counts| counts.refused += 1));
    }

    /// Something was wrong.
    pub fn fault(&self, tell: impl FnOnce(&mut Faults)) {
        tell(&mut self.inner.lock().faults);
    }

    /// Ends a second: its row, which is also kept.
    pub fn tick(&self, snapshot: Snapshot) -> Row {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let now = Instant::now();
        let length = now.saturating_duration_since(inner.last.0);
        let row = Row {
            at_s: now.saturating_duration_since(self.start).as_secs_f64(),
            length_s: length.as_secs_f64(),
            connections: self.connections(),
            counts: std::mem::take(&mut inner.tick),
            delivery: percentiles(&inner.tick_delivery),
            confirmation: percentiles(&inner.tick_confirmation),
            cpu: snapshot.since(&inner.last.1, length),
            resident: snapshot.service().map(|usage| usage.resident),
        };
        inner.tick_delivery.reset();
        inner.tick_confirmation.reset();
        inner.last = (now, snapshot);
        // Within the first stretch there was no earlier snapshot to compare with.
        if row.at_s > row.length_s {
            inner.rows.push(row.clone());
        }
        row
    }

    /// So far.
    pub fn total(&self) -> Counts {
        self.inner.lock().total
    }

    /// What was measured.
    pub fn finish(&self) -> Recorded {
        let inner = self.inner.lock();
        Recorded {
            delivery: inner.delivery.clone(),
            confirmation: inner.confirmation.clone(),
            lateness: inner.lateness.clone(),
            late: inner.late,
            total: inner.total,
            measured: inner.measured,
            rows: inner.rows.clone(),
            faults: inner.faults.clone(),
        }
    }
}
