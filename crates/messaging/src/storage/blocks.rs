//! Who blocks whom.

use sqlx::FromRow;

use super::{
    Decided, Result, Store,
    batch::Statements,
    in_transaction,
    log::{Entry, EventKind, NewEntry},
    on, retried,
    webhooks::NewWebhook,
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::{ConversationId, UserId},
};

/// The list of blocks is answered whole, so it must end somewhere.
pub const MAX_BLOCKS: i64 = 1000;

/// Somebody whom a user blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct BlockRow {
    /// Whom.
    #[sqlx(rename = "blocked_id")]
    pub user_id: UserId,
    /// Since when.
    pub created_at: Timestamp,
}

impl Store {
    /// Blocks a user, or ends that. Answers what was appended to the blocker's log: an entry for each
    /// conversation of the two that the blocker has not deleted, nothing if it was so before.
    pub async fn set_block(&self, blocker: UserId, other: UserId, blocks: bool) -> Decided<Vec<Entry>> {
        retried(|| self.try_set_block(blocker, other, blocks)).await
    }

    async fn try_set_block(&self, blocker: UserId, other: UserId, blocks: bool) -> Decided<Vec<Entry>> {
        let now = self.clock.now();
        let decided = Ok(in_transaction!(self, connection => {
            let shared: Vec<(ConversationId, bool)> = sqlx::query_as(
                "select c.id, p.is_hidden from conversations c
                 join conversation_participants p on p.conversation_id = c.id and p.user_id = $3
                 where c.user1_id = $1 and c.user2_id = $2 order by c.id",
            )
            .bind(blocker.min(other))
            .bind(blocker.max(other))
            .bind(blocker)
            .fetch_all(&mut *connection)
            .await?;
            let ids: Vec<i64> = shared.iter().map(|(id, _)| id.0).collect();
            if !ids.is_empty() {
                // Messages under way are stored before the block or refused by it.
                connection.lock_conversations(&ids).await?;
            }
            let changed = if blocks {
                let count: i64 = sqlx::query_scalar(
                    "select count(*) from blocks where blocker_id = $1 and blocked_id <> $2",
                )
                .bind(blocker)
                .bind(other)
                .fetch_one(&mut *connection)
                .await?;
                if count >= MAX_BLOCKS {
                    return Ok(Err(Error::Conflict("You have blocked too many users; unblock one first.".into())));
                }
                sqlx::query(
                    "insert into blocks (blocker_id, blocked_id, created_at) values ($1, $2, $3)
                     on conflict do nothing",
                )
                .bind(blocker)
                .bind(other)
                .bind(now)
                .execute(&mut *connection)
                .await?
                .rows_affected()
            } else {
                sqlx::query("delete from blocks where blocker_id = $1 and blocked_id = $2")
                    .bind(blocker)
                    .bind(other)
                    .execute(&mut *connection)
                    .await?
                    .rows_affected()
            };
            if changed == 0 {
                return Ok(Ok(Vec::new()));
            }
            let entries = shared
                .into_iter()
                .filter(|(_, is_hidden)| !is_hidden)
                .map(|(conversation_id, _)| NewEntry {
                    user_id: blocker,
                    kind: EventKind::ConversationUpdated,
                    conversation_id,
                    message_id: None,
                    payload: None,
                })
                .collect();
            if let Some(outbox) = &self.outbox {
                outbox.write(connection, vec![NewWebhook::of_block(blocker, other, blocks)], now).await?;
            }
            connection.append_log(entries, now).await.map(Ok)?
        }));
        if let Some(outbox) = &self.outbox {
            outbox.written();
        }
        decided
    }

    /// Whom a user blocks, the latest first.
    pub async fn list_blocks(&self, blocker: UserId) -> Result<Vec<BlockRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select blocked_id, created_at from blocks where blocker_id = $1
             order by created_at desc, blocked_id desc",
        )
        .bind(blocker)
        .fetch_all(pool)
        .await?))
    }
}
