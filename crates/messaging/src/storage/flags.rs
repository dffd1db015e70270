//! What one user changes of a conversation for themselves: archived, muted, deleted.
//!
//! The rules are the caller's: they see the user's flags under the conversation's lock and say what is
//! to become of them. The other side is never touched.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{
    Database, Decided, IdList, Result, Store,
    batch::{Statements, not_a_participant},
    in_transaction,
    log::{Entry, EventKind, NewEntry},
    retried,
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::{ConversationId, UserId},
};

/// A user's flags of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Flags {
    /// Out of the list until the next message.
    pub is_archived: bool,
    /// No notifications.
    pub is_muted: bool,
    /// Until when; `None` while muted means for good.
    pub muted_until: Option<Timestamp>,
    /// Deleted, and not yet brought back by a message.
    pub is_hidden: bool,
}

impl Store {
    /// Changes a user's flags of a conversation as `decide` says; the same flags change nothing.
    /// Hiding it takes its history so far away from this user. Answers what was appended to their log.
    pub async fn change_flags(
        &self,
        user: UserId,
        id: ConversationId,
        decide: impl Fn(Flags) -> Result<Flags, Error> + Send + Sync,
    ) -> Decided<Vec<Entry>> {
        let decide = &decide;
        retried(|| self.try_change_flags(user, id, decide)).await
    }

    async fn try_change_flags(
        &self,
        user: UserId,
        id: ConversationId,
        decide: &(impl Fn(Flags) -> Result<Flags, Error> + Send + Sync),
    ) -> Decided<Vec<Entry>> {
        let now = self.clock.now();
        Ok(in_transaction!(self, connection => {
            let locked = connection.lock_conversations(&[id.0]).await?.pop();
            let Some(participants) = locked else { return Ok(Err(Error::ConversationNotFound)) };
            if participants.other(user).is_none() {
                return Ok(Err(not_a_participant()));
            }
            let flags: Option<Flags> = sqlx::query_as(
                "select is_archived, is_muted, muted_until, is_hidden from conversation_participants
                 where conversation_id = $1 and user_id = $2",
            )
            .bind(id)
            .bind(user)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(flags) = flags else { return Ok(Err(Error::ConversationNotFound)) };
            let wanted = match decide(flags) {
                Ok(wanted) if wanted == flags => return Ok(Ok(Vec::new())),
                Ok(wanted) => wanted,
                Err(refusal) => return Ok(Err(refusal)),
            };
            sqlx::query(
                "update conversation_participants
                 set is_archived = $3, is_muted = $4, muted_until = $5, is_hidden = $6
                 where conversation_id = $1 and user_id = $2",
            )
            .bind(id)
            .bind(user)
            .bind(wanted.is_archived)
            .bind(wanted.is_muted)
            .bind(wanted.muted_until)
            .bind(wanted.is_hidden)
            .execute(&mut *connection)
            .await?;
            let mut payload = None;
            if wanted.is_hidden && !flags.is_hidden {
                let cleared_seq = participants.last_seq;
                sqlx::query(
                    "update conversation_participants set cleared_seq = $3, read_seq = $3, unread_count = 0
                     where conversation_id = $1 and user_id = $2",
                )
                .bind(id)
                .bind(user)
                .bind(cleared_seq)
                .execute(&mut *connection)
                .await?;
                // Whoever reads the log later finds the conversation as it is then, perhaps brought back.
                payload = Some(serde_json::json!({"cleared_seq": cleared_seq}).to_string());
            }
            let entry = NewEntry {
                user_id: user,
                kind: EventKind::ConversationUpdated,
                conversation_id: id,
                message_id: None,
                payload,
            };
            connection.append_log(vec![entry], now).await.map(Ok)?
        }))
    }

    /// Up to where the history of some conversations is gone for a user; those that are whole are left out.
    pub async fn cleared_seqs(
        &self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<HashMap<ConversationId, i64>> {
        let ids = IdList(conversations.iter().map(|id| id.0).collect());
        let rows: Vec<(ConversationId, i64)> = match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(
                    "select conversation_id, cleared_seq from conversation_participants
                     where user_id = $1 and conversation_id = any($2) and cleared_seq > 0",
                )
                .bind(user)
                .bind(ids)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select conversation_id, cleared_seq from conversation_participants
                     where user_id = $1 and conversation_id in (select value from json_each($2)) and cleared_seq > 0",
                )
                .bind(user)
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        };
        Ok(rows.into_iter().collect())
    }
}
