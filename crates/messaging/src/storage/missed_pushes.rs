//! What the sweeper of pushes asks: which messages nobody was pushed though their time is over.
//!
//! It walks the messages by id from its place ([`super::sweeps`]), each once, so that what it costs depends on
//! what was sent lately and not on how much is unread. Pushes that were claimed and never settled are found
//! by an index that has only those.

use super::{Database, Result, Store, on};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
};

/// A stretch of messages that were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Who may have to be pushed of what.
    pub found: Vec<(UserId, ConversationId)>,
    /// Up to which message; the place to go on from.
    pub up_to: i64,
    /// There was nothing to look at but what is too young.
    pub is_done: bool,
}

impl Store {
    /// Looks at up to `limit` messages after `after` that were sent before `until`. Unread ones sent
    /// after `since` of which nothing was pushed to somebody who has a device are found.
    pub async fn sweep_messages(
        &self,
        after: i64,
        since: Timestamp,
        until: Timestamp,
        limit: i64,
    ) -> Result<Swept> {
        // Ids are given out before the commit: one that is younger than `until` may have older ones
        // beyond it, so the walk ends before the first young one.
        let (up_to, looked): (Option<i64>, i64) = on!(self, read, pool => sqlx::query_as(
            "with looked as (select id, created_at from messages where id > $1 order by id limit $3)
             select max(id), count(*) from looked
             where id < coalesce((select min(id) from looked where created_at > $2), 9223372036854775807)",
        )
        .bind(after)
        .bind(until)
        .bind(limit)
        .fetch_one(pool)
        .await?);
        let Some(up_to) = up_to else { return Ok(Swept { found: Vec::new(), up_to: after, is_done: true }) };
        macro_rules! find {
            ($recipient:literal) => {
                concat!(
                    "select distinct p.user_id, p.conversation_id from messages m ",
                    $recipient,
                    " left join notification_marks k
                          on k.user_id = p.user_id and k.conversation_id = p.conversation_id
                      where m.id > $1 and m.id <= $2 and m.created_at > $3
                          and not m.is_read and m.deleted_at is null
                          and m.seq > p.read_seq and m.seq > p.cleared_seq
                          and coalesce(k.pushed_seq, 0) < m.seq
                          and exists (select 1 from devices d where d.user_id = p.user_id)"
                )
            };
        }
        let found = match &self.database {
            // One look into the index for each message: left to itself the planner reads through all
            // participants that there are.
            Database::Postgres { read, .. } => {
                sqlx::query_as(find!(
                    "cross join lateral (select * from conversation_participants q
                         where q.conversation_id = m.conversation_id and q.user_id <> m.sender_id limit 1) p"
                ))
                .bind(after)
                .bind(up_to)
                .bind(since)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(find!(
                    "join conversation_participants p
                         on p.conversation_id = m.conversation_id and p.user_id <> m.sender_id"
                ))
                .bind(after)
                .bind(up_to)
                .bind(since)
                .fetch_all(read)
                .await?
            }
        };
        Ok(Swept { found, up_to, is_done: looked < limit })
    }

    /// Pushes that were claimed before `before` and never settled.
    pub async fn lapsed_claims(
        &self,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(UserId, ConversationId)>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select user_id, conversation_id from notification_marks
             where claimed_at is not null and claimed_at <= $1 order by claimed_at limit $2",
        )
        .bind(before)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }
}
