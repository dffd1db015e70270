//! The group commit: many sends and receipts, one transaction, a handful of set-based statements.
//!
//! Authorization, idempotency and block checks happen inside the transaction, under the locks of the
//! conversations concerned; one bad row is refused alone. Locks are taken in one order by everybody:
//! conversations by id, then their participants, then the users' log counters by id.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::{PgConnection, SqliteConnection};

use super::{
    Database, Result, Store, StoreError,
    log::{Entry, EventKind, NewEntry},
    rows::{AttachmentColumns, MessageRow, MessageType, Participants, ReplyRow},
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

/// The statements that a batch is made of; the decisions between them are below, once.
pub(super) trait Statements {
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

    /// Appends to the users' logs; always the last statement of a transaction.
    fn append_log(
        &mut self,
        entries: Vec<NewEntry>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Entry>, sqlx::Error>> + Send;
}

/// A message stored earlier under a client message id.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Replay {
    pub(super) sender_id: i64,
    pub(super) client_message_id: String,
    pub(super) id: MessageId,
    pub(super) fingerprint: Option<i64>,
}

/// The conversation of two users about a product.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct FoundConversation {
    pub(super) user1_id: i64,
    pub(super) user2_id: i64,
    pub(super) product_id: Option<i64>,
    pub(super) id: i64,
}

/// A message that a reply quotes.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Quoted {
    pub(super) id: MessageId,
    pub(super) conversation_id: i64,
    pub(super) sender_id: UserId,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
    pub(super) content: String,
}

/// An attachment that may still be sent.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct UnsentAttachment {
    pub(super) uploader_id: UserId,
    pub(super) mime_type: String,
    #[sqlx(flatten)]
    pub(super) columns: AttachmentColumns,
}

/// A message with its place.
#[derive(Debug)]
pub(super) struct InsertRow<'a> {
    pub(super) conversation_id: i64,
    pub(super) seq: i64,
    pub(super) message: &'a NewMessage,
}

/// What the messages of a batch add up to, per row that they touch.
#[derive(Debug, Default)]
pub(super) struct Bumps {
    /// Conversation → its newest seq.
    pub(super) last_seqs: BTreeMap<i64, i64>,
    /// (conversation, user) → new unread messages; 0 for those who only sent.
    pub(super) unread: BTreeMap<(i64, i64), i64>,
}

/// A stretch of a conversation that a receipt is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct UpTo {
    pub(super) index: i64,
    pub(super) conversation_id: i64,
    pub(super) user_id: i64,
    pub(super) seq: i64,
    pub(super) id: i64,
}

/// A message that a receipt moves on.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Receivable {
    pub(super) receipt: i64,
    pub(super) id: i64,
    pub(super) seq: i64,
    pub(super) counts: bool,
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
        match &self.database {
            Database::Postgres { write, .. } => {
                let mut transaction = write.begin().await?;
                let attempt = attempt::<PgConnection>(&mut transaction, batch, look_for_replays, now).await?;
                if let Attempt::Applied(_) = attempt {
                    transaction.commit().await?;
                }
                Ok(attempt)
            }
            Database::Sqlite { write, .. } => {
                let mut transaction = write.begin_with("begin immediate").await?;
                let attempt =
                    attempt::<SqliteConnection>(&mut transaction, batch, look_for_replays, now).await?;
                if let Attempt::Applied(_) = attempt {
                    transaction.commit().await?;
                }
                Ok(attempt)
            }
        }
    }
}

async fn attempt<C: Statements + Send>(
    connection: &mut C,
    batch: &Batch,
    look_for_replays: bool,
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
            && let Err(refusal) = may_send(send.sender_id, conversations.get(&id))
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

/// Sends of this batch that repeat an earlier one of it: `(index, index of the first)`.
fn find_twins(sends: &[NewMessage], outcomes: &mut [Option<Result<Sent, Error>>]) -> Vec<(usize, usize)> {
    let mut firsts: HashMap<(UserId, &str), usize> = HashMap::new();
    let mut twins = Vec::new();
    for (index, send) in sends.iter().enumerate() {
        let Some(client_message_id) = send.client_message_id.as_deref() else { continue };
        match firsts.entry((send.sender_id, client_message_id)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(index);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                if sends[*first.get()].fingerprint == send.fingerprint {
                    // Decided for now so that nothing else touches it; the first one's outcome replaces it.
                    outcomes[index] = Some(Err(Error::unavailable()));
                    twins.push((index, *first.get()));
                } else {
                    outcomes[index] = Some(Err(conflicting_client_message_id()));
                }
            }
        }
    }
    twins
}

fn conflicting_client_message_id() -> Error {
    Error::Conflict("This client_message_id was already used for another message.".into())
}

async fn settle_replays<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
) -> Result<(), sqlx::Error> {
    let keys: Vec<_> = sends
        .iter()
        .filter_map(|send| send.client_message_id.as_deref().map(|id| (send.sender_id.0, id)))
        .collect();
    let found: HashMap<(i64, String), (MessageId, Option<i64>)> = connection
        .find_replays(&keys)
        .await?
        .into_iter()
        .map(|row| ((row.sender_id, row.client_message_id), (row.id, row.fingerprint)))
        .collect();
    for (send, outcome) in sends.iter().zip(outcomes) {
        let Some(client_message_id) = &send.client_message_id else { continue };
        if outcome.is_some() {
            continue;
        }
        if let Some((id, fingerprint)) = found.get(&(send.sender_id.0, client_message_id.clone())) {
            *outcome = Some(if *fingerprint == Some(send.fingerprint) {
                Ok(Sent::Before(*id))
            } else {
                Err(conflicting_client_message_id())
            });
        }
    }
    Ok(())
}

/// The conversation of each send, made where it is missing; and those that may have been made now.
async fn resolve_targets<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    now: Timestamp,
) -> Result<(Vec<Option<i64>>, BTreeSet<i64>), sqlx::Error> {
    let mut resolved: Vec<Option<i64>> = sends
        .iter()
        .map(|send| match send.target {
            Target::Conversation(id) => Some(id.0),
            Target::User { .. } => None,
        })
        .collect();
    let mut created = BTreeSet::new();
    let mut pairs = Vec::new();
    for (send, outcome) in sends.iter().zip(outcomes.iter()) {
        if let (Target::User { receiver_id, .. }, None) = (send.target, outcome) {
            pairs.push((send.sender_id.0, receiver_id.0));
            pairs.push((receiver_id.0, send.sender_id.0));
        }
    }
    if pairs.is_empty() {
        return Ok((resolved, created));
    }
    let blocks: BTreeSet<(i64, i64)> = connection.find_blocks(&pairs).await?.into_iter().collect();
    let mut wanted = BTreeSet::new();
    for (send, outcome) in sends.iter().zip(outcomes.iter_mut()) {
        let (Target::User { receiver_id, product_id }, None) = (send.target, &outcome) else { continue };
        let (sender, receiver) = (send.sender_id.0, receiver_id.0);
        if blocks.contains(&(sender, receiver)) {
            *outcome = Some(Err(Error::Blocked { by_caller: true }));
        } else if blocks.contains(&(receiver, sender)) {
            *outcome = Some(Err(Error::Blocked { by_caller: false }));
        } else {
            wanted.insert((sender.min(receiver), sender.max(receiver), product_id.map(|id| id.0)));
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    if wanted.is_empty() {
        return Ok((resolved, created));
    }
    let found: HashMap<(i64, i64, Option<i64>), i64> = connection
        .find_or_create_conversations(&wanted, now)
        .await?
        .into_iter()
        .map(|row| ((row.user1_id, row.user2_id, row.product_id), row.id))
        .collect();
    created.extend(found.values().copied());
    for ((send, outcome), slot) in sends.iter().zip(outcomes.iter()).zip(&mut resolved) {
        if let (Target::User { receiver_id, product_id }, None) = (send.target, outcome) {
            let (sender, receiver) = (send.sender_id.0, receiver_id.0);
            let key = (sender.min(receiver), sender.max(receiver), product_id.map(|id| id.0));
            *slot = found.get(&key).copied();
        }
    }
    Ok((resolved, created))
}

fn may_send(sender: UserId, participants: Option<&Participants>) -> Result<(), Error> {
    let participants = participants.ok_or(Error::ConversationNotFound)?;
    if participants.other(sender).is_none() {
        return Err(not_a_participant());
    }
    if participants.is_blocked() {
        return Err(Error::Blocked { by_caller: participants.blocks(sender) });
    }
    Ok(())
}

/// The refusal of somebody else's conversation.
pub fn not_a_participant() -> Error {
    Error::Forbidden("You are not a participant of this conversation.".into())
}

/// What a send refers to.
#[derive(Debug, Default)]
struct References {
    reply: ReplyRow,
    attachment: AttachmentColumns,
}

/// Attachments first: a refused one must not leave an empty conversation behind.
async fn check_attachments<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    references: &mut HashMap<usize, References>,
) -> Result<(), sqlx::Error> {
    let wanted: Vec<i64> = sends.iter().filter_map(|send| send.attachment_id).map(|id| id.0).collect();
    if !wanted.is_empty() {
        let mut found: HashMap<AttachmentId, UnsentAttachment> = connection
            .find_unsent_attachments(&wanted)
            .await?
            .into_iter()
            .filter_map(|row| row.columns.attachment_id.map(|id| (id, row)))
            .collect();
        for (index, send) in sends.iter().enumerate() {
            let Some(id) = send.attachment_id.filter(|_| outcomes[index].is_none()) else { continue };
            // Taken out: one upload belongs to one message.
            let attachment = found.remove(&id).filter(|found| found.uploader_id == send.sender_id);
            let refusal = match attachment {
                None => Some("The selected attachment_id is not an unsent upload of yours."),
                Some(attachment)
                    if send.kind == MessageType::Image && !attachment.mime_type.starts_with("image/") =>
                {
                    Some("The selected attachment_id is not an image.")
                }
                Some(attachment) => {
                    references.entry(index).or_default().attachment = attachment.columns;
                    None
                }
            };
            if let Some(sentence) = refusal {
                outcomes[index] = Some(Err(Error::field("attachment_id", sentence)));
            }
        }
    }
    Ok(())
}

async fn check_quoted<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    conversation_ids: &[Option<i64>],
    references: &mut HashMap<usize, References>,
) -> Result<(), sqlx::Error> {
    let quoted: Vec<i64> = sends.iter().filter_map(|send| send.reply_to_id).map(|id| id.0).collect();
    if !quoted.is_empty() {
        let found: HashMap<MessageId, Quoted> =
            connection.find_quoted(&quoted).await?.into_iter().map(|row| (row.id, row)).collect();
        for (index, send) in sends.iter().enumerate() {
            let Some(reply_to_id) = send.reply_to_id.filter(|_| outcomes[index].is_none()) else { continue };
            match found.get(&reply_to_id) {
                Some(quoted) if Some(quoted.conversation_id) == conversation_ids[index] => {
                    references.entry(index).or_default().reply = ReplyRow {
                        reply_id: Some(reply_to_id),
                        reply_sender_id: Some(quoted.sender_id),
                        reply_type: Some(quoted.kind.clone()),
                        reply_content: Some(quoted.content.clone()),
                    };
                }
                _ => {
                    outcomes[index] = Some(Err(Error::field(
                        "reply_to_id",
                        "The selected reply_to_id is not a message of this conversation.",
                    )));
                }
            }
        }
    }

    Ok(())
}

/// Stores the sends that are not decided yet: index → its message's id and place.
/// `None` if one of them turns out to be stored already.
async fn store_messages<C: Statements + Send>(
    connection: &mut C,
    batch: &Batch,
    outcomes: &[Option<Result<Sent, Error>>],
    conversation_ids: &[Option<i64>],
    conversations: &HashMap<i64, Participants>,
    now: Timestamp,
) -> Result<Option<BTreeMap<usize, (MessageId, i64)>>, sqlx::Error> {
    let mut rows = Vec::new();
    let mut places = HashMap::new();
    let mut bumps = Bumps::default();
    for (index, send) in batch.sends.iter().enumerate() {
        let (None, Some(conversation_id)) = (&outcomes[index], conversation_ids[index]) else { continue };
        let Some(participants) = conversations.get(&conversation_id) else { continue };
        let Some(recipient) = participants.other(send.sender_id) else { continue };
        let last_seq = bumps.last_seqs.entry(conversation_id).or_insert(participants.last_seq);
        *last_seq += 1;
        *bumps.unread.entry((conversation_id, recipient.0)).or_default() += 1;
        bumps.unread.entry((conversation_id, send.sender_id.0)).or_default();
        places.insert((conversation_id, *last_seq), index);
        rows.push(InsertRow { conversation_id, seq: *last_seq, message: send });
    }
    if rows.is_empty() {
        return Ok(Some(BTreeMap::new()));
    }
    let stored = connection.insert_messages(&rows, &bumps, now).await?;
    if stored.len() < rows.len() {
        return Ok(None);
    }
    Ok(Some(
        stored
            .into_iter()
            .filter_map(|(conversation, seq, id)| {
                places.get(&(conversation, seq)).map(|index| (*index, (MessageId(id), seq)))
            })
            .collect(),
    ))
}

fn message_row(
    send: &NewMessage,
    conversation_id: ConversationId,
    id: MessageId,
    seq: i64,
    now: Timestamp,
    references: Option<&References>,
) -> MessageRow {
    MessageRow {
        id,
        conversation_id,
        seq,
        sender_id: send.sender_id,
        kind: send.kind,
        content: send.content.clone(),
        file_url: send.file_url.clone(),
        metadata: send.metadata.clone(),
        offer: send.offer.clone(),
        client_message_id: send.client_message_id.clone(),
        fingerprint: Some(send.fingerprint),
        is_read: false,
        read_at: None,
        is_delivered: false,
        edited_at: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        reactions: None,
        reply: references.map(|references| references.reply.clone()).unwrap_or_default(),
        attachment: references.map(|references| references.attachment.clone()).unwrap_or_default(),
    }
}

async fn apply_receipts<C: Statements + Send>(
    connection: &mut C,
    receipts: &[Receipt],
    conversations: &HashMap<i64, Participants>,
    entries: &mut Vec<NewEntry>,
    now: Timestamp,
) -> Result<Vec<Result<Receipted, Error>>, sqlx::Error> {
    let mut outcomes: Vec<Result<Receipted, Error>> = receipts
        .iter()
        .map(|receipt| {
            let participants =
                conversations.get(&receipt.conversation_id.0).ok_or(Error::ConversationNotFound)?;
            participants.other(receipt.user_id).ok_or_else(not_a_participant)?;
            Ok(Receipted { message_ids: Vec::new(), participants: *participants, at: now })
        })
        .collect();
    // Delivered before read: a message that is read needs no delivery of its own any more.
    for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
        let mut moved = find_moved(connection, kind, receipts, &outcomes).await?;
        if moved.is_empty() {
            continue;
        }
        moved.sort_unstable_by_key(|row| (row.seq, row.id));
        // Two receipts of one batch may name the same message: it moves once.
        let mut seen = BTreeSet::new();
        moved.retain(|row| seen.insert(row.id));

        let mut marks: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
        for row in &moved {
            let Some(receipt) = usize::try_from(row.receipt).ok().and_then(|index| receipts.get(index))
            else {
                continue;
            };
            let (count, seq) = marks.entry((receipt.conversation_id.0, receipt.user_id.0)).or_insert((0, 0));
            *count += i64::from(row.counts);
            *seq = (*seq).max(row.seq);
            if let Some(Ok(outcome)) =
                usize::try_from(row.receipt).ok().and_then(|index| outcomes.get_mut(index))
            {
                outcome.message_ids.push(MessageId(row.id));
            }
        }
        match kind {
            ReceiptKind::Delivered => {
                let marks: Vec<_> = marks.into_iter().map(|((c, u), (_, seq))| (c, u, seq)).collect();
                connection.move_delivered(&marks, now).await?;
            }
            ReceiptKind::Read => {
                let ids: Vec<_> = moved.iter().map(|row| row.id).collect();
                let marks: Vec<_> =
                    marks.into_iter().map(|((c, u), (count, seq))| (c, u, count, seq)).collect();
                connection.move_read(&ids, &marks, now).await?;
            }
        }
        for (receipt, outcome) in receipts.iter().zip(&outcomes) {
            let Ok(outcome) = outcome else { continue };
            if receipt.kind == kind && !outcome.message_ids.is_empty() {
                entries.extend(receipt_entries(receipt, outcome));
            }
        }
    }
    Ok(outcomes)
}

async fn find_moved<C: Statements + Send>(
    connection: &mut C,
    kind: ReceiptKind,
    receipts: &[Receipt],
    outcomes: &[Result<Receipted, Error>],
) -> Result<Vec<Receivable>, sqlx::Error> {
    let mut stretches = Vec::new();
    let mut named = Vec::new();
    for (index, (receipt, outcome)) in (0_i64..).zip(receipts.iter().zip(outcomes)) {
        if receipt.kind != kind || outcome.is_err() {
            continue;
        }
        let (conversation_id, user_id) = (receipt.conversation_id.0, receipt.user_id.0);
        let stretch = UpTo { index, conversation_id, user_id, seq: i64::MAX, id: i64::MAX };
        match &receipt.which {
            Which::All => stretches.push(stretch),
            Which::UpToSeq(seq) => stretches.push(UpTo { seq: *seq, ..stretch }),
            Which::UpToId(id) => stretches.push(UpTo { id: id.0, ..stretch }),
            Which::Ids(ids) => {
                named.extend(ids.iter().map(|id| (index, conversation_id, user_id, id.0)));
            }
        }
    }
    let mut moved = Vec::new();
    if !named.is_empty() {
        let found = connection.find_receivable_by_id(kind, &named).await?;
        match kind {
            ReceiptKind::Read => moved.extend(found),
            // Delivery is one mark a user: what came before a delivered message is delivered too.
            ReceiptKind::Delivered => stretches.extend(up_to_newest(receipts, &found)),
        }
    }
    if !stretches.is_empty() {
        moved.extend(connection.find_receivable(kind, &stretches).await?);
    }
    Ok(moved)
}

/// For each receipt, the stretch that ends with the newest of the messages found for it.
fn up_to_newest(receipts: &[Receipt], found: &[Receivable]) -> Vec<UpTo> {
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    for row in found {
        let seq = newest.entry(row.receipt).or_default();
        *seq = (*seq).max(row.seq);
    }
    newest
        .into_iter()
        .filter_map(|(index, seq)| {
            let receipt = usize::try_from(index).ok().and_then(|index| receipts.get(index))?;
            Some(UpTo {
                index,
                conversation_id: receipt.conversation_id.0,
                user_id: receipt.user_id.0,
                seq,
                id: i64::MAX,
            })
        })
        .collect()
}

/// A receipt is told to both users.
fn receipt_entries(receipt: &Receipt, outcome: &Receipted) -> [NewEntry; 2] {
    let (kind, at) = match receipt.kind {
        ReceiptKind::Delivered => (EventKind::MessageDelivered, "delivered_at"),
        ReceiptKind::Read => (EventKind::MessageRead, "read_at"),
    };
    let payload = serde_json::json!({
        "message_ids": outcome.message_ids,
        "user_id": receipt.user_id,
        at: outcome.at,
    })
    .to_string();
    [outcome.participants.user1_id, outcome.participants.user2_id].map(|user_id| NewEntry {
        user_id,
        kind,
        conversation_id: receipt.conversation_id,
        message_id: None,
        payload: Some(payload.clone()),
    })
}
