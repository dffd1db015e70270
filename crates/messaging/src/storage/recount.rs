//! Counting unread messages again: what a counter says against what the messages say.

use sqlx::FromRow;

use super::{Result, Store, batch::Statements, in_transaction, on};
use crate::ids::{ConversationId, UserId};

/// A stretch of counters that were counted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recounted {
    /// How many.
    pub checked: usize,
    /// Whose counters of which conversation are wrong.
    pub drifted: Vec<(ConversationId, UserId)>,
    /// Where to go on; `None` at the end.
    pub next: Option<i64>,
}

#[derive(Debug, FromRow)]
struct CounterRow {
    id: i64,
    conversation_id: ConversationId,
    user_id: UserId,
    unread_count: i64,
    counted: i64,
}

/// Messages of the other one that participant `p` may see and has not read, nor can any more once deleted.
macro_rules! count_unread {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "(select count(*) from messages m where m.conversation_id = p.conversation_id
                 and m.seq > p.cleared_seq and m.sender_id <> p.user_id and not m.is_read
                 and m.deleted_at is null)",
            $after
        )
    };
}

impl Store {
    /// Counts again the counters after a place, at most `limit` of them. One statement sees counters
    /// and messages at one moment, so nothing needs a lock.
    pub async fn recount_unread(&self, after: i64, limit: i64) -> Result<Recounted> {
        let rows: Vec<CounterRow> = on!(self, read, pool => sqlx::query_as(count_unread!(
            "select p.id, p.conversation_id, p.user_id, cast(p.unread_count as bigint) as unread_count, ",
            " as counted from conversation_participants p where p.id > $1 order by p.id limit $2"
        ))
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await?);
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
        Ok(Recounted {
            checked: rows.len(),
            next: rows.last().filter(|_| is_full).map(|row| row.id),
            drifted: rows
                .iter()
                .filter(|row| row.unread_count != row.counted)
                .map(|row| (row.conversation_id, row.user_id))
                .collect(),
        })
    }

    /// Sets a counter to what a recount under the conversation's lock says. Answers what it said before
    /// and says now; `None` if it was right by then.
    pub async fn repair_unread(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<(i64, i64)>> {
        Ok(in_transaction!(self, connection => {
            connection.lock_conversations(&[conversation.0]).await?;
            let row: Option<CounterRow> = sqlx::query_as(count_unread!(
                "select p.id, p.conversation_id, p.user_id, cast(p.unread_count as bigint) as unread_count, ",
                " as counted from conversation_participants p where p.conversation_id = $1 and p.user_id = $2"
            ))
            .bind(conversation)
            .bind(user)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row.filter(|row| row.unread_count != row.counted) else { return Ok(None) };
            // The mark of what is read goes back too: what lies before it can never be marked as read.
            sqlx::query(
                "update conversation_participants
                 set unread_count = $2, read_seq = case when $2 > 0 then cleared_seq else read_seq end
                 where id = $1",
            )
            .bind(row.id)
            .bind(i32::try_from(row.counted).unwrap_or(i32::MAX))
            .execute(&mut *connection)
            .await?;
            Some((row.unread_count, row.counted))
        }))
    }
}
