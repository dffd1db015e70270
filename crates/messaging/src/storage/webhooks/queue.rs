//! The queue of deliveries: claimed by any node, settled with what became of them, given up, replayed.
//!
//! A claim moves the time at which a delivery is due to the end of a lease, so that a node that dies
//! needs no cleaning up: its deliveries are due again by themselves. The number of attempts tells a
//! late outcome of a lapsed claim from the one that counts.

use std::collections::HashMap;

use sqlx::FromRow;

use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, ProductId, UserId},
    storage::{Database, IdList, Result, Store, in_transaction, on, retried},
};

/// An event on its way to one target.
#[derive(Debug, Clone, FromRow)]
pub struct DeliveryRow {
    /// The delivery.
    pub id: i64,
    /// The event, the same at every attempt.
    pub event_id: String,
    /// What happened; a newer version may write what this one does not know.
    pub event: String,
    /// Where.
    pub conversation_id: Option<ConversationId>,
    /// The message it is about.
    pub message_id: Option<MessageId>,
    /// What no other table has, JSON text.
    pub payload: Option<String>,
    /// Attempts, the one of this claim included.
    pub attempts: i32,
    /// When it happened.
    pub created_at: Timestamp,
}

/// A delivery that was given up.
#[derive(Debug, Clone, FromRow)]
pub struct DeadRow {
    /// The delivery.
    pub id: i64,
    /// The event.
    pub event_id: String,
    /// What happened.
    pub event: String,
    /// Where it was to go.
    pub target: String,
    /// Where it happened.
    pub conversation_id: Option<ConversationId>,
    /// The message it is about.
    pub message_id: Option<MessageId>,
    /// How often it was tried.
    pub attempts: i32,
    /// What became of the last attempt.
    pub last_error: Option<String>,
    /// When it happened.
    pub created_at: Timestamp,
    /// When it was given up.
    pub dead_at: Timestamp,
}

/// How much waits and how much was given up, each counted to a hundred thousand at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Deliveries that wait for an attempt, or for its outcome.
    pub pending: i64,
    /// Dead letters.
    pub dead: i64,
}

/// What became of the wish to replay one dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It waits again.
    Queued,
    /// There is none of this id.
    Unknown,
    /// Its target is not configured any more.
    NoTarget,
}

/// Past so many an exact number helps nobody.
const COUNTED_UP_TO: i64 = 100_000;
/// Rows changed in one transaction: short enough not to hold up a commit.
const CHUNK: i64 = 1000;

/// Repeats a change of at most [`CHUNK`] rows until there are none left; answers how many there were.
macro_rules! all_of {
    ($rows_affected:expr) => {{
        let mut changed = 0;
        loop {
            let rows: u64 = $rows_affected;
            changed += rows;
            if rows < CHUNK.unsigned_abs() {
                break changed;
            }
        }
    }};
}

impl Store {
    /// The same store, which from now on also writes events for the targets of webhooks.
    pub fn with_outbox(mut self, outbox: std::sync::Arc<super::Outbox>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// What is written for webhooks, if any are configured.
    pub fn outbox(&self) -> Option<&std::sync::Arc<super::Outbox>> {
        self.outbox.as_ref()
    }

    /// Takes deliveries that are due, oldest first; nobody else gets them before the lease is over.
    pub async fn claim_webhooks(
        &self,
        target: &str,
        limit: i64,
        lease: std::time::Duration,
    ) -> Result<Vec<DeliveryRow>> {
        let now = self.clock.now();
        let lapses = now.plus(lease);
        let mut rows: Vec<DeliveryRow> = match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query_as(
                    "with due as (
                         select id from webhook_deliveries where target = $1 and due_at <= $2
                         order by due_at, id limit $3 for update skip locked
                     )
                     update webhook_deliveries d set due_at = $4, attempts = d.attempts + 1
                     from due where d.id = due.id
                     returning d.id, d.event_id, d.event, d.conversation_id, d.message_id, d.payload, d.attempts,
                         d.created_at",
                )
                .bind(target)
                .bind(now)
                .bind(limit)
                .bind(lapses)
                .fetch_all(write)
                .await?
            }
            // No lock to skip: the statement is the only writer.
            Database::Sqlite { write, .. } => {
                sqlx::query_as(
                    "update webhook_deliveries set due_at = $4, attempts = attempts + 1
                     where id in (select id from webhook_deliveries where target = $1 and due_at <= $2
                         order by due_at, id limit $3)
                     returning id, event_id, event, conversation_id, message_id, payload, attempts, created_at",
                )
                .bind(target)
                .bind(now)
                .bind(limit)
                .bind(lapses)
                .fetch_all(write)
                .await?
            }
        };
        // `returning` promises no order.
        rows.sort_unstable_by_key(|row| row.id);
        Ok(rows)
    }

    /// When the target's next delivery is due.
    pub async fn next_webhook_due(&self, target: &str) -> Result<Option<Timestamp>> {
        Ok(on!(self, read, pool => sqlx::query_scalar(
            "select due_at from webhook_deliveries where target = $1 and due_at is not null
             order by due_at limit 1",
        )
        .bind(target)
        .fetch_optional(pool)
        .await?))
    }

    /// Notes deliveries as done.
    pub async fn webhooks_delivered(&self, ids: &[i64]) -> Result<()> {
        let (ids, now) = (IdList(ids.to_vec()), self.clock.now());
        match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query(
                    "update webhook_deliveries
                     set delivered_at = $2, due_at = null, dead_at = null, last_error = null
                     where id = any($1)",
                )
                .bind(ids)
                .bind(now)
                .execute(write)
                .await?;
            }
            Database::Sqlite { write, .. } => {
                sqlx::query(
                    "update webhook_deliveries
                     set delivered_at = $2, due_at = null, dead_at = null, last_error = null
                     where id in (select value from json_each($1))",
                )
                .bind(ids)
                .bind(now)
                .execute(write)
                .await?;
            }
        }
        Ok(())
    }

    /// Gives back claimed deliveries that were not attempted.
    pub async fn release_webhooks(&self, ids: &[i64]) -> Result<()> {
        let (ids, now) = (IdList(ids.to_vec()), self.clock.now());
        match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query(
                    "update webhook_deliveries set due_at = $2, attempts = attempts - 1
                     where id = any($1) and due_at is not null",
                )
                .bind(ids)
                .bind(now)
                .execute(write)
                .await?;
            }
            Database::Sqlite { write, .. } => {
                sqlx::query(
                    "update webhook_deliveries set due_at = $2, attempts = attempts - 1
                     where id in (select value from json_each($1)) and due_at is not null",
                )
                .bind(ids)
                .bind(now)
                .execute(write)
                .await?;
            }
        }
        Ok(())
    }

    /// Notes a failed attempt: it is due again then, or is given up where there is no then.
    pub async fn webhook_failed(
        &self,
        id: i64,
        attempts: i32,
        again_at: Option<Timestamp>,
        error: &str,
    ) -> Result<()> {
        let dead_at = if again_at.is_some() { None } else { Some(self.clock.now()) };
        on!(self, write, pool => {
            sqlx::query(
                "update webhook_deliveries set due_at = $3, dead_at = $4, last_error = $5
                 where id = $1 and attempts = $2 and due_at is not null",
            )
            .bind(id)
            .bind(attempts)
            .bind(again_at)
            .bind(dead_at)
            .bind(error)
            .execute(pool)
            .await?;
        });
        Ok(())
    }

    /// Remembers that a target is gone for good, on all nodes.
    pub async fn disable_webhook_target(&self, target: &str) -> Result<()> {
        let now = self.clock.now();
        on!(self, write, pool => {
            sqlx::query(
                "insert into webhook_targets (target, disabled_at) values ($1, $2) on conflict do nothing",
            )
            .bind(target)
            .bind(now)
            .execute(pool)
            .await?;
        });
        Ok(())
    }

    /// The targets that are gone, and since when.
    pub async fn disabled_webhook_targets(&self) -> Result<HashMap<String, Timestamp>> {
        let rows: Vec<(String, Timestamp)> = on!(self, read, pool =>
            sqlx::query_as("select target, disabled_at from webhook_targets").fetch_all(pool).await?
        );
        Ok(rows.into_iter().collect())
    }

    /// Gives up what waits for a target that is gone. Answers how much that was.
    pub async fn bury_webhooks(&self, target: &str, error: &str) -> Result<u64> {
        let now = self.clock.now();
        Ok(on!(self, write, pool => all_of!(sqlx::query(
                "update webhook_deliveries set dead_at = $2, due_at = null, last_error = $3
                 where id in (select id from webhook_deliveries where target = $1 and due_at is not null limit $4)",
            )
            .bind(target)
            .bind(now)
            .bind(error)
            .bind(CHUNK)
            .execute(pool)
            .await?
            .rows_affected())))
    }

    /// Gives up what waits since before a time, whatever its target. What was attempted since is left:
    /// attempts end by themselves.
    pub async fn expire_webhooks(&self, before: Timestamp, error: &str) -> Result<u64> {
        let now = self.clock.now();
        Ok(on!(self, write, pool => all_of!(sqlx::query(
                "update webhook_deliveries set dead_at = $2, due_at = null, last_error = $3
                 where id in (select id from webhook_deliveries
                     where due_at is not null and due_at < $1 and queued_at < $1 limit $4)",
            )
            .bind(before)
            .bind(now)
            .bind(error)
            .bind(CHUNK)
            .execute(pool)
            .await?
            .rows_affected())))
    }

    /// Forgets what was delivered and what was given up before these times.
    pub async fn forget_webhooks(&self, delivered_before: Timestamp, dead_before: Timestamp) -> Result<u64> {
        on!(self, write, pool => {
            let delivered = all_of!(sqlx::query(
                    "delete from webhook_deliveries where id in
                     (select id from webhook_deliveries where delivered_at < $1 limit $2)",
                )
                .bind(delivered_before)
                .bind(CHUNK)
                .execute(pool)
                .await?
                .rows_affected());
            let dead = all_of!(sqlx::query(
                    "delete from webhook_deliveries where id in
                     (select id from webhook_deliveries where dead_at < $1 limit $2)",
                )
                .bind(dead_before)
                .bind(CHUNK)
                .execute(pool)
                .await?
                .rows_affected());
            Ok(delivered + dead)
        })
    }

    /// How much waits and how much was given up.
    pub async fn webhook_depth(&self) -> Result<Depth> {
        let (pending, dead): (i64, i64) = on!(self, read, pool => sqlx::query_as(
            "select
                 (select count(*) from (select 1 from webhook_deliveries where due_at is not null limit $1) w),
                 (select count(*) from (select 1 from webhook_deliveries where dead_at is not null limit $1) d)",
        )
        .bind(COUNTED_UP_TO)
        .fetch_one(pool)
        .await?);
        Ok(Depth { pending, dead })
    }

    /// A page of the dead letters, the latest first, and how many there are in all.
    pub async fn dead_webhooks(&self, offset: i64, limit: i64) -> Result<(Vec<DeadRow>, i64)> {
        on!(self, read, pool => {
            let rows = sqlx::query_as(
                "select id, event_id, event, target, conversation_id, message_id, attempts, last_error,
                     created_at, dead_at
                 from webhook_deliveries where dead_at is not null
                 order by dead_at desc, id desc limit $1 offset $2",
            )
            .bind(limit)
            .bind(offset)
            .fetch_all(pool)
            .await?;
            let total = sqlx::query_scalar("select count(*) from webhook_deliveries where dead_at is not null")
                .fetch_one(pool)
                .await?;
            Ok((rows, total))
        })
    }

    /// Queues a dead letter again, if its target is among these; a target that was gone is believed to be back.
    pub async fn replay_webhook(&self, id: i64, targets: &[&str]) -> Result<Replayed> {
        retried(|| self.try_replay_webhook(id, targets)).await
    }

    async fn try_replay_webhook(&self, id: i64, targets: &[&str]) -> Result<Replayed> {
        let now = self.clock.now();
        Ok(in_transaction!(self, connection => {
            let target: Option<String> = sqlx::query_scalar(
                "select target from webhook_deliveries where id = $1 and dead_at is not null",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            match target {
                None => Replayed::Unknown,
                Some(target) if !targets.contains(&target.as_str()) => Replayed::NoTarget,
                Some(target) => {
                    sqlx::query("delete from webhook_targets where target = $1")
                        .bind(target)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query(
                        "update webhook_deliveries set dead_at = null, attempts = 0, due_at = $2, queued_at = $2
                         where id = $1 and dead_at is not null",
                    )
                    .bind(id)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                    Replayed::Queued
                }
            }
        }))
    }

    /// Queues all dead letters of these targets again. Answers how many.
    pub async fn replay_webhooks(&self, targets: &[&str]) -> Result<u64> {
        let now = self.clock.now();
        let mut replayed = 0;
        for target in targets {
            on!(self, write, pool => {
                sqlx::query("delete from webhook_targets where target = $1")
                    .bind(*target)
                    .execute(pool)
                    .await?;
                replayed += all_of!(
                    // Those given up by now: what is given up again meanwhile would be replayed for ever.
                    sqlx::query(
                        "update webhook_deliveries set dead_at = null, attempts = 0, due_at = $2, queued_at = $2
                         where id in (select id from webhook_deliveries
                             where dead_at <= $2 and queued_at < $2 and target = $1 limit $3)",
                    )
                    .bind(*target)
                    .bind(now)
                    .bind(CHUNK)
                    .execute(pool)
                    .await?
                    .rows_affected());
            });
        }
        Ok(replayed)
    }

    /// Conversations by id: both users, the product, and when each began.
    pub async fn conversations_of_webhooks(
        &self,
        ids: &[ConversationId],
    ) -> Result<HashMap<ConversationId, ConversationFacts>> {
        let ids = IdList(ids.iter().map(|id| id.0).collect());
        let rows: Vec<ConversationFacts> = match &self.database {
            Database::Postgres { read, .. } => sqlx::query_as(
                "select id, user1_id, user2_id, product_id, created_at from conversations where id = any($1)",
            )
            .bind(ids)
            .fetch_all(read)
            .await?,
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select id, user1_id, user2_id, product_id, created_at from conversations
                     where id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        };
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }
}

/// What a webhook tells of a conversation.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct ConversationFacts {
    /// The conversation.
    pub id: ConversationId,
    /// The user with the smaller id.
    pub user1_id: UserId,
    /// The user with the larger id.
    pub user2_id: UserId,
    /// What it is about.
    pub product_id: Option<ProductId>,
    /// When it began.
    pub created_at: Timestamp,
}
