//! The group commit: many sends and receipts, one transaction, a handful of set-based statements.
//!
//! Authorization, idempotency and block checks happen inside the transaction, under the locks of the
//! conversations concerned; one bad row is refused alone. Locks are taken in one order by everybody:
//! conversations by id, then their participants, then the users' log counters by id.

mod receipts;
mod sends;
mod statements;

use std::collections::{BTreeSet, HashMap};

use sqlx::{PgConnection, SqliteConnection};

pub use sends::not_a_participant;
pub(super) use statements::{
    Bumps, FoundConversation, InsertRow, Quoted, Receivable, Replay, Statements, UnsentAttachment, UpTo,
};

use self::{
    receipts::apply_receipts,
    sends::{
        check_attachments, check_quoted, find_twins, may_send, message_row, resolve_targets, settle_replays,
        store_messages,
    },
};
use super::{
    Database, Result, Store, StoreError,
    log::{Entry, EventKind, NewEntry},
    rows::{MessageRow, MessageType, Participants},
    webhooks::{self, Outbox},
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::{AttachmentId, ConversationId, MessageId, ProductId, UserId},
};

/// A message to be stored; everything in it has been checked but what only the database knows.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Who sends it.
    pub sender_id: UserId,
    /// Where to.
    pub target: Target,
    /// What it is.
    pub kind: MessageType,
    /// The words, as they will be shown.
    pub content: String,
    /// A link to a file elsewhere.
    pub file_url: Option<String>,
    /// An uploaded file of the sender that no message has yet.
    pub attachment_id: Option<AttachmentId>,
    /// The message answered, in the same conversation.
    pub reply_to_id: Option<MessageId>,
    /// JSON text.
    pub metadata: Option<String>,
    /// JSON text.
    pub offer: Option<String>,
    /// The sender's own id for it.
    pub client_message_id: Option<String>,
    /// A hash of what was asked for.
    pub fingerprint: i64,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Into a conversation that exists.
    Conversation(ConversationId),
    /// To a user about a product or none; the conversation is made if need be.
    User {
        /// Not the sender.
        receiver_id: UserId,
        /// What it is about.
        product_id: Option<ProductId>,
    },
}

/// Messages that a user received or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where.
    pub conversation_id: ConversationId,
    /// Who received or read.
    pub user_id: UserId,
    /// Received or read.
    pub kind: ReceiptKind,
    /// Which messages.
    pub which: Which,
}

/// How far a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiptKind {
    /// It reached a device.
    Delivered,
    /// It was read.
    Read,
}

/// Which messages a receipt is about. Foreign and unknown ones are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All there are.
    All,
    /// Those up to a place.
    UpToSeq(i64),
    /// Those up to a message.
    UpToId(MessageId),
    /// These.
    Ids(Vec<MessageId>),
}

/// What is to be written in one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// Messages, in the order of their arrival.
    pub sends: Vec<NewMessage>,
    /// Receipts; they see this batch's messages.
    pub receipts: Vec<Receipt>,
}

/// What became of a batch; the transaction is committed.
#[derive(Debug, Default)]
pub struct Applied {
    /// In the order of [`Batch::sends`].
    pub sends: Vec<Result<Sent, Error>>,
    /// In the order of [`Batch::receipts`].
    pub receipts: Vec<Result<Receipted, Error>>,
    /// What was appended to the users' logs, in each log's order.
    pub entries: Vec<Entry>,
}

/// A message that is stored.
#[derive(Debug, Clone)]
pub enum Sent {
    /// By this batch.
    New {
        /// The message.
        message: Box<MessageRow>,
        /// The other one.
        recipient_id: UserId,
        /// The conversation was made for it.
        is_first: bool,
    },
    /// Before, under the same client message id.
    Before(MessageId),
}

/// What a receipt changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipted {
    /// The messages that were not yet received or read, in order.
    pub message_ids: Vec<MessageId>,
    /// Both users of the conversation.
    pub participants: Participants,
    /// When.
    pub at: Timestamp,
}

/// A transaction ends without a commit because its guess was wrong: some message was stored before.
enum Attempt {
    Applied(Applied),
    ReplaysAmong,
}

/// Deadlocks and concurrent inserts are rare and short: so many attempts outlive any of them.
const ATTEMPTS: u32 = 6;

impl Store {
    /// Writes a batch in one transaction. An error means that nothing of it is stored.
    pub async fn apply(&self, batch: &Batch) -> Result<Applied> {
        let outcome = self.apply_with_retries(batch).await;
        self.note_room(&outcome);
        outcome
    }

    async fn apply_with_retries(&self, batch: &Batch) -> Result<Applied> {
        // Nearly all messages are new, so the first attempt does not look for earlier ones:
        // the unique index notices, and the second attempt looks.
        let mut look_for_replays = false;
        let mut attempt = 1;
        loop {
            match self.attempt(batch, look_for_replays).await {
                Ok(Attempt::Applied(applied)) => return Ok(applied),
                Ok(Attempt::ReplaysAmong) if !look_for_replays => look_for_replays = true,
                Ok(Attempt::ReplaysAmong) if attempt < ATTEMPTS => attempt += 1,
                Ok(Attempt::ReplaysAmong) => {
                    return Err(StoreError::Collision(sqlx::Error::RowNotFound));
                }
                Err(StoreError::Collision(error)) if attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "a batch collided and is tried again");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&self, batch: &Batch, look_for_replays: bool) -> Result<Attempt> {
        let now = self.clock.now();
        let outbox = self.outbox.as_deref();
        let attempt = match &self.database {
            Database::Postgres { write, .. } => {
                let mut transaction = write.begin().await?;
                let attempt =
                    attempt::<PgConnection>(&mut transaction, batch, look_for_replays, outbox, now).await?;
                if let Attempt::Applied(_) = attempt {
                    transaction.commit().await?;
                }
                attempt
            }
            Database::Sqlite { write, .. } => {
                let mut transaction = write.begin_with("begin immediate").await?;
                let attempt =
                    attempt::<SqliteConnection>(&mut transaction, batch, look_for_replays, outbox, now)
                        .await?;
                if let Attempt::Applied(_) = attempt {
                    transaction.commit().await?;
                }
                attempt
            }
        };
        if let (Attempt::Applied(_), Some(outbox)) = (&attempt, outbox) {
            outbox.written();
        }
        Ok(attempt)
    }
}

async fn attempt<C: Statements + Send>(
    connection: &mut C,
    batch: &Batch,
    look_for_replays: bool,
    outbox: Option<&Outbox>,
    now: Timestamp,
) -> Result<Attempt, sqlx::Error> {
    let mut sends: Vec<Option<Result<Sent, Error>>> = batch.sends.iter().map(|_| None).collect();
    let twins = find_twins(&batch.sends, &mut sends);
    if look_for_replays {
        settle_replays(connection, &batch.sends, &mut sends).await?;
    }
    let mut references = HashMap::new();
    check_attachments(connection, &batch.sends, &mut sends, &mut references).await?;
    let (conversation_ids, created) = resolve_targets(connection, &batch.sends, &mut sends, now).await?;

    let mut to_lock: BTreeSet<i64> = conversation_ids.iter().flatten().copied().collect();
    to_lock.extend(batch.receipts.iter().map(|receipt| receipt.conversation_id.0));
    let to_lock: Vec<_> = to_lock.into_iter().collect();
    let locked =
        if to_lock.is_empty() { Vec::new() } else { connection.lock_conversations(&to_lock).await? };
    let conversations: HashMap<i64, Participants> = locked.into_iter().map(|row| (row.id.0, row)).collect();

    for ((send, outcome), conversation_id) in batch.sends.iter().zip(&mut sends).zip(&conversation_ids) {
        if let (None, Some(id)) = (&outcome, *conversation_id)
            && let Err(refusal) = may_send(send, conversations.get(&id))
        {
            *outcome = Some(Err(refusal));
        }
    }
    // A refused message may have been stored before the reason for the refusal came up.
    let refused = |(send, outcome): (&NewMessage, &Option<Result<Sent, Error>>)| {
        send.client_message_id.is_some() && matches!(outcome, Some(Err(_)))
    };
    if !look_for_replays && batch.sends.iter().zip(&sends).any(refused) {
        return Ok(Attempt::ReplaysAmong);
    }
    check_quoted(connection, &batch.sends, &mut sends, &conversation_ids, &mut references).await?;

    let mut entries = Vec::new();
    let Some(stored) =
        store_messages(connection, batch, &sends, &conversation_ids, &conversations, now).await?
    else {
        return Ok(Attempt::ReplaysAmong);
    };
    let mut attached = Vec::new();
    for (index, (id, seq)) in stored {
        let send = &batch.sends[index];
        let Some(participants) = conversation_ids[index].and_then(|id| conversations.get(&id)) else {
            continue;
        };
        let Some(recipient_id) = participants.other(send.sender_id) else { continue };
        let message = message_row(send, participants.id, id, seq, now, references.get(&index));
        for user_id in [recipient_id, send.sender_id] {
            entries.push(NewEntry {
                user_id,
                kind: EventKind::MessageReceived,
                conversation_id: participants.id,
                message_id: Some(id),
                payload: None,
            });
        }
        attached.extend(send.attachment_id.map(|attachment| (attachment.0, id.0)));
        let is_first = seq == 1 && created.contains(&participants.id.0);
        sends[index] = Some(Ok(Sent::New { message: Box::new(message), recipient_id, is_first }));
    }
    if !attached.is_empty() {
        connection.attach(&attached).await?;
    }

    let receipts = apply_receipts(connection, &batch.receipts, &conversations, &mut entries, now).await?;
    if let Some(outbox) = outbox {
        let events = webhooks::of_batch(&sends, &batch.receipts, &receipts);
        outbox.write(connection, events, now).await?;
    }
    let entries = connection.append_log(entries, now).await?;

    for (index, first) in twins {
        sends[index] = match &sends[first] {
            Some(Ok(Sent::New { message, .. })) => Some(Ok(Sent::Before(message.id))),
            Some(Ok(Sent::Before(id))) => Some(Ok(Sent::Before(*id))),
            Some(Err(refusal)) => Some(Err(refusal.repeat())),
            None => None,
        };
    }
    let sends = sends
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| Err(Error::internal("a send was left undecided"))))
        .collect();
    Ok(Attempt::Applied(Applied { sends, receipts, entries }))
}
