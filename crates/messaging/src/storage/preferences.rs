//! How a person wants to be notified, and whether others see their presence.

use sqlx::FromRow;

use super::{Result, Store, in_transaction, on};
use crate::{clock::Timestamp, ids::UserId};

/// A person's preferences; of one who never set any, the defaults.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PreferencesRow {
    /// Push to their devices.
    pub push: bool,
    /// E-mail.
    pub email: bool,
    /// When not to push, JSON text.
    pub quiet_hours: Option<String>,
    /// Nobody sees whether they are online, or when they were.
    pub is_private: bool,
    /// When they were last seen, private or not.
    pub last_seen: Option<Timestamp>,
}

/// What is to change; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreferencesChange {
    /// Push to their devices.
    pub push: Option<bool>,
    /// E-mail.
    pub email: Option<bool>,
    /// When not to push, JSON text; `Some(None)` is never.
    pub quiet_hours: Option<Option<String>>,
    /// Nobody sees whether they are online, or when they were.
    pub is_private: Option<bool>,
}

impl Store {
    /// A person's preferences.
    pub async fn preferences(&self, user: UserId) -> Result<PreferencesRow> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select coalesce(n.push, true) as push, coalesce(n.email, true) as email, n.quiet_hours,
                 coalesce(s.is_private, false) as is_private, s.last_seen
             from (select cast($1 as bigint) as id) u
             left join notification_preferences n on n.user_id = u.id
             left join user_presence s on s.user_id = u.id",
        )
        .bind(user)
        .fetch_one(pool)
        .await?))
    }

    /// Changes a person's preferences.
    pub async fn change_preferences(&self, user: UserId, change: &PreferencesChange) -> Result<()> {
        let now = self.clock.now();
        let PreferencesChange { push, email, quiet_hours, is_private } = change;
        in_transaction!(self, connection => {
            sqlx::query(
                "insert into notification_preferences as n (user_id, push, email, quiet_hours, updated_at)
                 values ($1, coalesce($2, true), coalesce($3, true), $5, $6)
                 on conflict (user_id) do update set push = coalesce($2, n.push), email = coalesce($3, n.email),
                     quiet_hours = case when $4 then $5 else n.quiet_hours end, updated_at = $6",
            )
            .bind(user)
            .bind(*push)
            .bind(*email)
            .bind(quiet_hours.is_some())
            .bind(quiet_hours.clone().flatten())
            .bind(now)
            .execute(&mut *connection)
            .await?;
            if let Some(is_private) = is_private {
                sqlx::query(
                    "insert into user_presence (user_id, is_private) values ($1, $2)
                     on conflict (user_id) do update set is_private = excluded.is_private",
                )
                .bind(user)
                .bind(*is_private)
                .execute(&mut *connection)
                .await?;
            }
        });
        Ok(())
    }
}
