//! Erasing a user: their words become tombstones a stretch at a time, what is only theirs goes at once.
//!
//! Conversations stay, with their numbers: `seq`, the counters and everybody else's log go on without a
//! gap. The user is a number without a name from then on.

use super::{
    Result, Store,
    batch::Statements,
    in_transaction,
    jobs::{Job, Step, advance},
    log::{EventKind, NewEntry},
    on, retried, search,
};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
};

/// What is kept of a user alone, a statement each. A table with a column for a user belongs here, unless
/// it is part of a conversation.
const OF_THE_USER_ALONE: &[&str] = &[
    "delete from devices where user_id = $1",
    "delete from notification_preferences where user_id = $1",
    "delete from user_presence where user_id = $1",
    "delete from blocks where blocker_id = $1 or blocked_id = $1",
    "update product_cards set owner_id = null where owner_id = $1",
    "delete from user_contacts where user_id = $1",
    "delete from emails where user_id = $1",
    "delete from email_marks where user_id = $1",
    "delete from notification_marks where user_id = $1",
];

/// A conversation of the user, as the other one sees it.
#[derive(sqlx::FromRow)]
struct Other {
    user_id: UserId,
    cleared_seq: i64,
    is_hidden: bool,
}

/// Runs one of the statements on a stretch of the user's messages:
/// `$1` the conversation, `$2` < seq <= `$3`, `$4` the user.
macro_rules! on_stretch {
    ($connection:ident, $stretch:expr, $statement:literal) => {{
        let (conversation, after, up_to, user): (i64, i64, i64, UserId) = $stretch;
        sqlx::query($statement)
            .bind(conversation)
            .bind(after)
            .bind(up_to)
            .bind(user)
            .execute(&mut *$connection)
            .await?
            .rows_affected()
    }};
}

impl Store {
    /// Deletes what is kept of the user alone.
    pub async fn erase_belongings(&self, user: UserId) -> Result<()> {
        retried(|| async {
            in_transaction!(self, connection => {
                for statement in OF_THE_USER_ALONE {
                    sqlx::query(*statement).bind(user).execute(&mut *connection).await?;
                }
            });
            Ok(())
        })
        .await
    }

    /// Turns the next stretch of the user's messages into tombstones and takes their reactions back.
    pub async fn erase_stretch(&self, job: &Job, limit: i64, leased_until: Timestamp) -> Result<Step> {
        retried(|| self.try_erase_stretch(job, limit, leased_until)).await
    }

    async fn try_erase_stretch(&self, job: &Job, limit: i64, leased_until: Timestamp) -> Result<Step> {
        let now = self.clock.now();
        let user = UserId(job.subject_id);
        Ok(in_transaction!(self, connection => {
            let conversation: Option<i64> = sqlx::query_scalar(
                "select conversation_id from conversation_participants
                 where user_id = $1 and conversation_id > $2 order by conversation_id limit 1",
            )
            .bind(user)
            .bind(job.conversation_id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(conversation) = conversation else {
                return Ok(Step { job: Some(*job), is_last: true, entries: Vec::new() });
            };
            let locked = connection.lock_conversations(&[conversation]).await?.pop();
            let last_seq = locked.map_or(0, |row| row.last_seq);
            let up_to = job.seq.saturating_add(limit).min(last_seq);
            let stretch = (conversation, job.seq, up_to, user);
            let other: Option<Other> = sqlx::query_as(
                "select user_id, cleared_seq, is_hidden from conversation_participants
                 where conversation_id = $1 and user_id <> $2",
            )
            .bind(conversation)
            .bind(user)
            .fetch_optional(&mut *connection)
            .await?;

            // What the other one is to be told: places first, they tell what is part of their history.
            let messages: Vec<(MessageId, i64, bool)> = sqlx::query_as(
                "select id, seq, is_read from messages where conversation_id = $1 and seq > $2 and seq <= $3
                     and sender_id = $4 and deleted_at is null order by seq",
            )
            .bind(conversation)
            .bind(job.seq)
            .bind(up_to)
            .bind(user)
            .fetch_all(&mut *connection)
            .await?;
            let reactions: Vec<(MessageId, i64, String)> = sqlx::query_as(
                "select m.id, m.seq, x.emoji from messages m join message_reactions x on x.message_id = m.id
                 where m.conversation_id = $1 and m.seq > $2 and m.seq <= $3 and m.has_reactions
                     and x.user_id = $4 and m.sender_id <> $4 and m.deleted_at is null order by x.id",
            )
            .bind(conversation)
            .bind(job.seq)
            .bind(up_to)
            .bind(user)
            .fetch_all(&mut *connection)
            .await?;

            on_stretch!(connection, stretch,
                "delete from message_reactions where message_id in (select id from messages
                     where conversation_id = $1 and seq > $2 and seq <= $3 and has_reactions and sender_id = $4)");
            if !reactions.is_empty() {
                on_stretch!(connection, stretch,
                    "delete from message_reactions where user_id = $4 and message_id in (select id from messages
                         where conversation_id = $1 and seq > $2 and seq <= $3 and has_reactions)");
                on_stretch!(connection, stretch,
                    "update messages set has_reactions =
                         exists (select 1 from message_reactions x where x.message_id = messages.id)
                     where conversation_id = $1 and seq > $2 and seq <= $3 and has_reactions and sender_id <> $4");
            }
            on_stretch!(connection, stretch,
                "delete from message_edits where message_id in (select id from messages
                     where conversation_id = $1 and seq > $2 and seq <= $3 and sender_id = $4)");
            // Nobody's any more: their bytes are deleted before the job is done.
            sqlx::query(
                "update attachments set message_id = null, created_at = $5 where message_id in (select id from messages
                     where conversation_id = $1 and seq > $2 and seq <= $3 and sender_id = $4)",
            )
            .bind(conversation)
            .bind(job.seq)
            .bind(up_to)
            .bind(user)
            .bind(Timestamp::EPOCH)
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "update messages set content = '', file_url = null, attachment_id = null, metadata = null, offer = null,
                     client_message_id = null, fingerprint = null, has_reactions = false,
                     updated_at = case when deleted_at is null then $5 else updated_at end,
                     deleted_at = coalesce(deleted_at, $5)
                 where conversation_id = $1 and seq > $2 and seq <= $3 and sender_id = $4
                     and (deleted_at is null or client_message_id is not null or fingerprint is not null)",
            )
            .bind(conversation)
            .bind(job.seq)
            .bind(up_to)
            .bind(user)
            .bind(now)
            .execute(&mut *connection)
            .await?;

            sqlx::query(search::DROP_CHUNKS)
                .bind(conversation)
                .bind(job.seq + 1)
                .execute(&mut *connection)
                .await?;

            let mut entries = Vec::new();
            if let Some(other) = &other {
                let entry = |kind, message_id, payload| NewEntry {
                    user_id: other.user_id,
                    kind,
                    conversation_id: ConversationId(conversation),
                    message_id,
                    payload,
                };
                for (id, ..) in messages.iter().filter(|(_, seq, _)| *seq > other.cleared_seq) {
                    entries.push(entry(EventKind::MessageDeleted, Some(*id), None));
                }
                for (id, _, emoji) in reactions.iter().filter(|(_, seq, _)| *seq > other.cleared_seq) {
                    let payload = serde_json::json!({"user_id": user, "emoji": emoji, "action": "removed"});
                    entries.push(entry(EventKind::MessageReaction, Some(*id), Some(payload.to_string())));
                }
                let unread = messages.iter().filter(|(_, seq, is_read)| !is_read && *seq > other.cleared_seq);
                let unread = i32::try_from(unread.count()).unwrap_or(i32::MAX);
                if unread > 0 {
                    sqlx::query(
                        "update conversation_participants
                         set unread_count = case when unread_count > $3 then unread_count - $3 else 0 end
                         where conversation_id = $1 and user_id = $2",
                    )
                    .bind(conversation)
                    .bind(other.user_id)
                    .bind(unread)
                    .execute(&mut *connection)
                    .await?;
                }
                // Once a conversation, and at the latest when the name is gone: asked for again, only news.
                let is_end = up_to >= last_seq;
                if is_end && !other.is_hidden && (job.round == 1 || !entries.is_empty()) {
                    entries.push(entry(EventKind::ConversationUpdated, None, None));
                }
            }
            let changed = job.changed.saturating_add(i64::try_from(messages.len()).unwrap_or(i64::MAX));
            let next = if up_to >= last_seq {
                Job { conversation_id: conversation, seq: 0, changed, ..*job }
            } else {
                Job { seq: up_to, changed, ..*job }
            };
            if advance!(connection, next, leased_until) == 0 {
                // Left early, the transaction is not committed: all of it is done again.
                return Ok(Step { job: None, is_last: false, entries: Vec::new() });
            }
            if !messages.is_empty() {
                sqlx::query("update conversations set updated_at = $2 where id = $1")
                    .bind(conversation)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
            }
            let entries = connection.append_log(entries, now).await?;
            Step { job: Some(next), is_last: false, entries }
        }))
    }

    /// Deletes some of the user's own log. Its head stays: numbers are given out once. Answers how many
    /// entries went.
    pub async fn erase_log(&self, user: UserId, limit: i64) -> Result<u64> {
        on!(self, write, pool => Ok(sqlx::query(
            "delete from user_events where user_id = $1 and event_seq in
                 (select event_seq from user_events where user_id = $1 order by event_seq limit $2)",
        )
        .bind(user)
        .bind(limit)
        .execute(pool)
        .await?
        .rows_affected()))
    }
}
