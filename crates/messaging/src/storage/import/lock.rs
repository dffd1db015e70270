//! One import at a time: a lock that goes with the process, however it ends.

use std::{fs::File, str::FromStr};

use sqlx::{Connection, PgConnection, sqlite::SqliteConnectOptions};

use crate::storage::OpenError;

/// Any number that nothing else in this database uses.
const KEY: i64 = 0x72_656e_7465_6431;

/// Held for as long as it lives.
#[derive(Debug)]
#[must_use = "the lock goes with it"]
pub enum ImportLock {
    /// A connection of its own.
    Postgres(Box<PgConnection>),
    /// A file beside the database.
    Sqlite(File),
}

impl ImportLock {
    /// Takes the lock of this database; `None` if another import has it.
    pub async fn take(url: &str) -> Result<Option<Self>, OpenError> {
        let unreachable = |error: &dyn std::fmt::Display| OpenError::Unreachable(error.to_string());
        if url.starts_with("sqlite:") {
            let options =
                SqliteConnectOptions::from_str(url).map_err(|error| OpenError::BadUrl(error.to_string()))?;
            let mut path = options.get_filename().to_path_buf().into_os_string();
            path.push("-import-lock");
            let file = File::create(path).map_err(|error| unreachable(&error))?;
            return match file.try_lock() {
                Ok(()) => Ok(Some(Self::Sqlite(file))),
                Err(std::fs::TryLockError::WouldBlock) => Ok(None),
                Err(std::fs::TryLockError::Error(error)) => Err(unreachable(&error)),
            };
        }
        let mut connection = PgConnection::connect(url).await.map_err(|error| unreachable(&error))?;
        let is_taken: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(KEY)
            .fetch_one(&mut connection)
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(is_taken.then(|| Self::Postgres(Box::new(connection))))
    }
}
