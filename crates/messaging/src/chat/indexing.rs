//! Making search chunks in the background, so that neither a send nor a search does it.
//!
//! Conversations get here when a chunk's worth of messages came, and when a search had to read many messages
//! one by one. Only the latter is needed: who is lost on the way, because too many wait or the node ends,
//! comes back with the next search.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Chat, live::WeakChat};
use crate::{
    ids::ConversationId,
    storage::{rows::MessageRow, search::CHUNK},
};

/// Conversations that may wait.
const MAX_WAITING: usize = 20_000;
/// Conversations that one transaction locks.
const AT_ONCE: usize = 16;
/// After each transaction others have the database for so many times as long as it took.
const REST: u32 = 9;
/// At least so long, so that what comes in a burst is done together.
const PAUSE: Duration = Duration::from_millis(20);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Conversations that wait to be put into chunks.
#[derive(Debug, Default)]
pub(super) struct Indexing {
    waiting: Mutex<BTreeSet<ConversationId>>,
    /// Told when there is something to do.
    work: Notify,
}

impl Indexing {
    /// Asks for these conversations; what is too much is left to the next search.
    pub(super) fn ask(&self, conversations: impl IntoIterator<Item = ConversationId>) {
        let mut waiting = self.waiting.lock();
        let before = waiting.len();
        for conversation in conversations {
            if waiting.len() >= MAX_WAITING {
                break;
            }
            waiting.insert(conversation);
        }
        if waiting.len() > before {
            self.work.notify_one();
        }
    }

    /// Asks for conversations that have got a chunk's worth of messages.
    pub(super) fn note_sent<'a>(&self, rows: impl IntoIterator<Item = &'a MessageRow>) {
        let full: HashSet<ConversationId> =
            rows.into_iter().filter(|row| row.seq % CHUNK == 0).map(|row| row.conversation_id).collect();
        if !full.is_empty() {
            self.ask(full);
        }
    }

    fn take(&self) -> Vec<ConversationId> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(conversation) = waiting.pop_first()
        {
            taken.push(conversation);
        }
        taken
    }
}

pub(super) fn start(chat: &Chat) {
    let weak: WeakChat = chat.downgrade();
    tokio::spawn(async move {
        while let Some(chat) = Chat::upgrade(&weak) {
            let pause = match chat.index_waiting().await {
                Some(pause) => pause,
                None => {
                    let indexing = std::sync::Arc::clone(&chat.inner.indexing);
                    drop(chat);
                    indexing.work.notified().await;
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    });
}

impl Chat {
    /// Puts waiting conversations into chunks. Answers how long to leave the database to others; `None`
    /// if nothing waits.
    async fn index_waiting(&self) -> Option<Duration> {
        let taken = self.inner.indexing.take();
        if taken.is_empty() {
            return None;
        }
        let began = Instant::now();
        match self.inner.store.index_for_search(&taken).await {
            Ok(more) => {
                self.inner.indexing.ask(more);
                Some((began.elapsed() * REST).max(PAUSE))
            }
            Err(error) => {
                tracing::warn!(%error, "messages could not be prepared for search");
                Some(RETRY)
            }
        }
    }

    /// Waits until nothing waits to be prepared for search; for measurements.
    pub async fn finish_indexing(&self) {
        while self.index_waiting().await.is_some() {}
    }
}
