//! One flight per key: whoever asks for the same thing at the same time shares one answer.
//!
//! A flight is a task of its own, so that the first to ask may leave without failing the others.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use crate::context::Context;

/// Flights that may be under way at once; more are refused rather than kept in memory.
const MAX_FLIGHTS: usize = 20_000;

type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// The flights under way.
pub(super) struct Flights<K, V> {
    running: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self { running: Arc::default() }
    }

    /// Joins the flight for `key` or starts it; it goes on though nobody waits for its answer.
    ///
    /// The answer is `None` where too many are under way, or where the flight crashed.
    pub(super) fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(&key) {
            return flight.clone();
        }
        if running.len() >= MAX_FLIGHTS {
            return futures_util::future::ready(None).boxed().shared();
        }
        let landing = Landing { running: Arc::clone(&self.running), key: key.clone() };
        let flight = start();
        // On behalf of whoever asked first.
        let task = tokio::spawn(Context::current().scope(async move {
            let _landing = landing;
            flight.await
        }));
        let flight = async move { task.await.ok() }.boxed().shared();
        running.insert(key, flight.clone());
        flight
    }
}

/// Takes a flight off the list, however it ends.
struct Landing<K: Hash + Eq, V: Clone> {
    running: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Hash + Eq, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        // Kept until the lock is free again: dropping a flight inside could come back here.
        let flight = self.running.lock().remove(&self.key);
        drop(flight);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_flight_and_the_first_may_leave() {
        let flights = Flights::<u32, u32>::new();
        let (started, open) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let join = || {
            flights.join(7, || {
                let (started, open) = (Arc::clone(&started), Arc::clone(&open));
                async move {
                    open.notified().await;
                    started.fetch_add(1, Ordering::Relaxed) + 1
                }
            })
        };
        drop(join());
        let others: Vec<_> = (0..99).map(|_| join()).collect();
        open.notify_one();
        for other in others {
            assert_eq!(other.await, Some(1));
        }
        open.notify_one();
        assert_eq!(join().await, Some(2), "a later one flies anew");
        assert!(flights.running.lock().is_empty());
    }

    #[tokio::test]
    async fn a_flight_that_crashes_leaves_the_way_free() {
        let flights = Flights::<u32, u32>::new();
        let crashed = flights.join(7, || async { panic!("on purpose") });
        assert_eq!(crashed.await, None);
        assert_eq!(flights.join(7, || async { 1 }).await, Some(1));
    }
}
