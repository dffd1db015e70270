//! Places of those who walk the messages by id, and which node walks: one at a time, by a lease.

use std::time::Duration;

use super::{Result, Store, on};

/// Who walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Looks for pushes that were missed.
    Push,
    /// Looks for messages to mail about.
    Email,
}

impl Sweep {
    const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Email => "email",
        }
    }
}

impl Store {
    /// Sets the place behind the newest message if there is none yet: what was sent before this was switched on
    /// for the first time is nobody's news.
    pub async fn begin_sweep(&self, sweep: Sweep) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "insert into notification_sweeps (name, message_id)
             select cast($1 as varchar(20)), coalesce(max(id), 0) from messages where true
             on conflict (name) do nothing",
        )
        .bind(sweep.name())
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Takes or renews the lease for a node. Answers the place to go on from; `None` while another node has it.
    pub async fn lease_sweep(&self, sweep: Sweep, node: i64, lease: Duration) -> Result<Option<i64>> {
        let now = self.clock.now();
        Ok(on!(self, write, pool => sqlx::query_scalar(
            "update notification_sweeps set leased_by = $2, leased_until = $3
             where name = $1 and (leased_by = $2 or leased_until is null or leased_until <= $4)
             returning message_id",
        )
        .bind(sweep.name())
        .bind(node)
        .bind(now.plus(lease))
        .bind(now)
        .fetch_optional(pool)
        .await?))
    }

    /// Gives the lease up before it is over, for another node to go on at once.
    pub async fn release_sweep(&self, sweep: Sweep, node: i64) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "update notification_sweeps set leased_until = null where name = $1 and leased_by = $2",
        )
        .bind(sweep.name())
        .bind(node)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Notes that everything up to a message was looked at, if the lease is still this node's; the place never
    /// goes back.
    pub async fn advance_sweep(&self, sweep: Sweep, node: i64, message_id: i64) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "update notification_sweeps set message_id = $3
             where name = $1 and leased_by = $2 and message_id < $3",
        )
        .bind(sweep.name())
        .bind(node)
        .bind(message_id)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }
}
