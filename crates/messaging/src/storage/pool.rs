//! A pool whose statements end: a server that is frozen or cut off answers nothing, not even a refusal.
//!
//! PostgreSQL keeps its own time (`statement_timeout`) as long as it runs; this is for when it does
//! not. A connection whose answer did not come is closed rather than returned: the pool would wait for
//! that answer before it lends the connection again. Transactions are given up by those who wait for
//! them (`chat::writer`, `chat::changes`, `retried`).

use std::{ops::Deref, time::Duration};

use futures_util::{
    TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{Describe, Either, Error, Execute, Executor, PgPool, Postgres, SqlStr, pool::PoolConnection};
use tokio::time::{error::Elapsed, timeout};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct TimedPool {
    pool: PgPool,
    patience: Duration,
}

type Row = <Postgres as sqlx::Database>::Row;
type QueryResult = <Postgres as sqlx::Database>::QueryResult;
type Statement = <Postgres as sqlx::Database>::Statement;
type TypeInfo = <Postgres as sqlx::Database>::TypeInfo;

impl TimedPool {
    pub(super) const fn new(pool: PgPool, patience: Duration) -> Self {
        Self { pool, patience }
    }
}

/// Returns a connection to the pool, or closes it if nothing came over it.
fn settle<T>(
    mut connection: PoolConnection<Postgres>,
    outcome: Result<Result<T, Error>, Elapsed>,
) -> Result<T, Error> {
    outcome.unwrap_or_else(|_| {
        connection.close_on_drop();
        Err(Error::PoolTimedOut)
    })
}

impl Deref for TimedPool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl<'p> Executor<'p> for &'_ TimedPool {
    type Database = Postgres;

    // Nobody here reads a result row by row.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<QueryResult, Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let TimedPool { pool, patience } = self.clone();
        let steps = async move {
            let mut connection = pool.acquire().await?;
            let steps = (&mut *connection).fetch_many(query).try_collect::<Vec<_>>();
            let outcome = timeout(patience, steps).await;
            settle(connection, outcome)
        };
        stream::once(steps).map_ok(|steps| stream::iter(steps.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let TimedPool { pool, patience } = self.clone();
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            let outcome = timeout(patience, (&mut *connection).fetch_optional(query)).await;
            settle(connection, outcome)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [TypeInfo],
    ) -> BoxFuture<'e, Result<Statement, Error>>
    where
        'p: 'e,
    {
        let TimedPool { pool, patience } = self.clone();
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            let outcome = timeout(patience, (&mut *connection).prepare_with(sql, parameters)).await;
            settle(connection, outcome)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let TimedPool { pool, patience } = self.clone();
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            let outcome = timeout(patience, (&mut *connection).describe(sql)).await;
            settle(connection, outcome)
        })
    }
}
