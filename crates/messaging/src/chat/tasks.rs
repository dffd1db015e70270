//! What goes on by itself: folded news, delivery marks, presence, typing, mending, retention, search, counting again.
//!
//! Each is a small loop that ends when the service's last handle is gone.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Chat, files, fold, indexing, live::WeakChat, presence, receipts, reconcile, typing};

/// Old log entries are looked for this often.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
/// Entries deleted in one transaction: short enough not to hold up a commit.
const RETENTION_CHUNK: i64 = 2000;
/// After a failed batch, streams are compared with their logs this much later.
const RECOVERY_DELAY: Duration = Duration::from_secs(1);

pub(super) fn start(chat: &Chat) {
    every(chat, fold::INTERVAL, |chat| async move { chat.tell_folded().await });
    every(chat, receipts::INTERVAL, |chat| async move { chat.mark_reached() });
    every(chat, presence::INTERVAL, |chat| async move { chat.settle_presence().await });
    every(chat, presence::INTERVAL, |chat| async move { chat.tell_presence().await });
    every(chat, presence::RENEWAL, |chat| async move { chat.renew_lease().await });
    every(chat, presence::SWEEP, |chat| async move { chat.sweep_leases().await });
    every(chat, presence::REPETITION, |chat| async move { chat.repeat_presence() });
    every(chat, typing::INTERVAL, |chat| async move { chat.expire_typing() });
    every(chat, RETENTION_INTERVAL, |chat| async move { chat.forget_old_events().await });
    every(chat, files::ORPHANS_INTERVAL, |chat| async move { chat.collect_orphans().await });
    indexing::start(chat);
    reconcile::start(chat);
    recover(chat);
}

fn every<F>(chat: &Chat, interval: Duration, work: impl Fn(Chat) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let weak: WeakChat = chat.downgrade();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(chat) = Chat::upgrade(&weak) else { return };
            work(chat).await;
        }
    });
}

fn recover(chat: &Chat) {
    let (weak, uncertain) = (chat.downgrade(), std::sync::Arc::clone(&chat.inner.uncertain));
    tokio::spawn(async move {
        loop {
            uncertain.notified().await;
            tokio::time::sleep(RECOVERY_DELAY).await;
            let Some(chat) = Chat::upgrade(&weak) else { return };
            chat.inner.behind.note_any();
        }
    });
}

impl Chat {
    async fn forget_old_events(&self) {
        let before = self.inner.clock.now().minus(self.inner.settings.event_retention);
        loop {
            match self.inner.store.prune_log(before, RETENTION_CHUNK).await {
                Ok(gone) if gone > 0 => tracing::info!(entries = gone, "old log entries were forgotten"),
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "old log entries could not be forgotten");
                    return;
                }
            }
        }
    }
}
