//! Every SQL statement of the service.
//!
//! [`Store`] is one struct over two databases, not a trait with two twins: a statement is written
//! once where PostgreSQL and SQLite agree and twice, side by side, where they do not. Methods are
//! things that succeed or fail together; transactions never leave this module. Rules about who may
//! do what live in `chat`, except those that only hold inside the transaction.

pub mod announcements;
pub mod attachments;
pub mod batch;
pub mod blocks;
pub mod changes;
mod connect;
pub mod contacts;
pub mod conversations;
pub mod devices;
pub mod emails;
pub mod erase;
pub mod flags;
pub mod import;
pub mod jobs;
pub mod log;
pub mod messages;
mod missed_pushes;
pub mod notifications;
mod pool;
mod postgres;
pub mod preferences;
pub mod presence;
pub mod profiles;
pub mod recount;
pub mod rows;
pub mod search;
mod sqlite;
pub mod sweeps;
pub mod webhooks;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

pub use connect::OpenError;
use pool::TimedPool;
use sqlx::SqlitePool;

use crate::{clock::Clock, errors::Error};

/// The database, and the clock that stamps what goes into it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    clock: Clock,
    /// The last write found no room on the disk.
    is_full: Arc<AtomicBool>,
    /// Events that are written for the main API; `None` where no webhooks are configured.
    outbox: Option<Arc<webhooks::Outbox>>,
}

#[derive(Debug, Clone)]
enum Database {
    Postgres {
        /// For statements that change something: readers cannot starve it.
        write: TimedPool,
        read: TimedPool,
    },
    Sqlite {
        /// One connection: SQLite has one writer, and waiting here is cheaper than `SQLITE_BUSY`.
        write: SqlitePool,
        read: SqlitePool,
    },
}

/// What a [`Store`] needs to know to open its database.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://…`, `postgresql://…` or `sqlite:…`.
    pub url: String,
    /// Connections kept open (PostgreSQL).
    pub pool_min: u32,
    /// Connections at most.
    pub pool_max: u32,
    /// How long a statement, or the wait for a connection, may take.
    pub timeout: Duration,
}

/// Runs the same body against whichever pool the store has; inside, `$pool` is that pool.
macro_rules! on {
    ($store:expr, $which:ident, $pool:ident => $body:expr) => {
        match &$store.database {
            $crate::storage::Database::Postgres { $which: $pool, .. } => $body,
            $crate::storage::Database::Sqlite { $which: $pool, .. } => $body,
        }
    };
}
use on;

/// Runs the same body in a transaction of whichever database the store has; inside, `$connection` is
/// its connection. Leaving the body early, by `return` or `?`, leaves nothing behind.
macro_rules! in_transaction {
    ($store:expr, $connection:ident => $body:expr) => {
        match &$store.database {
            $crate::storage::Database::Postgres { write, .. } => {
                let mut transaction = write.begin().await?;
                let $connection: &mut sqlx::PgConnection = &mut transaction;
                let outcome = $body;
                transaction.commit().await?;
                outcome
            }
            $crate::storage::Database::Sqlite { write, .. } => {
                // Immediate: the lock is taken at the start, where waiting for it is possible.
                let mut transaction = write.begin_with("begin immediate").await?;
                let $connection: &mut sqlx::SqliteConnection = &mut transaction;
                let outcome = $body;
                transaction.commit().await?;
                outcome
            }
        }
    };
}
use in_transaction;

/// Collisions are rare and short: so many attempts outlive any of them.
const ATTEMPTS: u32 = 6;

/// Longer than a statement may take at the longest: past it the server does not answer at all.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(10);

/// Tries a transaction again when it got into another one's way, and gives up one that does not end.
async fn retried<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    let mut attempts = 1;
    loop {
        let outcome = tokio::time::timeout(TRANSACTION_PATIENCE, attempt()).await;
        match outcome.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))) {
            Err(StoreError::Collision(error)) if attempts < ATTEMPTS => {
                tracing::debug!(%error, attempts, "a change collided and is tried again");
                attempts += 1;
            }
            outcome => return outcome,
        }
    }
}

/// A failed statement, as far as callers tell failures apart.
#[derive(Debug)]
pub enum StoreError {
    /// The database is away, busy or full: nothing was stored, the same request may succeed later.
    Unavailable(sqlx::Error),
    /// Two transactions got into each other's way; the transaction may be tried again at once.
    Collision(sqlx::Error),
    /// A statement or row is not what this code expects.
    Defect(sqlx::Error),
}

impl StoreError {
    /// Whether it was for want of room on the disk: PostgreSQL's `disk_full`, SQLite's `SQLITE_FULL`.
    fn is_for_want_of_room(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("53100" | "13"))
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(error) => write!(formatter, "the database is unavailable: {error}"),
            Self::Collision(error) => write!(formatter, "transactions collided: {error}"),
            Self::Defect(error) => write!(formatter, "a statement failed: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(database) => database.code().map(std::borrow::Cow::into_owned),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => return Self::Unavailable(error),
            _ => return Self::Defect(error),
        };
        match code.as_deref() {
            // PostgreSQL: serialization failure, deadlock, unique violation by a concurrent insert.
            Some("40001" | "40P01" | "23505") => Self::Collision(error),
            // SQLite: constraint by a unique index or primary key.
            Some("2067" | "1555") => Self::Collision(error),
            // PostgreSQL classes: connection, insufficient resources, operator intervention (shutdown,
            // statement timeout), read-only after a failover.
            Some(code)
                if code.starts_with("08")
                    || code.starts_with("53")
                    || code.starts_with("57")
                    || code == "25006" =>
            {
                Self::Unavailable(error)
            }
            // SQLite primary codes busy, locked, I/O error, full, cannot open; extended ones keep them
            // in the low byte.
            Some(code)
                if code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14)) =>
            {
                Self::Unavailable(error)
            }
            _ => Self::Defect(error),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "the database did not answer");
                Self::unavailable()
            }
            StoreError::Collision(source) => {
                tracing::warn!(error = %source, "transactions collided more often than they were retried");
                Self::unavailable()
            }
            StoreError::Defect(_) => Self::internal(error),
        }
    }
}

/// The answer of everything that is asked of the database.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The outcome of a change that is decided inside its transaction: stored, or refused with a reason.
pub type Decided<T> = Result<Result<T, Error>>;

/// Ids for `in (…)`: an array for PostgreSQL, JSON text for SQLite's `json_each`.
#[derive(Debug, Clone)]
struct IdList(Vec<i64>);

impl IdList {
    fn json(&self) -> String {
        serde_json::Value::from(self.0.as_slice()).to_string()
    }
}
