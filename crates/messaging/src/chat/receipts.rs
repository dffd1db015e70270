//! Delivered and read: what clients say, and what the service sees by itself.

use std::time::Duration;

use serde::Serialize;

use super::{Chat, input::MarkRead};
use crate::{
    errors::Result,
    ids::{ConversationId, MessageId, UserId},
    limits::Kind,
    storage::batch::{Receipt, ReceiptKind, Which},
};

/// How often messages that reached a live connection are marked as delivered: soon enough to look
/// immediate, seldom enough that a burst becomes one mark.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// What a mark changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ReadAnswer {
    /// Where.
    pub conversation_id: ConversationId,
    /// How many messages are read now that were not.
    pub count: usize,
    /// Which.
    pub message_ids: Vec<MessageId>,
    /// All of the caller's unread messages afterwards.
    pub unread_count: i64,
}

impl Chat {
    /// Marks messages of the other one as read.
    pub async fn mark_read(&self, user: UserId, mark: MarkRead) -> Result<ReadAnswer> {
        self.inner.limits.take(user, Kind::Reads).await?;
        let message_ids = self.receipt(user, mark, ReceiptKind::Read).await?;
        if let Some(notifier) = self.notifier().filter(|_| !message_ids.1.is_empty()) {
            notifier.read(user, message_ids.0);
        }
        Ok(ReadAnswer {
            conversation_id: message_ids.0,
            count: message_ids.1.len(),
            message_ids: message_ids.1,
            unread_count: self.unread_count(user).await?,
        })
    }

    /// Marks messages of the other one as delivered.
    pub async fn mark_delivered(&self, user: UserId, mark: MarkRead) -> Result<Vec<MessageId>> {
        self.inner.limits.take(user, Kind::Reads).await?;
        Ok(self.receipt(user, mark, ReceiptKind::Delivered).await?.1)
    }

    async fn receipt(
        &self,
        user: UserId,
        mark: MarkRead,
        kind: ReceiptKind,
    ) -> Result<(ConversationId, Vec<MessageId>)> {
        let conversation_id = mark.conversation_id;
        // Also refuses a conversation that the caller deleted.
        self.visible_conversation(user, conversation_id).await?;
        let receipt = Receipt { conversation_id, user_id: user, kind, which: mark.which };
        let receipted = self.writers().receipt(receipt).await?;
        Ok((conversation_id, receipted.message_ids))
    }

    /// Notes that a message reached a live connection of its recipient.
    pub(super) fn note_reached(&self, conversation: ConversationId, user: UserId, seq: i64) {
        let mut reached = self.inner.reached.lock();
        let newest = reached.entry((conversation, user)).or_default();
        *newest = (*newest).max(seq);
    }

    /// Marks what was noted as delivered.
    pub(super) fn mark_reached(&self) {
        let reached: Vec<_> = self.inner.reached.lock().drain().collect();
        for ((conversation_id, user_id), seq) in reached {
            let receipt = Receipt {
                conversation_id,
                user_id,
                kind: ReceiptKind::Delivered,
                which: Which::UpToSeq(seq),
            };
            if self.writers().receipt_unattended(receipt).is_err() {
                self.note_reached(conversation_id, user_id, seq);
            }
        }
    }
}
