//! What follows from stored events and is told in bursts: `conversation_updated` and `unread_count`.
//!
//! Neither is stored: each node derives them for its own connections, at most once per interval and
//! conversation, from what the database says then (contract 4.4: folded within 200 ms).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;

use super::{Chat, events::event, views::ConversationView};
use crate::{
    errors::Result,
    ids::{ConversationId, UserId},
    storage::log::EventKind,
};

/// Half of what the contract allows, so that the query and the wire have the other half.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// Views read in one query.
const CHUNK: usize = 500;

/// What has changed since the last telling.
#[derive(Debug, Default)]
pub(super) struct Fold {
    conversations: Mutex<HashSet<(UserId, ConversationId)>>,
    badges: Mutex<HashSet<UserId>>,
}

impl Chat {
    /// Notes what a stored event changes besides itself.
    pub(super) fn fold_after(&self, user: UserId, kind: EventKind, conversation: ConversationId) {
        let fold = &self.inner.fold;
        match kind {
            EventKind::MessageReceived | EventKind::MessageRead | EventKind::MessageDeleted => {
                fold.conversations.lock().insert((user, conversation));
                fold.badges.lock().insert(user);
            }
            EventKind::MessageUpdated => {
                fold.conversations.lock().insert((user, conversation));
            }
            // It is the news itself; what it changes of the badge is told.
            EventKind::ConversationUpdated => {
                fold.badges.lock().insert(user);
            }
            EventKind::MessageDelivered | EventKind::MessageReaction => {}
        }
    }

    /// Tells what was noted since the last time.
    pub(super) async fn tell_folded(&self) {
        let conversations: Vec<_> = self.inner.fold.conversations.lock().drain().collect();
        let badges: Vec<_> = self.inner.fold.badges.lock().drain().collect();
        for chunk in conversations.chunks(CHUNK) {
            match self.views_for(chunk).await {
                Ok(views) => {
                    for view in views.into_iter().filter(|view| !view.is_deleted) {
                        let user = view.current_user_id;
                        self.inner
                            .hub
                            .emit(user, &event("conversation_updated", &json!({"conversation": view})));
                    }
                }
                // Clients also learn it with the next message or by reading the list.
                Err(error) => tracing::warn!(%error, "conversation updates could not be told"),
            }
        }
        for chunk in badges.chunks(CHUNK) {
            match self.inner.store.unread_counts(chunk).await {
                Ok(counts) => {
                    for (user, count) in counts {
                        self.inner.hub.emit(user, &event("unread_count", &json!({"unread_count": count})));
                    }
                }
                Err(error) => tracing::warn!(%error, "unread counts could not be told"),
            }
        }
    }

    async fn views_for(&self, wanted: &[(UserId, ConversationId)]) -> Result<Vec<ConversationView>> {
        let rows = self.inner.store.conversation_views(wanted).await?;
        Ok(self.conversation_views(rows, None).await)
    }

    /// Conversations as one user sees them.
    pub(super) async fn conversation_views_of(
        &self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<HashMap<ConversationId, ConversationView>> {
        if conversations.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted: Vec<_> = conversations.iter().map(|conversation| (user, *conversation)).collect();
        Ok(self.views_for(&wanted).await?.into_iter().map(|view| (view.id, view)).collect())
    }
}
