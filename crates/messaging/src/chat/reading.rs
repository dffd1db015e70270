//! What a user may look at: their conversations, the messages in them, their unread count.

use super::{
    Chat,
    views::{ConversationView, MessageView, Surroundings},
};
use crate::{
    delivery::hub::Status,
    errors::{Error, Result},
    identity::{Caller, Token},
    ids::{ConversationId, ProductId, UserId},
    storage::{
        batch::{Receipt, ReceiptKind, Which, not_a_participant},
        messages::Window,
        rows::{ConversationRow, MessageRow},
    },
};

/// Which page, counted from 1, and how long; both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub page: i64,
    /// Items a page.
    pub limit: i64,
}

impl PageRequest {
    pub(super) fn offset(self) -> i64 {
        self.page.saturating_sub(1).saturating_mul(self.limit)
    }
}

/// A page of a list and where it stands.
#[derive(Debug)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Its number, from 1.
    pub page: i64,
    /// Items a page.
    pub per_page: i64,
    /// Items on all pages.
    pub total: i64,
    /// More follows in the direction of reading.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// How many pages there are; at least one.
    pub fn total_pages(&self) -> i64 {
        let whole = self.total / self.per_page.max(1);
        (whole + i64::from(self.total % self.per_page.max(1) > 0)).max(1)
    }
}

impl Chat {
    /// A page of the caller's conversations, newest activity first.
    pub async fn list_conversations(
        &self,
        caller: &Caller,
        archived: bool,
        request: PageRequest,
    ) -> Result<Page<ConversationView>> {
        let store = &self.inner.store;
        let (user, offset) = (caller.user_id, request.offset());
        let rows = store.conversations(user, archived, request.limit, offset).await?;
        let found = i64::try_from(rows.len()).unwrap_or(request.limit);
        // A first page that is not full is the whole list: no need to count it.
        let total = if offset == 0 && found < request.limit {
            found
        } else {
            store.count_conversations(user, archived).await?
        };
        let items = self.conversation_views(rows, Some(&caller.token)).await;
        Ok(Page {
            items,
            page: request.page,
            per_page: request.limit,
            total,
            has_more: offset.saturating_add(found) < total,
        })
    }

    /// One conversation of the caller.
    pub async fn get_conversation(&self, caller: &Caller, id: ConversationId) -> Result<ConversationView> {
        let row = self.visible_conversation(caller.user_id, id).await?;
        let mut views = self.conversation_views(vec![row], Some(&caller.token)).await;
        views.pop().ok_or(Error::ConversationNotFound)
    }

    /// All of the caller's unread messages, archived and muted conversations too.
    pub async fn unread_count(&self, user: UserId) -> Result<i64> {
        Ok(self.inner.store.unread_counts(&[user]).await?.first().map_or(0, |(_, count)| *count))
    }

    /// Messages of a conversation, oldest first. Looking at them delivers them.
    pub async fn list_messages(
        &self,
        caller: &Caller,
        id: ConversationId,
        window: Window,
        limit: i64,
    ) -> Result<Page<MessageView>> {
        let conversation = self.visible_conversation(caller.user_id, id).await?;
        self.messages_seen(&conversation, window, limit).await
    }

    pub(super) async fn messages_seen(
        &self,
        conversation: &ConversationRow,
        window: Window,
        limit: i64,
    ) -> Result<Page<MessageView>> {
        let cleared_seq = conversation.cleared_seq;
        let rows = self.inner.store.messages(conversation, window, limit).await?;
        self.note_fetched(conversation, &rows);
        let total = conversation.last_seq.saturating_sub(cleared_seq).max(0);
        let (first, last) = (rows.first().map(|row| row.seq), rows.last().map(|row| row.seq));
        let has_more = match window {
            Window::After(_) => last.is_some_and(|seq| seq < conversation.last_seq),
            Window::Page(_) | Window::Before(_) | Window::Around(_) => {
                first.is_some_and(|seq| seq > cleared_seq + 1)
            }
        };
        let page = match window {
            Window::Page(page) => page.saturating_add(1),
            Window::Before(_) | Window::After(_) | Window::Around(_) => 1,
        };
        Ok(Page { items: self.views(rows).await, page, per_page: limit, total, has_more })
    }

    /// A conversation that the user takes part in and has not deleted.
    pub(super) async fn visible_conversation(
        &self,
        user: UserId,
        id: ConversationId,
    ) -> Result<ConversationRow> {
        match self.inner.store.conversation(user, id).await? {
            Some(row) if row.is_hidden => Err(Error::ConversationNotFound),
            Some(row) => Ok(row),
            None if self.inner.store.participants(id).await?.is_some() => Err(not_a_participant()),
            None => Err(Error::ConversationNotFound),
        }
    }

    fn note_fetched(&self, conversation: &ConversationRow, rows: &[MessageRow]) {
        let newest = rows.iter().filter(|row| row.sender_id != conversation.user_id).map(|row| row.seq).max();
        if let Some(seq) = newest.filter(|seq| *seq > conversation.delivered_seq) {
            let receipt = Receipt {
                conversation_id: conversation.id,
                user_id: conversation.user_id,
                kind: ReceiptKind::Delivered,
                which: Which::UpToSeq(seq),
            };
            // A full queue only delays the second tick.
            if let Err(receipt) = self.writers().receipt_unattended(receipt) {
                self.note_reached(receipt.conversation_id, receipt.user_id, seq);
            }
        }
    }

    /// Puts messages together with what they refer to, in the order given.
    pub(super) async fn views(&self, rows: Vec<MessageRow>) -> Vec<MessageView> {
        if rows.is_empty() {
            return Vec::new();
        }
        let mut senders: Vec<UserId> = rows.iter().map(|row| row.sender_id).collect();
        senders.sort_unstable();
        senders.dedup();
        let profiles = self.inner.directory.users(&senders, None).await;
        let attachments = rows
            .iter()
            .filter_map(|row| self.attachment_view(&row.attachment))
            .map(|attachment| (attachment.id, attachment))
            .collect();
        let surroundings = Surroundings { profiles, attachments };
        rows.into_iter().map(|row| MessageView::new(row, &surroundings)).collect()
    }

    /// Puts conversations together with what they refer to, in the order given.
    pub(super) async fn conversation_views(
        &self,
        rows: Vec<ConversationRow>,
        bearer: Option<&Token>,
    ) -> Vec<ConversationView> {
        let others: Vec<UserId> = rows.iter().map(|row| row.other_user_id).collect();
        let products: Vec<ProductId> = rows.iter().filter_map(|row| row.product_id).collect();
        let profiles = self.inner.directory.users(&others, bearer).await;
        let cards = self.inner.directory.products(&products, bearer).await;
        let statuses = self.statuses(&others).await;
        let now = self.inner.clock.now();
        rows.into_iter()
            .map(|row| {
                let profile = profiles.get(&row.other_user_id).cloned().unwrap_or_else(|| {
                    std::sync::Arc::new(crate::identity::UserProfile::unknown(row.other_user_id))
                });
                let product = row.product_id.and_then(|id| cards.get(&id).cloned());
                let status = statuses.get(&row.other_user_id).copied().unwrap_or(Status::Offline);
                ConversationView::new(row, profile, product, status, now)
            })
            .collect()
    }
}
