//! Counts unread messages again in the background, repairs what drifted, and says so.
//!
//! Counters move in the transactions that cause it and should never drift; this finds out if they do.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Chat;
use crate::{errors::Result, metrics, storage::log::EventKind};

/// Counters looked at one after the other. A full history is read for each, so this is gentle: a
/// hundred thousand conversations take some five hours.
const CHUNK: i64 = 100;
/// How often so many are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// A stretch of counters that were counted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciled {
    /// How many were looked at.
    pub checked: usize,
    /// How many of them were wrong and are repaired.
    pub repaired: usize,
    /// Where to go on; `None` when all have been looked at.
    pub next: Option<i64>,
}

pub(super) fn start(chat: &Chat) {
    let weak = chat.downgrade();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is better to do.
        ticks.tick().await;
        let mut place = 0;
        loop {
            ticks.tick().await;
            let Some(chat) = Chat::upgrade(&weak) else { return };
            match chat.reconcile_unread(place).await {
                Ok(reconciled) => place = reconciled.next.unwrap_or(0),
                Err(error) => tracing::warn!(%error, "unread counters could not be counted again"),
            }
        }
    });
}

impl Chat {
    /// Counts a stretch of unread counters again, from a place on (0 is the first), and repairs those
    /// that are wrong.
    pub async fn reconcile_unread(&self, after: i64) -> Result<Reconciled> {
        let recounted = self.inner.store.recount_unread(after, CHUNK).await?;
        let mut repaired = 0;
        for (conversation, user) in recounted.drifted {
            if let Some((said, counted)) = self.inner.store.repair_unread(conversation, user).await? {
                repaired += 1;
                metrics::get().drift_repaired();
                tracing::error!(
                    conversation_id = conversation.0,
                    user_id = user.0,
                    said,
                    counted,
                    "an unread counter had drifted and was repaired"
                );
                // The badge and the conversation are told as after a read.
                self.fold_after(user, EventKind::MessageRead, conversation);
            }
        }
        Ok(Reconciled { checked: recounted.checked, repaired, next: recounted.next })
    }
}
