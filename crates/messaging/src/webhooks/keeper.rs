//! Keeps the queue of webhooks bounded, and counts it: delivered ones go after a day, those that wait
//! for days become dead letters, dead letters go after a month.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    chat::Chat,
    clock::Clock,
    storage::{Result, webhooks::Outbox},
};

/// Often enough for a graph.
const INTERVAL: Duration = Duration::from_secs(15);
/// Sweeps are one in so many counts.
const SWEEP_EVERY: u32 = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// Longer than all attempts of a delivery together.
const MAX_AGE: Duration = Duration::from_secs(4 * 86_400);
const DEAD_FOR: Duration = Duration::from_secs(30 * 86_400);

pub(super) async fn run(chat: Chat, outbox: Arc<Outbox>, clock: Clock, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut round = 0_u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        if let Err(error) = keep(&chat, &outbox, &clock, round.is_multiple_of(SWEEP_EVERY)).await {
            tracing::warn!(%error, "the queue of webhooks could not be looked after");
        }
        round = round.wrapping_add(1);
    }
}

async fn keep(chat: &Chat, outbox: &Outbox, clock: &Clock, sweeps: bool) -> Result<()> {
    let store = chat.store();
    if sweeps {
        let now = clock.now();
        let expired = store.expire_webhooks(now.minus(MAX_AGE), "waited for four days").await?;
        if expired > 0 {
            tracing::warn!(deliveries = expired, "webhooks waited too long and are dead letters now");
        }
        store.forget_webhooks(now.minus(DAY), now.minus(DEAD_FOR)).await?;
    }
    outbox.note_depth(store.webhook_depth().await?);
    Ok(())
}
