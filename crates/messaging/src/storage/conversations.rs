//! Conversations as their users see them, and what one user changes of them for themselves.

use super::{
    Database, IdList, Result, Store, on,
    rows::{ConversationRow, Participants},
};
use crate::ids::{ConversationId, ProductId, UserId};

/// The columns of [`ConversationRow`] for the participant `p`, then the rest of the statement.
macro_rules! select_conversations {
    ($rest:literal) => {
        concat!(
            "select c.id, p.user_id, o.user_id as other_user_id, c.product_id, p.unread_count, c.last_message_at,
                 p.is_archived, p.is_muted, p.muted_until, p.is_hidden, c.last_seq, p.cleared_seq, p.delivered_seq,
                 o.delivered_seq as other_delivered_seq,
                 coalesce((select h.last_seq from user_log_heads h where h.user_id = p.user_id), 0) as event_seq,
                 c.created_at, c.updated_at,
                 exists (select 1 from blocks b where b.blocker_id = p.user_id and b.blocked_id = o.user_id)
                     as is_blocked,
                 exists (select 1 from blocks b where b.blocker_id = o.user_id and b.blocked_id = p.user_id)
                     as is_blocked_by_other,
                 s.last_seen as other_last_seen, coalesce(s.is_private, false) as other_is_private,
                 m.id as message_id, m.content as message_content, m.type as message_type,
                 m.sender_id as message_sender_id, m.is_read as message_is_read,
                 case when m.sender_id = p.user_id then o.delivered_seq else p.delivered_seq end >= m.seq
                     as message_is_delivered,
                 m.created_at as message_created_at, m.deleted_at as message_deleted_at
             from conversation_participants p
             join conversations c on c.id = p.conversation_id
             join conversation_participants o on o.conversation_id = p.conversation_id and o.user_id <> p.user_id
             left join user_presence s on s.user_id = o.user_id
             left join messages m on m.id = c.last_message_id and m.seq > p.cleared_seq ",
            $rest
        )
    };
}

impl Store {
    /// A page of a user's list, newest activity first.
    pub async fn conversations(
        &self,
        user: UserId,
        archived: bool,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<ConversationRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_conversations!(
            "where p.user_id = $1 and p.is_archived = $2 and not p.is_hidden
             order by c.last_message_at desc nulls last, c.id desc limit $3 offset $4"
        ))
        .bind(user)
        .bind(archived)
        .bind(limit)
        .bind(offset)
        .fetch_all(pool)
        .await?))
    }

    /// A user's conversations after one of them, all there are, by id.
    pub async fn conversations_after(
        &self,
        user: UserId,
        after: ConversationId,
        limit: i64,
    ) -> Result<Vec<ConversationRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_conversations!(
            "where p.user_id = $1 and p.conversation_id > $2 order by p.conversation_id limit $3"
        ))
        .bind(user)
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }

    /// How long that list is.
    pub async fn count_conversations(&self, user: UserId, archived: bool) -> Result<i64> {
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select count(*) from conversation_participants
             where user_id = $1 and is_archived = $2 and not is_hidden",
        )
        .bind(user)
        .bind(archived)
        .fetch_one(pool)
        .await?))
    }

    /// One conversation as `user` sees it; `None` if they take no part in it.
    pub async fn conversation(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(select_conversations!(
            "where p.user_id = $1 and p.conversation_id = $2"
        ))
        .bind(user)
        .bind(id)
        .fetch_optional(pool)
        .await?))
    }

    /// Many conversations, each as one user sees it.
    pub async fn conversation_views(
        &self,
        wanted: &[(UserId, ConversationId)],
    ) -> Result<Vec<ConversationRow>> {
        Ok(match &self.database {
            Database::Postgres { read, .. } => sqlx::query_as(select_conversations!(
                "where (p.conversation_id, p.user_id) in (select * from unnest($1::bigint[], $2::bigint[]))"
            ))
            .bind(wanted.iter().map(|(_, conversation)| conversation.0).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(user, _)| user.0).collect::<Vec<_>>())
            .fetch_all(read)
            .await?,
            Database::Sqlite { read, .. } => {
                sqlx::query_as(select_conversations!(
                    "where (p.conversation_id, p.user_id) in
                         (select value ->> '$[1]', value ->> '$[0]' from json_each($1))"
                ))
                .bind(serde_json::json!(wanted).to_string())
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Who takes part in a conversation and who blocks whom; `None` if there is no such conversation.
    pub async fn participants(&self, id: ConversationId) -> Result<Option<Participants>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select c.id, c.user1_id, c.user2_id, c.last_seq,
                 exists (select 1 from blocks b where b.blocker_id = c.user1_id and b.blocked_id = c.user2_id)
                     as user1_blocks,
                 exists (select 1 from blocks b where b.blocker_id = c.user2_id and b.blocked_id = c.user1_id)
                     as user2_blocks
             from conversations c where c.id = $1",
        )
        .bind(id)
        .fetch_optional(pool)
        .await?))
    }

    /// The conversation of two users about a product, or about none.
    pub async fn find_conversation(
        &self,
        one: UserId,
        other: UserId,
        product: Option<ProductId>,
    ) -> Result<Option<ConversationId>> {
        let (user1, user2) = (one.min(other), one.max(other));
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select id from conversations
             where user1_id = $1 and user2_id = $2 and coalesce(product_id, 0) = coalesce($3, 0)",
        )
        .bind(user1)
        .bind(user2)
        .bind(product)
        .fetch_optional(pool)
        .await?))
    }

    /// All unread messages of each user, archived and muted conversations too; 0 where there are none.
    pub async fn unread_counts(&self, users: &[UserId]) -> Result<Vec<(UserId, i64)>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        let counted: Vec<(UserId, i64)> = match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(
                    "select u.id, coalesce(sum(p.unread_count), 0)::bigint
                     from unnest($1::bigint[]) as u (id)
                     left join conversation_participants p on p.user_id = u.id group by u.id",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select u.value, coalesce(sum(p.unread_count), 0)
                     from json_each($1) u left join conversation_participants p on p.user_id = u.value
                     group by u.value",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        };
        Ok(counted)
    }
}
