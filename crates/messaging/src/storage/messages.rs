//! Reading messages, and changing one that exists. New ones come through [`super::batch`].

use std::collections::HashMap;

use super::{
    Database, IdList, Result, Store,
    rows::{ConversationRow, MessageRow},
};
use crate::ids::{ConversationId, MessageId, UserId};

/// The columns of [`MessageRow`] in its order over `messages m`, then the rest of the statement.
/// The dialects differ in how they write JSON; whether a message was delivered is said by its first argument.
macro_rules! select_messages {
    ($delivered:literal, postgres, $rest:expr) => {
        select_messages!($delivered, "json_agg(json_build_array(x.emoji, x.user_id) order by x.id)::text", $rest)
    };
    ($delivered:literal, sqlite, $rest:expr) => {
        select_messages!($delivered, "json_group_array(json_array(x.emoji, x.user_id) order by x.id)", $rest)
    };
    ($delivered:literal, $reactions:literal, $rest:expr) => {
        concat!(
            "select m.id, m.conversation_id, m.seq, m.sender_id, m.type, m.content, m.file_url, m.metadata, m.offer,
                 m.client_message_id, m.fingerprint, m.is_read, m.read_at, ", $delivered, " as is_delivered,
                 m.edited_at, m.created_at, m.updated_at, m.deleted_at,
                 case when m.has_reactions then (select ", $reactions, "
                     from message_reactions x where x.message_id = m.id) end as reactions,
                 q.id as reply_id, q.sender_id as reply_sender_id, q.type as reply_type, q.content as reply_content,
                 a.id as attachment_id, a.name as attachment_name, a.mime_type as attachment_mime_type,
                 a.size as attachment_size, a.width as attachment_width, a.height as attachment_height,
                 a.thumbnail_key as attachment_thumbnail_key
             from messages m
             left join messages q on q.id = m.reply_to_id
             left join attachments a on a.id = m.attachment_id ",
            $rest
        )
    };
}

/// [`select_messages`] for messages of any conversations.
macro_rules! select_any_messages {
    ($dialect:ident, $rest:expr) => {
        select_messages!(
            "exists (select 1 from conversation_participants r where r.conversation_id = m.conversation_id
                 and r.user_id <> m.sender_id and r.delivered_seq >= m.seq)",
            $dialect,
            $rest
        )
    };
}

/// [`select_messages`] of conversation `$1` with `$2 < seq <= $3`, at most `$4`; what user `$5` wrote is
/// delivered up to `$6` and what the other one wrote up to `$7`.
macro_rules! select_stretch {
    ($dialect:ident, $order:literal) => {
        select_messages!(
            "m.seq <= case when m.sender_id = $5 then cast($6 as bigint) else cast($7 as bigint) end",
            $dialect,
            concat!(
                "where m.conversation_id = $1 and m.seq > $2 and m.seq <= $3 order by m.seq ",
                $order,
                " limit $4"
            )
        )
    };
}

/// Which stretch of a conversation to read. All are answered oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// Pages counted from the newest, the first being 0.
    Page(i64),
    /// The newest before a place.
    Before(i64),
    /// The oldest after a place.
    After(i64),
    /// Half before and half from a place on.
    Around(i64),
}

impl Store {
    /// A stretch of a conversation's messages that the user may see, oldest first.
    pub async fn messages(
        &self,
        seen: &ConversationRow,
        window: Window,
        limit: i64,
    ) -> Result<Vec<MessageRow>> {
        let cleared_seq = seen.cleared_seq;
        match window {
            Window::Page(page) => {
                // seq has no gaps: a page is a stretch of it, found without counting rows.
                let end = seen.last_seq.saturating_sub(page.saturating_mul(limit));
                let start = end.saturating_sub(limit).max(cleared_seq);
                self.stretch(seen, start, end, limit, true).await
            }
            Window::Before(seq) => self.stretch(seen, cleared_seq, seq.saturating_sub(1), limit, true).await,
            Window::After(seq) => self.stretch(seen, cleared_seq.max(seq), i64::MAX, limit, false).await,
            Window::Around(seq) => {
                let half = limit / 2;
                let start = seq.saturating_sub(half).saturating_sub(1).max(cleared_seq);
                self.stretch(seen, start, i64::MAX, limit, false).await
            }
        }
    }

    /// Messages with `start < seq <= end`: the newest or the oldest `limit` of them, oldest first.
    async fn stretch(
        &self,
        seen: &ConversationRow,
        start: i64,
        end: i64,
        limit: i64,
        newest: bool,
    ) -> Result<Vec<MessageRow>> {
        macro_rules! read {
            ($pool:expr, $dialect:ident) => {{
                let newest_first = select_stretch!($dialect, "desc");
                let oldest_first = select_stretch!($dialect, "");
                sqlx::query_as(if newest { newest_first } else { oldest_first })
                    .bind(seen.id)
                    .bind(start)
                    .bind(end)
                    .bind(limit)
                    .bind(seen.user_id)
                    .bind(seen.other_delivered_seq)
                    .bind(seen.delivered_seq)
                    .fetch_all($pool)
                    .await?
            }};
        }
        let mut rows: Vec<MessageRow> = match &self.database {
            Database::Postgres { read, .. } => read!(read, postgres),
            Database::Sqlite { read, .. } => read!(read, sqlite),
        };
        if newest {
            rows.reverse();
        }
        Ok(rows)
    }

    /// Messages by id, in no particular order; unknown ids are left out.
    pub async fn messages_by_id(&self, ids: &[MessageId]) -> Result<HashMap<MessageId, MessageRow>> {
        let ids = IdList(ids.iter().map(|id| id.0).collect());
        let rows: Vec<MessageRow> = match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(select_any_messages!(postgres, "where m.id = any($1)"))
                    .bind(ids)
                    .fetch_all(read)
                    .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(select_any_messages!(
                    sqlite,
                    "where m.id in (select value from json_each($1))"
                ))
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        };
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }

    /// One message.
    pub async fn message(&self, id: MessageId) -> Result<Option<MessageRow>> {
        Ok(self.messages_by_id(&[id]).await?.remove(&id))
    }

    /// Messages after a place for a user's export: those that they see, and all of their own; oldest first.
    pub async fn messages_to_export(
        &self,
        conversation: ConversationId,
        user: UserId,
        cleared_seq: i64,
        after: i64,
        limit: i64,
    ) -> Result<Vec<MessageRow>> {
        macro_rules! read {
            ($pool:expr, $dialect:ident) => {
                sqlx::query_as(select_any_messages!(
                    $dialect,
                    "where m.conversation_id = $1 and m.seq > $2 and (m.seq > $3 or m.sender_id = $4)
                     order by m.seq limit $5"
                ))
                .bind(conversation)
                .bind(after)
                .bind(cleared_seq)
                .bind(user)
                .bind(limit)
                .fetch_all($pool)
                .await?
            };
        }
        Ok(match &self.database {
            Database::Postgres { read, .. } => read!(read, postgres),
            Database::Sqlite { read, .. } => read!(read, sqlite),
        })
    }

    /// The messages that show an offer, oldest first, at most `limit` of them.
    pub async fn messages_of_offer(&self, offer: i64, limit: i64) -> Result<Vec<MessageId>> {
        // In the words of the index.
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_scalar(
                    "select id from messages where offer is not null and (offer::jsonb ->> 'id')::bigint = $1
                     order by id limit $2",
                )
                .bind(offer)
                .bind(limit)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_scalar(
                    "select id from messages where offer is not null and offer ->> '$.id' = $1
                     order by id limit $2",
                )
                .bind(offer)
                .bind(limit)
                .fetch_all(read)
                .await?
            }
        })
    }
}
