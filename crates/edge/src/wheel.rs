//! One coarse clock for all connections: who asks is woken near a deadline.
//!
//! Owns a hashed timer wheel of weak links, turned by one task per edge, in place of a timer per connection. A
//! link has at most one entry that counts; what a link does when woken is decided in `driver`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::link::Link;

const SLOTS: u64 = 1024;

/// A link's place on the wheel.
#[derive(Debug)]
pub(crate) struct Alarm(Mutex<Times>);

#[derive(Debug)]
struct Times {
    /// When the link wants to be woken, in milliseconds since the wheel began; `u64::MAX` is never.
    due: u64,
    /// The tick at which its entry lies; an entry found at another tick is stale.
    entry: u64,
}

impl Default for Alarm {
    fn default() -> Self {
        Self(Mutex::new(Times { due: u64::MAX, entry: u64::MAX }))
    }
}

#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    tick_ms: u64,
    /// The last tick whose slot was emptied.
    turned: AtomicU64,
    slots: Box<[Mutex<Vec<Weak<Link>>>]>,
}

impl Wheel {
    pub(crate) fn new(tick: Duration) -> Self {
        Self {
            start: Instant::now(),
            tick_ms: u64::try_from(tick.as_millis()).unwrap_or(u64::MAX).max(1),
            turned: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Milliseconds since the wheel began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// Asks for the link to be woken at `due`, never before it and at most a tick or two after. Replaces what was
    /// asked before. Only the link's own task calls this.
    pub(crate) fn wake_at(&self, link: &Arc<Link>, due: u64) {
        let mut times = link.alarm().0.lock();
        times.due = due;
        // A later deadline needs no new entry: the one that lies earlier will move itself.
        if due != u64::MAX && self.tick_of(due) < times.entry {
            times.entry = self.insert(Arc::downgrade(link), due);
        }
    }

    fn tick_of(&self, due: u64) -> u64 {
        due.div_ceil(self.tick_ms)
    }

    /// Lays an entry at the tick of `due` and says at which it came to lie: within one turn of the wheel, and
    /// not behind it.
    fn insert(&self, link: Weak<Link>, due: u64) -> u64 {
        let turned = self.turned.load(Ordering::Acquire);
        let mut tick = self.tick_of(due).clamp(turned + 1, turned + SLOTS - 1);
        loop {
            let mut slot = self.slots[(tick % SLOTS) as usize].lock();
            // Under the slot's lock, since the wheel may have passed this tick meanwhile, and an entry laid
            // behind it would wait for a whole turn.
            if self.turned.load(Ordering::Acquire) < tick {
                slot.push(link);
                return tick;
            }
            drop(slot);
            tick = self.turned.load(Ordering::Acquire) + 1;
        }
    }

    /// Wakes whoever is due by now; called by the edge's clock task.
    pub(crate) fn turn(&self) {
        let now = self.now();
        let until = now / self.tick_ms;
        loop {
            let tick = self.turned.load(Ordering::Acquire) + 1;
            if tick > until {
                return;
            }
            let entries = {
                let mut slot = self.slots[(tick % SLOTS) as usize].lock();
                self.turned.store(tick, Ordering::Release);
                std::mem::take(&mut *slot)
            };
            for entry in entries {
                let Some(link) = entry.upgrade() else { continue };
                let mut times = link.alarm().0.lock();
                if times.entry != tick {
                    continue;
                }
                times.entry = u64::MAX;
                if times.due > now {
                    if times.due != u64::MAX {
                        times.entry = self.insert(entry, times.due);
                    }
                    continue;
                }
                drop(times);
                link.wake();
            }
        }
    }
}
