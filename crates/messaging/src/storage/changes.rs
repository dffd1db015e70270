//! Changing one message that exists: edited, deleted, reacted to, its offer in another state.
//!
//! One transaction for all of them. The rules are the caller's: they see the message as it is under its
//! conversation's lock and say what is to become of it. New messages come through [`super::batch`].

use sqlx::FromRow;

use super::{
    Decided, Result, Store,
    batch::Statements,
    in_transaction,
    log::{Entry, EventKind, NewEntry},
    retried,
    rows::{MessageType, Participants},
    search,
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::{AttachmentId, ConversationId, MessageId, UserId},
};

/// A message about to be changed, with all that the rules look at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The message.
    pub message: SubjectRow,
    /// Who takes part in its conversation, and who blocks whom.
    pub participants: Participants,
    /// Up to where the history is gone for the user of the smaller id, and for the other one.
    pub cleared_seqs: [i64; 2],
    /// Who gave which reaction, the oldest first.
    pub reactions: Vec<(UserId, String)>,
    /// The time of the change, if there is one.
    pub now: Timestamp,
}

/// The message itself.
#[derive(Debug, Clone, FromRow)]
pub struct SubjectRow {
    /// The message.
    pub id: MessageId,
    /// Where it is.
    pub conversation_id: ConversationId,
    /// Its place there.
    pub seq: i64,
    /// Who wrote it.
    pub sender_id: UserId,
    /// What it is.
    #[sqlx(rename = "type", try_from = "String")]
    pub kind: MessageType,
    /// The words.
    pub content: String,
    /// The offer, JSON text.
    pub offer: Option<String>,
    /// Its upload.
    pub attachment_id: Option<AttachmentId>,
    /// It has any reactions.
    pub has_reactions: bool,
    /// The other one read it.
    pub is_read: bool,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When it became a tombstone.
    pub deleted_at: Option<Timestamp>,
}

impl Subject {
    /// Whether the message is part of the user's history: a deleted conversation took it along.
    pub fn is_visible_to(&self, user: UserId) -> bool {
        let [first, second] = self.cleared_seqs;
        let cleared_seq = if user == self.participants.user1_id { first } else { second };
        self.participants.other(user).is_some() && self.message.seq > cleared_seq
    }
}

/// What is to become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageChange {
    /// Other words.
    Edit {
        /// The new ones.
        content: String,
    },
    /// Another state of its offer.
    Offer {
        /// The whole offer, JSON text.
        offer: String,
    },
    /// A tombstone.
    Delete,
    /// One reaction more.
    React {
        /// Whose.
        user_id: UserId,
        /// Which.
        emoji: String,
    },
    /// One reaction less.
    Unreact {
        /// Whose.
        user_id: UserId,
        /// Which.
        emoji: String,
    },
}

impl MessageChange {
    fn event(&self) -> (EventKind, Option<String>) {
        let reaction = |user_id: &UserId, emoji: &str, action: &str| {
            let payload = serde_json::json!({"user_id": user_id, "emoji": emoji, "action": action});
            (EventKind::MessageReaction, Some(payload.to_string()))
        };
        match self {
            Self::Edit { .. } | Self::Offer { .. } => (EventKind::MessageUpdated, None),
            Self::Delete => (EventKind::MessageDeleted, None),
            Self::React { user_id, emoji } => reaction(user_id, emoji, "added"),
            Self::Unreact { user_id, emoji } => reaction(user_id, emoji, "removed"),
        }
    }
}

impl Store {
    /// Changes a message as `decide` says, which sees it under its conversation's lock; `None` leaves
    /// it as it is. Answers what was appended to the users' logs.
    pub async fn change_message(
        &self,
        id: MessageId,
        decide: impl Fn(&Subject) -> Result<Option<MessageChange>, Error> + Send + Sync,
    ) -> Decided<Vec<Entry>> {
        let decide = &decide;
        retried(|| self.try_change_message(id, decide)).await
    }

    async fn try_change_message(
        &self,
        id: MessageId,
        decide: &(impl Fn(&Subject) -> Result<Option<MessageChange>, Error> + Send + Sync),
    ) -> Decided<Vec<Entry>> {
        let now = self.clock.now();
        Ok(in_transaction!(self, connection => {
            // A message never moves, so its conversation can be looked up before it is locked.
            let conversation: Option<i64> = sqlx::query_scalar("select conversation_id from messages where id = $1")
                .bind(id)
                .fetch_optional(&mut *connection)
                .await?;
            let Some(conversation) = conversation else { return Ok(Err(Error::MessageNotFound)) };
            let locked = connection.lock_conversations(&[conversation]).await?.pop();
            let Some(participants) = locked else { return Ok(Err(Error::MessageNotFound)) };

            let message: Option<SubjectRow> = sqlx::query_as(
                "select id, conversation_id, seq, sender_id, type, content, offer, attachment_id, has_reactions, is_read,
                     created_at, deleted_at
                 from messages where id = $1",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(message) = message else { return Ok(Err(Error::MessageNotFound)) };
            let cleared: Vec<(UserId, i64)> = sqlx::query_as(
                "select user_id, cleared_seq from conversation_participants where conversation_id = $1",
            )
            .bind(conversation)
            .fetch_all(&mut *connection)
            .await?;
            let cleared_seq = |user| cleared.iter().find(|row| row.0 == user).map_or(0, |row| row.1);
            let cleared_seqs = [participants.user1_id, participants.user2_id].map(cleared_seq);
            let reactions: Vec<(UserId, String)> = if message.has_reactions {
                sqlx::query_as("select user_id, emoji from message_reactions where message_id = $1 order by id")
                    .bind(id)
                    .fetch_all(&mut *connection)
                    .await?
            } else {
                Vec::new()
            };
            let subject = Subject { message, participants, cleared_seqs, reactions, now };
            let change = match decide(&subject) {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(Ok(Vec::new())),
                Err(refusal) => return Ok(Err(refusal)),
            };

            let changes_words = matches!(change, MessageChange::Edit { .. } | MessageChange::Delete);
            if changes_words && !subject.message.content.is_empty() {
                // What was said is kept for the operator, who settles disputes; no client ever sees it.
                sqlx::query("insert into message_edits (message_id, content, replaced_at) values ($1, $2, $3)")
                    .bind(id)
                    .bind(&subject.message.content)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
            }
            match &change {
                MessageChange::Edit { content } => {
                    sqlx::query("update messages set content = $2, edited_at = $3, updated_at = $3 where id = $1")
                    .bind(id)
                    .bind(content)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                }
                MessageChange::Offer { offer } => {
                    sqlx::query("update messages set offer = $2, updated_at = $3 where id = $1")
                        .bind(id)
                        .bind(offer)
                        .bind(now)
                        .execute(&mut *connection)
                        .await?;
                }
                MessageChange::Delete => {
                    sqlx::query(
                        "update messages set content = '', file_url = null, attachment_id = null, metadata = null,
                             offer = null, has_reactions = false, deleted_at = $2, updated_at = $2
                         where id = $1",
                    )
                    .bind(id)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                    if subject.message.has_reactions {
                        sqlx::query("delete from message_reactions where message_id = $1")
                            .bind(id)
                            .execute(&mut *connection)
                            .await?;
                    }
                    if subject.message.attachment_id.is_some() {
                        // Nobody's any more, and of such an age that nobody is let see it from now on and
                        // the collection of orphans takes it away.
                        sqlx::query(
                            "update attachments set message_id = null, created_at = $2 where message_id = $1",
                        )
                        .bind(id)
                        .bind(Timestamp::EPOCH)
                        .execute(&mut *connection)
                        .await?;
                    }
                    if let Some(reader) = unread_by(&subject) {
                        sqlx::query(
                            "update conversation_participants set unread_count = unread_count - 1
                             where conversation_id = $1 and user_id = $2 and unread_count > 0",
                        )
                        .bind(conversation)
                        .bind(reader)
                        .execute(&mut *connection)
                        .await?;
                    }
                }
                MessageChange::React { user_id, emoji } => {
                    sqlx::query(
                        "insert into message_reactions (message_id, user_id, emoji, created_at)
                         values ($1, $2, $3, $4) on conflict do nothing",
                    )
                    .bind(id)
                    .bind(user_id)
                    .bind(emoji)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                    sqlx::query("update messages set has_reactions = true, updated_at = $2 where id = $1")
                        .bind(id)
                        .bind(now)
                        .execute(&mut *connection)
                        .await?;
                }
                MessageChange::Unreact { user_id, emoji } => {
                    sqlx::query("delete from message_reactions where message_id = $1 and user_id = $2 and emoji = $3")
                        .bind(id)
                        .bind(user_id)
                        .bind(emoji)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query(
                        "update messages set updated_at = $2,
                             has_reactions = exists (select 1 from message_reactions x where x.message_id = $1)
                         where id = $1",
                    )
                    .bind(id)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                }
            }
            if changes_words {
                sqlx::query(search::DROP_CHUNKS)
                    .bind(conversation)
                    .bind(subject.message.seq)
                    .execute(&mut *connection)
                    .await?;
                // The conversation shows its newest message.
                sqlx::query("update conversations set updated_at = $3 where id = $1 and last_message_id = $2")
                    .bind(conversation)
                    .bind(id)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
            }
            connection.append_log(entries(&subject, &change), now).await.map(Ok)?
        }))
    }
}

/// Whose unread counter the message is part of.
fn unread_by(subject: &Subject) -> Option<UserId> {
    let recipient = subject.participants.other(subject.message.sender_id)?;
    (!subject.message.is_read && subject.is_visible_to(recipient)).then_some(recipient)
}

/// The change is told to those whose history the message is part of.
fn entries(subject: &Subject, change: &MessageChange) -> Vec<NewEntry> {
    let (kind, payload) = change.event();
    [subject.participants.user1_id, subject.participants.user2_id]
        .into_iter()
        .filter(|user| subject.is_visible_to(*user))
        .map(|user_id| NewEntry {
            user_id,
            kind,
            conversation_id: subject.message.conversation_id,
            message_id: Some(subject.message.id),
            payload: payload.clone(),
        })
        .collect()
}
