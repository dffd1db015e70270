//! E-mail about unread messages: whom to mail about what, and the mails that wait. Addresses: `contacts`.
//!
//! Nothing is written when a message is sent: a sweep ([`super::sweeps`]) walks the messages by id and compares with what
//! participants have read and with what was mailed before. A claim (a mark for each conversation, one
//! waiting mail a person) is one transaction, so two nodes never make two mails of the same messages.
//! When to sweep and how to send is in `notify::email`.

use sqlx::FromRow;

use super::{Database, Result, Store, in_transaction, on, retried};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, ProductId, UserId},
};

/// A stretch of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Stretch {
    /// How many.
    pub count: i64,
    /// The last one; `None` if there is none.
    pub last: Option<i64>,
    /// The first one that has not been unread for long enough.
    pub first_young: Option<i64>,
    /// The first one before which others may yet be committed.
    pub first_unsettled: Option<i64>,
}

/// Somebody to mail about a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Candidate {
    /// Whom.
    pub user_id: UserId,
    /// About what.
    pub conversation_id: ConversationId,
    /// Up to where.
    pub seq: i64,
    /// Up to where they were mailed before.
    pub mailed_seq: Option<i64>,
}

/// Which messages a sweep is about.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// After this message,
    pub after: i64,
    /// up to and with this one,
    pub to: i64,
    /// sent at this time or before,
    pub until: Timestamp,
    /// and after this time.
    pub since: Timestamp,
}

/// A mail to send now: this node's until its lease is over.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct TakenEmail {
    /// To whom.
    pub user_id: UserId,
    /// Its name.
    pub claim: String,
    /// The how manieth attempt this is.
    pub attempts: i32,
}

/// A conversation that a waiting mail is about, as it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct PendingConversation {
    /// Which.
    pub conversation_id: ConversationId,
    /// With whom.
    pub other_user_id: UserId,
    /// About what.
    pub product_id: Option<ProductId>,
    /// How many messages are unread.
    pub unread_count: i32,
    /// Whether it may still be mailed about: not muted, blocked, deleted, read or switched off.
    pub is_wanted: bool,
}

/// An unread message, as much as a mail shows of it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UnreadMessage {
    /// The message.
    pub id: MessageId,
    /// What it is.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The words.
    pub content: String,
    /// The name of the uploaded file.
    pub attachment_name: Option<String>,
}

/// Who may be mailed about the conversation of participant `p` of `c` now; `$1` is the time.
macro_rules! is_wanted {
    () => {
        "p.unread_count > 0 and not p.is_hidden and (not p.is_muted or coalesce(p.muted_until <= $1, false))
             and not exists (select 1 from notification_preferences n where n.user_id = p.user_id and not n.email)
             and not exists (select 1 from blocks b where b.blocker_id = c.user1_id and b.blocked_id = c.user2_id)
             and not exists (select 1 from blocks b where b.blocker_id = c.user2_id and b.blocked_id = c.user1_id)"
    };
}

impl Store {
    /// The next messages after one, at most `limit`: where they end, and which of them are not sent at
    /// `until` or before, and not at `settled` or before.
    ///
    /// By id, which is the order of insertion: the block range index on `created_at` knows nothing of
    /// the newest pages until a vacuum, and SQLite has none.
    pub async fn message_stretch(
        &self,
        after: i64,
        limit: i64,
        until: Timestamp,
        settled: Timestamp,
    ) -> Result<Stretch> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select count(*) as count, max(id) as last,
                 min(case when created_at > $3 then id end) as first_young,
                 min(case when created_at > $4 then id end) as first_unsettled
             from (select id, created_at from messages where id > $1 order by id limit $2) stretch",
        )
        .bind(after)
        .bind(limit)
        .bind(until)
        .bind(settled)
        .fetch_one(pool)
        .await?))
    }

    /// Whom to mail about the messages of a stretch: who has an address, has not read them, wants to
    /// know, and was not mailed about that conversation since they last read it.
    pub async fn email_candidates(&self, due: &Due) -> Result<Vec<Candidate>> {
        let now = self.clock.now();
        Ok(on!(self, read, pool => sqlx::query_as(concat!(
            // Materialized: by id alone, whatever the planner thinks of the times.
            "with stretch as materialized (
                 select conversation_id, sender_id, seq, created_at, deleted_at, is_read from messages
                 where id > $2 and id <= $3
             ), due as (
                 select conversation_id, sender_id, max(seq) as seq from stretch
                 where created_at <= $4 and created_at > $5 and deleted_at is null and not is_read
                 group by conversation_id, sender_id
             )
             select p.user_id, p.conversation_id, max(due.seq) as seq, k.mailed_seq
             from due
             join conversations c on c.id = due.conversation_id
             join conversation_participants p
                 on p.conversation_id = due.conversation_id and p.user_id <> due.sender_id
             join user_contacts u on u.user_id = p.user_id and u.refused_at is null
             left join email_marks k on k.user_id = p.user_id and k.conversation_id = p.conversation_id
             where due.seq > p.read_seq and due.seq > p.cleared_seq and ", is_wanted!(), "
                 and (k.mailed_seq is null or k.mailed_seq <= p.read_seq
                     or (k.is_void and k.mailed_seq < due.seq) or not exists (
                     select 1 from messages m
                     where m.conversation_id = p.conversation_id and m.seq > p.read_seq and m.seq > p.cleared_seq
                         and m.seq <= k.mailed_seq and m.sender_id <> p.user_id and not m.is_read))
             group by p.user_id, p.conversation_id, k.mailed_seq
             order by p.user_id, p.conversation_id",
        ))
        .bind(now)
        .bind(due.after)
        .bind(due.to)
        .bind(due.until)
        .bind(due.since)
        .fetch_all(pool)
        .await?))
    }

    /// Claims what a stretch came to, in one transaction. A conversation that another node claimed
    /// meanwhile stays that node's. `claims` has a random name for each person. Answers how many people
    /// are to be mailed.
    pub async fn claim_emails(&self, candidates: &[Candidate], claims: &[(UserId, String)]) -> Result<u64> {
        retried(|| self.try_claim_emails(candidates, claims)).await
    }

    async fn try_claim_emails(&self, candidates: &[Candidate], claims: &[(UserId, String)]) -> Result<u64> {
        let now = self.clock.now();
        Ok(in_transaction!(self, connection => {
            let mut people = 0;
            for (user, claim) in claims {
                // Locked first, by the order of users: whoever settles this person's mail meanwhile
                // either sees the marks below or is done with it.
                sqlx::query(
                    "insert into emails as e (user_id, claim, next_attempt_at) values ($1, $2, $3)
                     on conflict (user_id) do update set claim = e.claim",
                )
                .bind(user)
                .bind(claim)
                .bind(now)
                .execute(&mut *connection)
                .await?;
                let mut marked = 0;
                for candidate in candidates.iter().filter(|candidate| candidate.user_id == *user) {
                    let Candidate { conversation_id, seq, mailed_seq, .. } = candidate;
                    let marking = match mailed_seq {
                        None => sqlx::query(
                            "insert into email_marks (user_id, conversation_id, mailed_seq) values ($1, $2, $3)
                             on conflict do nothing",
                        )
                        .bind(user)
                        .bind(conversation_id)
                        .bind(seq),
                        Some(before) => sqlx::query(
                            "update email_marks set mailed_seq = $3, mailed_at = null, is_void = false
                             where user_id = $1 and conversation_id = $2 and mailed_seq = $4",
                        )
                        .bind(user)
                        .bind(conversation_id)
                        .bind(seq)
                        .bind(before),
                    };
                    marked += marking.execute(&mut *connection).await?.rows_affected();
                }
                if marked > 0 {
                    people += 1;
                    continue;
                }
                // Another node was here first. Only what this transaction put there goes.
                sqlx::query(
                    "delete from emails where user_id = $1 and claim = $2 and not exists
                         (select 1 from email_marks where user_id = $1 and mailed_at is null)",
                )
                .bind(user)
                .bind(claim)
                .execute(&mut *connection)
                .await?;
            }
            people
        }))
    }

    /// Takes waiting mails whose time has come, at most `limit`, until `leased_until`: a node that has
    /// not settled one by then counts as dead, and another takes it.
    pub async fn take_emails(&self, limit: i64, leased_until: Timestamp) -> Result<Vec<TakenEmail>> {
        let now = self.clock.now();
        Ok(match &self.database {
            Database::Postgres { write, .. } => {
                sqlx::query_as(
                    "update emails set attempts = attempts + 1, next_attempt_at = $2
                     where user_id in (select user_id from emails where next_attempt_at <= $1
                         order by next_attempt_at limit $3 for update skip locked)
                     returning user_id, claim, attempts",
                )
                .bind(now)
                .bind(leased_until)
                .bind(limit)
                .fetch_all(write)
                .await?
            }
            // One writer: nobody to skip.
            Database::Sqlite { write, .. } => {
                sqlx::query_as(
                    "update emails set attempts = attempts + 1, next_attempt_at = $2
                     where user_id in (select user_id from emails where next_attempt_at <= $1
                         order by next_attempt_at limit $3)
                     returning user_id, claim, attempts",
                )
                .bind(now)
                .bind(leased_until)
                .bind(limit)
                .fetch_all(write)
                .await?
            }
        })
    }

    /// What a person's waiting mail is about, the newest conversation first.
    pub async fn pending_conversations(&self, user: UserId) -> Result<Vec<PendingConversation>> {
        let now = self.clock.now();
        Ok(on!(self, read, pool => sqlx::query_as(concat!(
            "select c.id as conversation_id, c.product_id, p.unread_count,
                 case when c.user1_id = p.user_id then c.user2_id else c.user1_id end as other_user_id,
                 (", is_wanted!(), ") as is_wanted
             from email_marks k
             join conversations c on c.id = k.conversation_id
             join conversation_participants p on p.conversation_id = c.id and p.user_id = k.user_id
             where k.user_id = $2 and k.mailed_at is null
             order by c.last_message_at desc, c.id desc",
        ))
        .bind(now)
        .bind(user)
        .fetch_all(pool)
        .await?))
    }

    /// The newest unread messages of a conversation, oldest first.
    pub async fn newest_unread(
        &self,
        user: UserId,
        conversation: ConversationId,
        limit: i64,
    ) -> Result<Vec<UnreadMessage>> {
        let mut messages: Vec<UnreadMessage> = on!(self, read, pool => sqlx::query_as(
            "select m.id, m.type, m.content, a.name as attachment_name
             from conversation_participants p
             join messages m on m.conversation_id = p.conversation_id and m.seq > p.read_seq
                 and m.seq > p.cleared_seq and m.sender_id <> p.user_id
             left join attachments a on a.id = m.attachment_id
             where p.conversation_id = $1 and p.user_id = $2 and not m.is_read and m.deleted_at is null
             order by m.seq desc limit $3",
        )
        .bind(conversation)
        .bind(user)
        .bind(limit)
        .fetch_all(pool)
        .await?);
        messages.reverse();
        Ok(messages)
    }

    /// Ends a mail that this node took. The marks of `told`, which was in it, stand; of `dropped`, which
    /// was not, the next message may be mailed about. What was claimed meanwhile becomes the person's next
    /// mail, under the name `next`. Nothing happens if another node has the mail by now.
    pub async fn settle_email(
        &self,
        email: &TakenEmail,
        told: &[ConversationId],
        dropped: &[ConversationId],
        next: &str,
    ) -> Result<()> {
        retried(|| self.try_settle_email(email, told, dropped, next)).await
    }

    async fn try_settle_email(
        &self,
        email: &TakenEmail,
        told: &[ConversationId],
        dropped: &[ConversationId],
        next: &str,
    ) -> Result<()> {
        let now = self.clock.now();
        in_transaction!(self, connection => {
            let ours = sqlx::query(
                "update emails set attempts = attempts where user_id = $1 and claim = $2 and attempts = $3",
            )
            .bind(email.user_id)
            .bind(&email.claim)
            .bind(email.attempts)
            .execute(&mut *connection)
            .await?
            .rows_affected();
            if ours == 0 {
                return Ok(());
            }
            for conversation in told {
                sqlx::query(
                    "update email_marks set mailed_at = $3
                     where user_id = $1 and conversation_id = $2 and mailed_at is null",
                )
                .bind(email.user_id)
                .bind(conversation)
                .bind(now)
                .execute(&mut *connection)
                .await?;
            }
            for conversation in dropped {
                sqlx::query(
                    "update email_marks set mailed_at = $3, is_void = true
                     where user_id = $1 and conversation_id = $2 and mailed_at is null",
                )
                .bind(email.user_id)
                .bind(conversation)
                .bind(now)
                .execute(&mut *connection)
                .await?;
            }
            let more: i64 = sqlx::query_scalar(
                "select count(*) from email_marks where user_id = $1 and mailed_at is null",
            )
            .bind(email.user_id)
            .fetch_one(&mut *connection)
            .await?;
            if more == 0 {
                sqlx::query("delete from emails where user_id = $1")
                    .bind(email.user_id)
                    .execute(&mut *connection)
                    .await?;
            } else {
                sqlx::query(
                    "update emails set claim = $2, attempts = 0, next_attempt_at = $3 where user_id = $1",
                )
                .bind(email.user_id)
                .bind(next)
                .bind(now)
                .execute(&mut *connection)
                .await?;
            }
        });
        Ok(())
    }

    /// Leaves a mail that this node took for a later time.
    pub async fn postpone_email(&self, email: &TakenEmail, until: Timestamp) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "update emails set next_attempt_at = $4 where user_id = $1 and claim = $2 and attempts = $3",
        )
        .bind(email.user_id)
        .bind(&email.claim)
        .bind(email.attempts)
        .bind(until)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }
}
