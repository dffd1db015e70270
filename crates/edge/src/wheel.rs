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

    /// Wakes whoever is due at `now`; called by the edge's clock task.
    pub(crate) fn turn(&self, now: u64) {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    use proptest::prelude::*;

    use super::*;
    use crate::config::EdgeConfig;
    use crate::handler::Dialect;
    use crate::shared::Shared;

    const TICK: u64 = 100;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn link() -> (Arc<Link>, Arc<Count>) {
        let shared = Arc::new(Shared::new(EdgeConfig::default()));
        let link = Arc::new(Link::new(shared, 1, [127, 0, 0, 1].into(), Dialect::Plain));
        (link, Arc::default())
    }

    fn rest(link: &Link, count: &Arc<Count>) {
        link.begin();
        assert!(link.rest(&Waker::from(Arc::clone(count)), false));
    }

    proptest! {
        /// Whatever was asked for and changed, the link is woken for its last wish, not before, at most two ticks
        /// after, and only once.
        #[test]
        fn a_link_is_woken_once_and_in_time(
            wishes in prop::collection::vec((0..300_000_u64, 0..5_000_u64), 1..12),
            pace in 1..700_u64,
        ) {
            let wheel = Wheel::new(Duration::from_millis(TICK));
            let (link, count) = link();
            rest(&link, &count);
            let mut now = 0;
            let mut due = u64::MAX;
            for (ahead, wait) in wishes {
                due = now + ahead;
                wheel.wake_at(&link, due);
                let until = now + wait;
                while now < until {
                    now += pace.min(until - now);
                    wheel.turn(now);
                    if count.0.load(SeqCst) > 0 {
                        prop_assert!(now >= due, "woken at {now}, due {due}");
                    }
                }
                if now >= due + 2 * TICK {
                    prop_assert_eq!(count.0.swap(0, SeqCst), 1);
                    rest(&link, &count);
                    due = u64::MAX;
                } else if count.0.swap(0, SeqCst) > 0 {
                    rest(&link, &count);
                    due = u64::MAX;
                }
            }
            while due != u64::MAX && now < due + 2 * TICK {
                now += TICK;
                wheel.turn(now);
                prop_assert!(now >= due || count.0.load(SeqCst) == 0);
            }
            prop_assert_eq!(count.0.load(SeqCst), usize::from(due != u64::MAX));
        }
    }

    #[test]
    fn a_wish_taken_back_wakes_nobody_and_a_dead_link_is_let_go() {
        let wheel = Wheel::new(Duration::from_millis(TICK));
        let (link, count) = link();
        rest(&link, &count);
        wheel.wake_at(&link, 1000);
        wheel.wake_at(&link, u64::MAX);
        wheel.turn(5000);
        assert_eq!(count.0.load(SeqCst), 0);
        wheel.wake_at(&link, 6000);
        drop(link);
        wheel.turn(10_000);
        assert!(wheel.slots.iter().all(|slot| slot.lock().is_empty()));
    }

    #[test]
    fn many_short_wishes_leave_one_entry_each_turn() {
        let wheel = Wheel::new(Duration::from_millis(TICK));
        let (link, _count) = link();
        for now in 0..1000 {
            wheel.wake_at(&link, now + 25_000);
        }
        assert_eq!(wheel.slots.iter().map(|slot| slot.lock().len()).sum::<usize>(), 1);
    }
}
