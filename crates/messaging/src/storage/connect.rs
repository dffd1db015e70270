//! Opening a database: pools, pragmas, migrations under a lock, and the refusal of a newer schema.

use std::{str::FromStr, sync::atomic::Ordering, time::Duration};

use sqlx::{
    Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Database, Result, Store, StoreOptions, on, pool::TimedPool};
use crate::clock::Clock;

/// One that waits for the disk must not keep the others waiting.
const MIN_SQLITE_READERS: u32 = 4;
/// A reader that a rush needed is given back after it.
const READER_IDLE: Duration = Duration::from_secs(60);

/// More than an ordinary batch needs, in bytes: less may fit where the next message does not.
const ROOM: usize = 64 * 1024;

static POSTGRES: Migrator = sqlx::migrate!("../../migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Why a database could not be opened; each is one sentence for the operator.
#[derive(Debug)]
pub enum OpenError {
    /// The URL cannot be read.
    BadUrl(String),
    /// The server or file cannot be reached.
    Unreachable(String),
    /// The database was migrated by a newer version of this service.
    NewerSchema(i64),
    /// A migration failed or was changed after it was applied.
    Migration(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadUrl(reason) => write!(formatter, "DATABASE_URL cannot be read: {reason}"),
            Self::Unreachable(reason) => write!(formatter, "the database cannot be opened: {reason}"),
            Self::NewerSchema(version) => write!(
                formatter,
                "the database has schema version {version}, which this version of the service does not know; \
                 start the newer version instead"
            ),
            Self::Migration(reason) => write!(formatter, "the database could not be migrated: {reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Whether no transaction is open on an idle connection. When the disk is full SQLite ends a transaction by itself,
/// the rollback that follows fails for want of one, and sqlx counts it as open for ever: nothing could begin on that
/// connection again, so it is replaced.
fn is_usable(connection: &SqliteConnection) -> bool {
    !connection.is_in_transaction()
}

impl Store {
    /// Opens the database and brings its schema up to date.
    pub async fn open(options: &StoreOptions, clock: Clock) -> Result<Self, OpenError> {
        let store = Self::connect(options, clock).await?;
        store.migrate().await?;
        Ok(store)
    }

    async fn connect(options: &StoreOptions, clock: Clock) -> Result<Self, OpenError> {
        let database = if options.url.starts_with("sqlite:") {
            Self::connect_sqlite(options).await?
        } else {
            Self::connect_postgres(options).await?
        };
        Ok(Self { database, clock, is_full: Default::default(), outbox: None })
    }

    async fn connect_postgres(options: &StoreOptions) -> Result<Database, OpenError> {
        let statement_timeout = options.timeout.as_millis().to_string();
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| OpenError::BadUrl(error.to_string()))?
            .application_name("rented-messaging")
            .options([("statement_timeout", statement_timeout.as_str()), ("timezone", "UTC")]);
        // A third for those who write: two group-commit writers and the rare single changes.
        let writers = (options.pool_max / 3).max(2);
        let readers = options.pool_max.saturating_sub(writers).max(1);
        let pool = |size: u32, keep: u32| {
            PgPoolOptions::new()
                .max_connections(size)
                .min_connections(keep.min(size))
                .acquire_timeout(options.timeout)
                .idle_timeout(Duration::from_secs(600))
        };
        // Plans are left to PostgreSQL: one generic plan for batches of 1 and of 256 alike cost four times
        // as much as planning each (docs/performance.md).
        let write = pool(writers, options.pool_min.min(2))
            .connect_with(connect.clone())
            .await
            .map_err(|error| OpenError::Unreachable(error.to_string()))?;
        let read = pool(readers, options.pool_min.saturating_sub(2).max(1)).connect_lazy_with(connect);
        // The server's own time-out comes first, with a reason.
        let patience = options.timeout + Duration::from_millis(500);
        Ok(Database::Postgres {
            write: TimedPool::new(write, patience),
            read: TimedPool::new(read, patience),
        })
    }

    async fn connect_sqlite(options: &StoreOptions) -> Result<Database, OpenError> {
        let connect = SqliteConnectOptions::from_str(&options.url)
            .map_err(|error| OpenError::BadUrl(error.to_string()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk before it is told: what was confirmed survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.timeout)
            .pragma("cache_size", "-16000")
            .pragma("temp_store", "memory")
            .statement_cache_capacity(200);
        if let Some(folder) = connect.get_filename().parent().filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder)
                .map_err(|error| OpenError::Unreachable(format!("{}: {error}", folder.display())))?;
        }
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .acquire_timeout(options.timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(|connection, _| Box::pin(async { Ok(is_usable(connection)) }))
            .connect_with(connect.clone())
            .await
            .map_err(|error| OpenError::Unreachable(error.to_string()))?;
        // More readers than cores read nothing sooner, and each that was ever opened holds a thread, a page
        // cache and statements of its own, over a megabyte together (docs/memory.md).
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        let readers = u32::try_from(cores * 2).unwrap_or(u32::MAX).max(MIN_SQLITE_READERS);
        let read = SqlitePoolOptions::new()
            .max_connections(options.pool_max.clamp(1, readers))
            .acquire_timeout(options.timeout)
            .idle_timeout(READER_IDLE)
            .max_lifetime(None)
            .before_acquire(|connection, _| Box::pin(async { Ok(is_usable(connection)) }))
            .connect_lazy_with(connect.read_only(true).create_if_missing(false));
        Ok(Database::Sqlite { write, read })
    }

    async fn migrate(&self) -> Result<(), OpenError> {
        let outcome = match &self.database {
            // sqlx holds an advisory lock meanwhile: two nodes that start together migrate once.
            Database::Postgres { write, .. } => POSTGRES.run(&**write).await,
            Database::Sqlite { write, .. } => SQLITE.run(write).await,
        };
        outcome.map_err(|error| match error {
            MigrateError::VersionMissing(version) => OpenError::NewerSchema(version),
            other => OpenError::Migration(other.to_string()),
        })
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<()> {
        on!(self, read, pool => sqlx::query("select 1").execute(pool).await.map(drop))?;
        Ok(())
    }

    /// Whether there is room for more. Costs nothing while messages are stored; after one found the disk
    /// full, this asks by writing, so that the return of room is noticed without traffic.
    pub async fn has_room(&self) -> bool {
        if !self.is_full.load(Ordering::Relaxed) {
            return true;
        }
        let outcome = async {
            let statement = "insert into settings (name, value) values ('room', $1) \
                             on conflict (name) do update set value = excluded.value";
            for value in [" ".repeat(ROOM), String::new()] {
                on!(self, write, pool => sqlx::query(statement).bind(value).execute(pool).await.map(drop))?;
            }
            Ok(())
        };
        let outcome = outcome.await;
        self.note_room(&outcome);
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Takes from a write's outcome whether the disk is full. What failed for another reason says nothing.
    pub(super) fn note_room<T>(&self, outcome: &Result<T>) {
        let is_full = match outcome {
            Ok(_) => false,
            Err(error) if error.is_for_want_of_room() => true,
            Err(_) => return,
        };
        // Read first: the flag is every writer's, and hardly ever changes.
        if self.is_full.load(Ordering::Relaxed) == is_full {
            return;
        }
        self.is_full.store(is_full, Ordering::Relaxed);
        if is_full {
            tracing::error!("the database's disk is full: nothing is stored until there is room again");
        } else {
            tracing::info!("the database's disk has room again");
        }
    }

    /// Connections that are in use, and those that are idle.
    pub fn connections(&self) -> (u32, u32) {
        let count = |size: u32, idle: usize| (size, u32::try_from(idle).unwrap_or(size).min(size));
        let (write, idle_write) = on!(self, write, pool => count(pool.size(), pool.num_idle()));
        let (read, idle_read) = on!(self, read, pool => count(pool.size(), pool.num_idle()));
        (write + read - idle_write - idle_read, idle_write + idle_read)
    }

    /// `postgres` or `sqlite`.
    pub const fn backend(&self) -> &'static str {
        match self.database {
            Database::Postgres { .. } => "postgres",
            Database::Sqlite { .. } => "sqlite",
        }
    }

    /// Lets every connection finish and closes it.
    pub async fn close(&self) {
        on!(self, read, pool => pool.close().await);
        on!(self, write, pool => pool.close().await);
    }

    /// The value of a shared setting, made by `make` if no node made it before.
    pub async fn setting(&self, name: &str, make: impl FnOnce() -> String + Send) -> Result<String> {
        let value = make();
        on!(self, write, pool => {
            sqlx::query("insert into settings (name, value) values ($1, $2) on conflict do nothing")
                .bind(name)
                .bind(&value)
                .execute(pool)
                .await?;
            Ok(sqlx::query_scalar("select value from settings where name = $1").bind(name).fetch_one(pool).await?)
        })
    }
}
