//! Work on many conversations that goes on after its answer: where it stands, and who is at it.
//!
//! A job is named by what is done to whom. It goes on where it stood after a crash; asked for once more
//! it starts over. What is done for each conversation is in `erase` and in [`Store::tell_conversations`].

use sqlx::FromRow;

use super::{
    Result, Store,
    batch::Statements,
    in_transaction,
    log::{Entry, EventKind, NewEntry},
    on, retried,
};
use crate::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// A user's name or picture is another one: those who talk with them are told.
    Profile,
    /// A product is shown in another way: those who talk about it are told.
    Product,
    /// A user is erased.
    Erase,
}

impl JobKind {
    /// As the database writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Product => "product",
            Self::Erase => "erase",
        }
    }

    fn from_stored(name: &str) -> Option<Self> {
        [Self::Profile, Self::Product, Self::Erase].into_iter().find(|kind| kind.name() == name)
    }
}

/// A job as a worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// What is done.
    pub kind: JobKind,
    /// To which user or product.
    pub subject_id: i64,
    /// All conversations up to this one are done.
    pub conversation_id: i64,
    /// Of the next one, all messages up to this place.
    pub seq: i64,
    /// How often it was asked for.
    pub round: i64,
    /// How much has changed so far.
    pub changed: i64,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct JobStatus {
    /// How much has changed so far.
    pub changed: i64,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
}

/// What a step of a job did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The job as it stands now; `None` if it was asked for once more meanwhile, and starts over.
    pub job: Option<Job>,
    /// There is nothing more to do in conversations.
    pub is_last: bool,
    /// What was appended to the users' logs.
    pub entries: Vec<Entry>,
}

/// Notes inside a transaction how far a job came; 0 if it was asked for once more meanwhile.
macro_rules! advance {
    ($connection:ident, $job:expr, $leased_until:expr) => {
        sqlx::query(
            "update jobs set conversation_id = $4, seq = $5, changed = $6, leased_until = $7
             where kind = $1 and subject_id = $2 and round = $3",
        )
        .bind($job.kind.name())
        .bind($job.subject_id)
        .bind($job.round)
        .bind($job.conversation_id)
        .bind($job.seq)
        .bind($job.changed)
        .bind($leased_until)
        .execute(&mut *$connection)
        .await?
        .rows_affected()
    };
}
pub(super) use advance;

type JobColumns = (String, i64, i64, i64, i64, i64);

impl Store {
    /// Starts a job, or starts it over.
    pub async fn start_job(&self, kind: JobKind, subject_id: i64) -> Result<()> {
        let now = self.clock.now();
        on!(self, write, pool => sqlx::query(
            "insert into jobs (kind, subject_id, leased_until, created_at) values ($1, $2, $3, $4)
             on conflict (kind, subject_id) do update set conversation_id = 0, seq = 0, round = jobs.round + 1,
                 changed = 0, leased_until = excluded.leased_until, created_at = excluded.created_at,
                 finished_at = null",
        )
        .bind(kind.name())
        .bind(subject_id)
        .bind(Timestamp::EPOCH)
        .bind(now)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Takes a job that nobody is at, until `leased_until`.
    pub async fn claim_job(&self, leased_until: Timestamp) -> Result<Option<Job>> {
        let now = self.clock.now();
        let claimed: Option<JobColumns> = on!(self, write, pool => sqlx::query_as(
            "update jobs set leased_until = $2
             where (kind, subject_id) in (select kind, subject_id from jobs
                     where finished_at is null and leased_until <= $1 order by created_at, subject_id limit 1)
                 and finished_at is null and leased_until <= $1
             returning kind, subject_id, conversation_id, seq, round, changed",
        )
        .bind(now)
        .bind(leased_until)
        .fetch_optional(pool)
        .await?);
        Ok(claimed.and_then(|(kind, subject_id, conversation_id, seq, round, changed)| {
            let kind = JobKind::from_stored(&kind)?;
            Some(Job { kind, subject_id, conversation_id, seq, round, changed })
        }))
    }

    /// Lets others take a job from a time on.
    pub async fn release_job(&self, job: &Job, from: Timestamp) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "update jobs set leased_until = $4 where kind = $1 and subject_id = $2 and round = $3",
        )
        .bind(job.kind.name())
        .bind(job.subject_id)
        .bind(job.round)
        .bind(from)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Notes that a job is done, unless it was asked for once more meanwhile.
    pub async fn finish_job(&self, job: &Job) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "update jobs set finished_at = $4 where kind = $1 and subject_id = $2 and round = $3",
        )
        .bind(job.kind.name())
        .bind(job.subject_id)
        .bind(job.round)
        .bind(self.clock.now())
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// How a job stands.
    pub async fn job_status(&self, kind: JobKind, subject_id: i64) -> Result<Option<JobStatus>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select changed, finished_at from jobs where kind = $1 and subject_id = $2",
        )
        .bind(kind.name())
        .bind(subject_id)
        .fetch_optional(pool)
        .await?))
    }

    /// Tells the participants of the next conversations that their conversation is shown in another way.
    pub async fn tell_conversations(&self, job: &Job, limit: i64, leased_until: Timestamp) -> Result<Step> {
        retried(|| self.try_tell_conversations(job, limit, leased_until)).await
    }

    async fn try_tell_conversations(&self, job: &Job, limit: i64, leased_until: Timestamp) -> Result<Step> {
        let now = self.clock.now();
        let statement = match job.kind {
            // The user does not see themselves.
            JobKind::Profile | JobKind::Erase => {
                "select o.conversation_id, o.user_id, o.is_hidden from conversation_participants p
                 join conversation_participants o
                     on o.conversation_id = p.conversation_id and o.user_id <> p.user_id
                 where p.user_id = $1 and p.conversation_id > $2 order by p.conversation_id limit $3"
            }
            JobKind::Product => {
                "select p.conversation_id, p.user_id, p.is_hidden from conversation_participants p
                 join (select id from conversations where product_id = $1 and id > $2 order by id limit $3) c
                     on c.id = p.conversation_id
                 order by p.conversation_id, p.user_id"
            }
        };
        Ok(in_transaction!(self, connection => {
            let participants: Vec<(ConversationId, UserId, bool)> = sqlx::query_as(statement)
                .bind(job.subject_id)
                .bind(job.conversation_id)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?;
            let Some((newest, ..)) = participants.last().copied() else {
                return Ok(Step { job: Some(*job), is_last: true, entries: Vec::new() });
            };
            let mut entries = Vec::new();
            for (conversation_id, user_id, is_hidden) in participants {
                if !is_hidden {
                    entries.push(NewEntry {
                        user_id,
                        kind: EventKind::ConversationUpdated,
                        conversation_id,
                        message_id: None,
                        payload: None,
                    });
                }
            }
            let changed = job.changed.saturating_add(i64::try_from(entries.len()).unwrap_or(i64::MAX));
            let next = Job { conversation_id: newest.0, seq: 0, changed, ..*job };
            if advance!(connection, next, leased_until) == 0 {
                return Ok(Step { job: None, is_last: false, entries: Vec::new() });
            }
            let entries = connection.append_log(entries, now).await?;
            Step { job: Some(next), is_last: false, entries }
        }))
    }
}
