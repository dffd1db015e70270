//! What the tests share: throw-away databases on both backends.

use std::time::Duration;

use messaging::{
    clock::{Clock, Timestamp},
    storage::{Store, StoreOptions},
};
use sqlx::Connection;

/// Tests begin at this time, 2026-01-01T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A database that is gone with the test.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    pub(crate) _folder: Option<tempfile::TempDir>,
}

/// The two backends that every storage test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl TestDatabase {
    /// `None` if there is no PostgreSQL to test on: the test says that it was skipped, and fails in CI.
    pub(crate) async fn new(backend: Backend) -> Option<Self> {
        if backend == Backend::Sqlite {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let url = format!("sqlite:{}", folder.path().join("messaging.db").display());
            return Some(Self { url, _folder: Some(folder) });
        }
        let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
            assert!(std::env::var_os("CI").is_none(), "skipped: TEST_DATABASE_URL is not set");
            eprintln!("skipped: TEST_DATABASE_URL is not set");
            return None;
        };
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut connection = sqlx::PgConnection::connect(&server).await.expect("TEST_DATABASE_URL answers");
        sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await
            .expect("a database can be made");
        let mut url = url::Url::parse(&server).expect("TEST_DATABASE_URL is a URL");
        url.set_path(&name);
        Some(Self { url: url.into(), _folder: None })
    }

    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions { url: self.url.clone(), pool_min: 1, pool_max: 6, timeout: Duration::from_secs(20) }
    }

    /// Runs a statement past the store.
    pub(crate) async fn execute(&self, statement: &'static str) {
        if self.url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.expect("the file opens");
            sqlx::query(statement).execute(&mut connection).await.expect("the statement runs");
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.expect("the server answers");
            sqlx::query(statement).execute(&mut connection).await.expect("the statement runs");
        }
    }

    pub(crate) async fn store(&self, clock: &Clock) -> Store {
        Store::open(&self.options(), clock.clone()).await.expect("the database opens")
    }
}

/// Makes two tests of one: the same case on SQLite and on PostgreSQL.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(database) = $crate::support::TestDatabase::new($crate::support::Backend::Sqlite).await {
                    super::$case(database).await;
                }
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(database) = $crate::support::TestDatabase::new($crate::support::Backend::Postgres).await {
                    super::$case(database).await;
                }
            })+
        }
    };
}
