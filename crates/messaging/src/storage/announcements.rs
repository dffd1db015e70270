//! Lines that every node must hear, kept for those that the bus did not reach.

use super::{Result, Store, on};
use crate::clock::Timestamp;

impl Store {
    /// Keeps a line for all nodes.
    pub async fn insert_announcement(&self, line: &str) -> Result<()> {
        on!(self, write, pool => sqlx::query("insert into announcements (line, created_at) values ($1, $2)")
            .bind(line)
            .bind(self.clock.now())
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Lines after a place, oldest first, at most `limit` of them: place, line, when.
    pub async fn announcements(&self, after: i64, limit: i64) -> Result<Vec<(i64, String, Timestamp)>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select id, line, created_at from announcements where id > $1 order by id limit $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await?))
    }

    /// The place of the newest line; 0 where there is none.
    pub async fn last_announcement(&self) -> Result<i64> {
        Ok(on!(self, read, pool => sqlx::query_scalar("select coalesce(max(id), 0) from announcements")
            .fetch_one(pool)
            .await?))
    }

    /// Forgets lines older than `before`.
    pub async fn prune_announcements(&self, before: Timestamp) -> Result<()> {
        on!(self, write, pool => sqlx::query("delete from announcements where created_at < $1")
            .bind(before)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }
}
