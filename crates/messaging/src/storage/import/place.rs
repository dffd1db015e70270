//! Giving messages that were read their places, a few whole conversations in one transaction; and what
//! there is to compare with the source afterwards.

use sqlx::FromRow;

use crate::{
    clock::Timestamp,
    storage::{Database, Result, Store, batch::Statements, in_transaction, on},
};

/// What a step placed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Messages that are new here.
    pub new: u64,
    /// Messages that were here and have changed there.
    pub changed: u64,
    /// There was nothing left.
    pub is_last: bool,
}

/// A stored message, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PlacedMessage {
    /// The message.
    pub id: i64,
    /// Where it is.
    pub conversation_id: i64,
    /// Who wrote it.
    pub sender_id: i64,
    /// The words.
    pub content: String,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// The other one read it.
    pub is_read: bool,
}

/// The conversations of a step: those with waiting messages between two ids.
macro_rules! waiting {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " in (select conversation_id from import_messages where conversation_id > $1 and conversation_id <= $2) ",
            $after
        )
    };
}

impl Store {
    /// Places the messages of the next conversations after one; answers the last of them too.
    pub async fn place_messages(&self, after: i64, limit: i64) -> Result<(Placed, i64)> {
        Ok(in_transaction!(self, connection => {
            let ids: Vec<i64> = sqlx::query_scalar(
                "select distinct conversation_id from import_messages where conversation_id > $1
                 order by conversation_id limit $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(&mut *connection)
            .await?;
            let Some(last) = ids.last().copied() else {
                return Ok((Placed { is_last: true, ..Placed::default() }, after));
            };
            // A service beside it may be storing there too.
            connection.lock_conversations(&ids).await?;
            let changed = sqlx::query(
                "update messages set content = s.content, deleted_at = s.deleted_at, offer = s.offer,
                     updated_at = s.updated_at,
                     is_read = messages.is_read or s.is_read, read_at = coalesce(messages.read_at, s.read_at)
                 from import_messages s
                 where s.id = messages.id and s.conversation_id > $1 and s.conversation_id <= $2
                     and (s.content <> messages.content or (s.is_read and not messages.is_read)
                         or (s.deleted_at is null) <> (messages.deleted_at is null))",
            )
            .bind(after)
            .bind(last)
            .execute(&mut *connection)
            .await?
            .rows_affected();
            if changed > 0 {
                // Search would find what they said before.
                sqlx::query(
                    "delete from search_chunks where conversation_id in (select conversation_id from import_messages
                         where conversation_id > $1 and conversation_id <= $2)",
                )
                .bind(after)
                .bind(last)
                .execute(&mut *connection)
                .await?;
            }
            let new = sqlx::query(
                "insert into messages (id, conversation_id, seq, sender_id, content, type, offer, is_read, read_at,
                     created_at, updated_at, deleted_at)
                 select s.id, s.conversation_id, c.last_seq
                         + row_number() over (partition by s.conversation_id order by s.created_at, s.id),
                     s.sender_id, s.content, s.type, s.offer, s.is_read, s.read_at, s.created_at, s.updated_at,
                     s.deleted_at
                 from import_messages s join conversations c on c.id = s.conversation_id
                 where s.conversation_id > $1 and s.conversation_id <= $2
                     and not exists (select 1 from messages m where m.id = s.id)",
            )
            .bind(after)
            .bind(last)
            .execute(&mut *connection)
            .await?
            .rows_affected();
            for statement in [
                waiting!(
                    "update conversations set last_seq =
                         coalesce((select max(m.seq) from messages m where m.conversation_id = conversations.id), 0)
                     where id", ""
                ),
                waiting!(
                    "update conversations set
                         last_message_id = (select m.id from messages m
                             where m.conversation_id = conversations.id and m.seq = conversations.last_seq),
                         last_message_at = (select m.created_at from messages m
                             where m.conversation_id = conversations.id and m.seq = conversations.last_seq)
                     where id", ""
                ),
                waiting!(
                    "update conversations set updated_at = last_message_at where id",
                    "and last_message_at > updated_at"
                ),
                // History was on the screens of the old app: as delivered as it will ever be.
                waiting!(
                    "update conversation_participants set unread_count = counted.unread,
                         read_seq = coalesce(counted.first_unread - 1, counted.last_seq),
                         delivered_seq = counted.last_seq, last_read_at = counted.last_read_at
                     from (select p.id, c.last_seq,
                             count(*) filter (where not m.is_read and m.deleted_at is null and m.seq > p.cleared_seq)
                                 as unread,
                             min(m.seq) filter (where not m.is_read) as first_unread,
                             max(m.read_at) filter (where m.is_read) as last_read_at
                         from conversation_participants p
                         join conversations c on c.id = p.conversation_id
                         left join messages m on m.conversation_id = c.id and m.sender_id <> p.user_id
                         where p.conversation_id",
                    "group by p.id, c.last_seq) counted
                     where conversation_participants.id = counted.id"
                ),
                "delete from import_messages where conversation_id > $1 and conversation_id <= $2",
            ] {
                sqlx::query(statement).bind(after).bind(last).execute(&mut *connection).await?;
            }
            (Placed { new, changed, is_last: false }, last)
        }))
    }

    /// Lets PostgreSQL look at tables that have just been filled: it plans for empty ones otherwise.
    pub async fn analyze_imported(&self) -> Result<()> {
        if let Database::Postgres { write, .. } = &self.database {
            sqlx::query("analyze conversations, conversation_participants, messages, import_messages")
                .execute(write)
                .await?;
        }
        Ok(())
    }

    /// Stored messages after an id, up to another one, by id.
    pub async fn placed_messages(&self, after: i64, up_to: i64, limit: i64) -> Result<Vec<PlacedMessage>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select id, conversation_id, sender_id, content, created_at, deleted_at, is_read from messages
             where id > $1 and id <= $2 order by id limit $3",
        )
        .bind(after)
        .bind(up_to)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }

    /// Conversations whose places have a gap, whose newest message is not the newest, or whose mark of what
    /// is read says something else than the messages.
    pub async fn misplaced_conversations(&self) -> Result<i64> {
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select count(*) from conversations c
             where c.last_seq <> (select count(*) from messages m where m.conversation_id = c.id)
                 or c.last_seq <> (select coalesce(max(m.seq), 0) from messages m where m.conversation_id = c.id)
                 or (c.last_seq > 0 and not exists (select 1 from messages m
                     where m.id = c.last_message_id and m.conversation_id = c.id and m.seq = c.last_seq))
                 or 2 <> (select count(*) from conversation_participants p where p.conversation_id = c.id)
                 or exists (select 1 from conversation_participants p join messages m
                         on m.conversation_id = p.conversation_id and m.seq <= p.read_seq
                     where p.conversation_id = c.id and m.sender_id <> p.user_id and not m.is_read
                         and m.seq > p.cleared_seq)",
        )
        .fetch_one(pool)
        .await?))
    }

    /// Messages up to an id that stand behind a later one.
    pub async fn swapped_messages(&self, up_to: i64) -> Result<i64> {
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select count(*) from (
                 select created_at, lag(created_at) over (partition by conversation_id order by seq) as before
                 from messages where id <= $1
             ) placed where created_at < before",
        )
        .bind(up_to)
        .fetch_one(pool)
        .await?))
    }
}
