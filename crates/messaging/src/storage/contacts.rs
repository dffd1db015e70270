//! Where people want mail. Read by `notify::email` and written by `identity::contacts`, nobody else.

use sqlx::FromRow;

use super::{Database, IdList, Result, Store, on};
use crate::ids::UserId;

/// Where a person wants mail. Without `Debug`: an address is never shown.
#[derive(Clone, PartialEq, Eq, FromRow)]
pub struct ContactRow {
    /// The person.
    pub user_id: UserId,
    /// The address.
    pub email: String,
    /// Their language, a tag of BCP 47, where the main API tells it.
    pub language: Option<String>,
}

impl Store {
    /// Those of these people's contacts that are known.
    pub async fn contacts(&self, users: &[UserId]) -> Result<Vec<ContactRow>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as("select user_id, email, language from user_contacts where user_id = any($1)")
                    .bind(ids)
                    .fetch_all(read)
                    .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select user_id, email, language from user_contacts
                     where user_id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Remembers contacts. An address that the mail system refused is tried again only when it is another.
    pub async fn upsert_contacts(&self, contacts: &[ContactRow]) -> Result<()> {
        let now = self.clock.now();
        for contact in contacts {
            on!(self, write, pool => sqlx::query(
                "insert into user_contacts as u (user_id, email, language, refreshed_at) values ($1, $2, $3, $4)
                 on conflict (user_id) do update set email = excluded.email, language = excluded.language,
                     refreshed_at = excluded.refreshed_at,
                     refused_at = case when u.email = excluded.email then u.refused_at end",
            )
            .bind(contact.user_id)
            .bind(&contact.email)
            .bind(&contact.language)
            .bind(now)
            .execute(pool)
            .await
            .map(drop)?);
        }
        Ok(())
    }

    /// Forgets the address of somebody whose account has no usable one any more.
    pub async fn forget_contact(&self, user: UserId) -> Result<()> {
        on!(self, write, pool => sqlx::query("delete from user_contacts where user_id = $1")
            .bind(user)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// The address to mail a person at, unless the mail system refused it.
    pub async fn contact(&self, user: UserId) -> Result<Option<ContactRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select user_id, email, language from user_contacts where user_id = $1 and refused_at is null",
        )
        .bind(user)
        .fetch_optional(pool)
        .await?))
    }

    /// Notes that the mail system refused this address for good.
    pub async fn refuse_contact(&self, contact: &ContactRow) -> Result<()> {
        let now = self.clock.now();
        on!(self, write, pool => sqlx::query(
            "update user_contacts set refused_at = $3 where user_id = $1 and email = $2",
        )
        .bind(contact.user_id)
        .bind(&contact.email)
        .bind(now)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }
}
