//! Bringing the main API's history in: its tables are read in `source`, a page by id at a time; what was
//! read waits in `import_messages` until its conversation is placed as a whole (`place`).
//!
//! Every step is one transaction that also notes how far it came, so that `kill -9` at any moment loses a
//! page at most. Ids are kept, and those that the service gives out are moved past them first, so that
//! nothing here meets what a service beside it stores.

mod lock;
mod place;
mod source;

pub use lock::ImportLock;
pub use place::{Placed, PlacedMessage};
pub use source::{Source, SourceConversation, SourceMessage};

use std::collections::HashMap;

use super::{Database, Result, Store, in_transaction, on};
use crate::ids::{ConversationId, UserId};

/// Ids left free above the source's newest: what it stores while both are in use must not meet what is
/// stored here.
const ROOM: i64 = 1_000_000;

/// What an import has to say of itself by name, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It may be told from messages that were written here.
    Begun,
    /// Conversations up to this id are here.
    Conversations,
    /// Messages up to this id were read.
    Messages,
    /// When the run began that is not completed yet, in milliseconds since the Unix epoch.
    Started,
    /// When the last run began that was completed.
    Completed,
}

impl Mark {
    const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::Started => "started",
            Self::Completed => "completed",
        }
    }
}

/// A message as it will be stored, but for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedMessage {
    /// The source's id, which is kept.
    pub id: i64,
    /// Where it goes.
    pub conversation_id: i64,
    /// One of the two.
    pub sender_id: i64,
    /// The words as they are there.
    pub content: String,
    /// `text` or `offer`.
    pub kind: &'static str,
    /// JSON text.
    pub offer: Option<String>,
    /// The other one read it.
    pub is_read: bool,
    /// When; milliseconds, as all times here.
    pub read_at: Option<i64>,
    /// When it was sent.
    pub created_at: i64,
    /// When it last changed.
    pub updated_at: i64,
    /// When it was deleted.
    pub deleted_at: Option<i64>,
}

/// A conversation of the source, here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Ours.
    pub conversation_id: i64,
    /// Who takes part.
    pub users: [i64; 2],
}

impl Store {
    /// What was noted last, if anything was.
    pub async fn import_mark(&self, mark: Mark) -> Result<Option<i64>> {
        Ok(on!(self, read, pool => sqlx::query_scalar("select value from import_progress where name = $1")
            .bind(mark.name())
            .fetch_optional(pool)
            .await?))
    }

    /// Notes something.
    pub async fn set_import_mark(&self, mark: Mark, value: i64) -> Result<()> {
        on!(self, write, pool => sqlx::query(SET_MARK).bind(mark.name()).bind(value).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// Forgets something that was noted.
    pub async fn clear_import_mark(&self, mark: Mark) -> Result<()> {
        on!(self, write, pool => sqlx::query("delete from import_progress where name = $1")
            .bind(mark.name())
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Begins, or goes on: moves the service's own ids past those of the source. `false` if there are
    /// conversations here that no import brought.
    pub async fn begin_import(&self, last_conversation: i64, last_message: i64) -> Result<bool> {
        let is_postgres = matches!(self.database, Database::Postgres { .. });
        Ok(in_transaction!(self, connection => {
            let begun: Option<i64> = sqlx::query_scalar("select value from import_progress where name = $1")
                .bind(Mark::Begun.name())
                .fetch_optional(&mut *connection)
                .await?;
            if begun.is_none() {
                let own: i64 = sqlx::query_scalar(
                    "select count(*) from (select 1 as one from conversations limit 1) some_conversation",
                )
                .fetch_one(&mut *connection)
                .await?;
                if own > 0 {
                    return Ok(false);
                }
                sqlx::query(SET_MARK).bind(Mark::Begun.name()).bind(1_i64).execute(&mut *connection).await?;
            }
            for (table, sequence, last) in [
                ("conversations", "conversations_id_seq", last_conversation),
                ("messages", "messages_id_seq", last_message),
            ] {
                let first_free = last.saturating_add(ROOM);
                if is_postgres {
                    sqlx::query(
                        "select setval($1::text::regclass, greatest($2::bigint, nextval($1::text::regclass)))",
                    )
                    .bind(sequence)
                    .bind(first_free)
                    .execute(&mut *connection)
                    .await?;
                } else {
                    let moved = sqlx::query("update sqlite_sequence set seq = max(seq, $2) where name = $1")
                        .bind(table)
                        .bind(first_free)
                        .execute(&mut *connection)
                        .await?
                        .rows_affected();
                    if moved == 0 {
                        sqlx::query("insert into sqlite_sequence (name, seq) values ($1, $2)")
                            .bind(table)
                            .bind(first_free)
                            .execute(&mut *connection)
                            .await?;
                    }
                }
            }
            true
        }))
    }

    /// Stores conversations of the source, those of one pair and product as one; notes the last id.
    /// All have two different users, the smaller id first.
    pub async fn import_conversations(&self, rows: &[SourceConversation], last_id: i64) -> Result<()> {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let [user1, user2] = row.pair().unwrap_or_default();
                let created_at = row.created_at.unwrap_or_default();
                (
                    row.id,
                    user1,
                    user2,
                    row.product_id,
                    created_at,
                    row.updated_at.unwrap_or(created_at),
                    row.last_message_at,
                )
            })
            .collect();
        let rows = serde_json::json!(rows).to_string();
        let [conversations, mapping, participants] = match &self.database {
            Database::Postgres { .. } => [
                "insert into conversations (id, user1_id, user2_id, product_id, created_at, updated_at, last_message_at)
                 select (r ->> 0)::bigint, (r ->> 1)::bigint, (r ->> 2)::bigint, (r ->> 3)::bigint,
                     to_timestamp((r ->> 4)::bigint / 1000.0), to_timestamp((r ->> 5)::bigint / 1000.0),
                     to_timestamp((r ->> 6)::bigint / 1000.0)
                 from jsonb_array_elements($1::jsonb) r order by (r ->> 0)::bigint
                 on conflict do nothing",
                "insert into import_conversations (source_id, conversation_id)
                 select (r ->> 0)::bigint, c.id from jsonb_array_elements($1::jsonb) r
                 join conversations c on c.user1_id = (r ->> 1)::bigint and c.user2_id = (r ->> 2)::bigint
                     and c.product_id is not distinct from (r ->> 3)::bigint
                 on conflict do nothing",
                "insert into conversation_participants (conversation_id, user_id, created_at)
                 select c.id, u.user_id, c.created_at from jsonb_array_elements($1::jsonb) r
                 join import_conversations i on i.source_id = (r ->> 0)::bigint
                 join conversations c on c.id = i.conversation_id
                 cross join lateral (values (c.user1_id), (c.user2_id)) as u (user_id)
                 on conflict do nothing",
            ],
            Database::Sqlite { .. } => [
                "insert into conversations (id, user1_id, user2_id, product_id, created_at, updated_at, last_message_at)
                 select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', value ->> '$[4]',
                     value ->> '$[5]', value ->> '$[6]'
                 from json_each($1) where true order by value ->> '$[0]'
                 on conflict do nothing",
                "insert into import_conversations (source_id, conversation_id)
                 select r.value ->> '$[0]', c.id from json_each($1) r
                 join conversations c on c.user1_id = r.value ->> '$[1]' and c.user2_id = r.value ->> '$[2]'
                     and coalesce(c.product_id, 0) = coalesce(r.value ->> '$[3]', 0)
                 where true on conflict do nothing",
                "insert into conversation_participants (conversation_id, user_id, created_at)
                 select c.id, u.value, c.created_at from json_each($1) r
                 join import_conversations i on i.source_id = r.value ->> '$[0]'
                 join conversations c on c.id = i.conversation_id
                 join json_each(json_array(c.user1_id, c.user2_id)) u
                 where true on conflict do nothing",
            ],
        };
        in_transaction!(self, connection => {
            for statement in [conversations, mapping, participants] {
                sqlx::query(statement).bind(&rows).execute(&mut *connection).await?;
            }
            sqlx::query(SET_MARK)
                .bind(Mark::Conversations.name())
                .bind(last_id)
                .execute(&mut *connection)
                .await?;
        });
        Ok(())
    }

    /// Which conversation each of the source's became.
    pub async fn imported_conversations(&self) -> Result<HashMap<i64, Mapped>> {
        let rows: Vec<(i64, ConversationId, UserId, UserId)> = on!(self, read, pool => sqlx::query_as(
            "select i.source_id, c.id, c.user1_id, c.user2_id from import_conversations i
             join conversations c on c.id = i.conversation_id",
        )
        .fetch_all(pool)
        .await?);
        Ok(rows
            .into_iter()
            .map(|(source, id, one, other)| {
                (source, Mapped { conversation_id: id.0, users: [one.0, other.0] })
            })
            .collect())
    }

    /// Keeps messages until their conversation is placed; notes the last id, if it went further.
    pub async fn stage_messages(&self, rows: &[StagedMessage], last_id: Option<i64>) -> Result<()> {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    (
                        row.id,
                        row.conversation_id,
                        row.sender_id,
                        &row.content,
                        row.kind,
                        &row.offer,
                        row.is_read,
                    ),
                    (row.read_at, row.created_at, row.updated_at, row.deleted_at),
                )
            })
            .map(|(first, second)| {
                let mut values = serde_json::json!(first);
                if let (Some(values), serde_json::Value::Array(more)) =
                    (values.as_array_mut(), serde_json::json!(second))
                {
                    values.extend(more);
                }
                values
            })
            .collect();
        let rows = serde_json::Value::Array(rows).to_string();
        let statement = match &self.database {
            Database::Postgres { .. } => {
                "insert into import_messages (id, conversation_id, sender_id, content, type, offer, is_read, read_at,
                     created_at, updated_at, deleted_at)
                 select (r ->> 0)::bigint, (r ->> 1)::bigint, (r ->> 2)::bigint, r ->> 3, r ->> 4, r ->> 5,
                     (r ->> 6)::boolean, to_timestamp((r ->> 7)::bigint / 1000.0),
                     to_timestamp((r ->> 8)::bigint / 1000.0), to_timestamp((r ->> 9)::bigint / 1000.0),
                     to_timestamp((r ->> 10)::bigint / 1000.0)
                 from jsonb_array_elements($1::jsonb) r
                 on conflict (id) do update set content = excluded.content, is_read = excluded.is_read,
                     read_at = excluded.read_at, updated_at = excluded.updated_at, deleted_at = excluded.deleted_at,
                     offer = excluded.offer"
            }
            Database::Sqlite { .. } => {
                "insert into import_messages (id, conversation_id, sender_id, content, type, offer, is_read, read_at,
                     created_at, updated_at, deleted_at)
                 select value ->> '$[0]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', value ->> '$[4]',
                     value ->> '$[5]', value ->> '$[6]', value ->> '$[7]', value ->> '$[8]', value ->> '$[9]',
                     value ->> '$[10]'
                 from json_each($1) where true
                 on conflict (id) do update set content = excluded.content, is_read = excluded.is_read,
                     read_at = excluded.read_at, updated_at = excluded.updated_at, deleted_at = excluded.deleted_at,
                     offer = excluded.offer"
            }
        };
        in_transaction!(self, connection => {
            sqlx::query(statement).bind(&rows).execute(&mut *connection).await?;
            if let Some(last_id) = last_id {
                sqlx::query(SET_MARK)
                    .bind(Mark::Messages.name())
                    .bind(last_id)
                    .execute(&mut *connection)
                    .await?;
            }
        });
        Ok(())
    }
}

const SET_MARK: &str = "insert into import_progress (name, value) values ($1, $2)
     on conflict (name) do update set value = excluded.value";
