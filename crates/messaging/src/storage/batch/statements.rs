//! The statements that a batch is made of, and the rows they answer; each dialect has its own.

use super::{NewMessage, ReceiptKind};
use crate::{
    clock::Timestamp,
    ids::{MessageId, UserId},
    storage::{
        Result,
        log::{Entry, NewEntry},
        rows::{AttachmentColumns, Participants},
        webhooks::NewWebhook,
    },
};
use std::collections::BTreeMap;

/// The statements that a batch is made of; the decisions between them are below, once.
pub(in crate::storage) trait Statements {
    /// Messages stored under these `(sender, client_message_id)`: those, the message, its fingerprint.
    fn find_replays(
        &mut self,
        keys: &[(i64, &str)],
    ) -> impl Future<Output = Result<Vec<Replay>, sqlx::Error>> + Send;

    /// Which of these users `(blocker, blocked)` do block.
    fn find_blocks(
        &mut self,
        pairs: &[(i64, i64)],
    ) -> impl Future<Output = Result<Vec<(i64, i64)>, sqlx::Error>> + Send;

    /// Makes the conversations that are missing, with both participants.
    /// Answers all of them `(user1, user2, product, id)`.
    fn find_or_create_conversations(
        &mut self,
        wanted: &[(i64, i64, Option<i64>)],
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<FoundConversation>, sqlx::Error>> + Send;

    /// Locks these conversations in the order of their ids.
    fn lock_conversations(
        &mut self,
        ids: &[i64],
    ) -> impl Future<Output = Result<Vec<Participants>, sqlx::Error>> + Send;

    /// Quoted messages: `(id, conversation, sender, type, content)`.
    fn find_quoted(&mut self, ids: &[i64]) -> impl Future<Output = Result<Vec<Quoted>, sqlx::Error>> + Send;

    /// Attachments with their uploader that belong to no message yet.
    fn find_unsent_attachments(
        &mut self,
        ids: &[i64],
    ) -> impl Future<Output = Result<Vec<UnsentAttachment>, sqlx::Error>> + Send;

    /// Gives attachments `(attachment, message)` to their messages.
    fn attach(&mut self, pairs: &[(i64, i64)]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Stores messages, moves their conversations and counters on, answers `(conversation, seq, id)`.
    /// A message whose client message id is taken is left out.
    fn insert_messages(
        &mut self,
        rows: &[InsertRow<'_>],
        bumps: &Bumps,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<(i64, i64, i64)>, sqlx::Error>> + Send;

    /// Messages that receipts are about and that have not come that far yet.
    fn find_receivable(
        &mut self,
        kind: ReceiptKind,
        up_to: &[UpTo],
    ) -> impl Future<Output = Result<Vec<Receivable>, sqlx::Error>> + Send;

    /// The same for messages `(index, conversation, user, id)` named one by one.
    fn find_receivable_by_id(
        &mut self,
        kind: ReceiptKind,
        named: &[(i64, i64, i64, i64)],
    ) -> impl Future<Output = Result<Vec<Receivable>, sqlx::Error>> + Send;

    /// Moves delivery marks `(conversation, user, seq)` on.
    fn move_delivered(
        &mut self,
        marks: &[(i64, i64, i64)],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Marks messages as read and takes `(conversation, user, count, seq)` off the counters.
    fn move_read(
        &mut self,
        message_ids: &[i64],
        marks: &[(i64, i64, i64, i64)],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Writes events for each of the targets of webhooks.
    fn insert_webhooks(
        &mut self,
        events: &[NewWebhook],
        targets: &[&str],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Appends to the users' logs; always the last statement of a transaction.
    fn append_log(
        &mut self,
        entries: Vec<NewEntry>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Entry>, sqlx::Error>> + Send;
}

/// A message stored earlier under a client message id.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(in crate::storage) struct Replay {
    pub(in crate::storage) sender_id: i64,
    pub(in crate::storage) client_message_id: String,
    pub(in crate::storage) id: MessageId,
    pub(in crate::storage) fingerprint: Option<i64>,
}

/// The conversation of two users about a product.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(in crate::storage) struct FoundConversation {
    pub(in crate::storage) user1_id: i64,
    pub(in crate::storage) user2_id: i64,
    pub(in crate::storage) product_id: Option<i64>,
    pub(in crate::storage) id: i64,
}

/// A message that a reply quotes.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(in crate::storage) struct Quoted {
    pub(in crate::storage) id: MessageId,
    pub(in crate::storage) conversation_id: i64,
    pub(in crate::storage) sender_id: UserId,
    #[sqlx(rename = "type")]
    pub(in crate::storage) kind: String,
    pub(in crate::storage) content: String,
}

/// An attachment that may still be sent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(in crate::storage) struct UnsentAttachment {
    pub(in crate::storage) uploader_id: UserId,
    pub(in crate::storage) mime_type: String,
    #[sqlx(flatten)]
    pub(in crate::storage) columns: AttachmentColumns,
}

/// A message with its place.
#[derive(Debug)]
pub(in crate::storage) struct InsertRow<'a> {
    pub(in crate::storage) conversation_id: i64,
    pub(in crate::storage) seq: i64,
    pub(in crate::storage) message: &'a NewMessage,
}

/// What the messages of a batch add up to, per row that they touch.
#[derive(Debug, Default)]
pub(in crate::storage) struct Bumps {
    /// Conversation → its newest seq.
    pub(in crate::storage) last_seqs: BTreeMap<i64, i64>,
    /// (conversation, user) → new unread messages; 0 for those who only sent.
    pub(in crate::storage) unread: BTreeMap<(i64, i64), i64>,
}

/// A stretch of a conversation that a receipt is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct UpTo {
    pub(in crate::storage) index: i64,
    pub(in crate::storage) conversation_id: i64,
    pub(in crate::storage) user_id: i64,
    pub(in crate::storage) seq: i64,
    pub(in crate::storage) id: i64,
}

/// A message that a receipt moves on.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(in crate::storage) struct Receivable {
    pub(in crate::storage) receipt: i64,
    pub(in crate::storage) id: i64,
    pub(in crate::storage) seq: i64,
    pub(in crate::storage) counts: bool,
}
