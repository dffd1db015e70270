//! What the main API told about users and products, and when a user was last seen.

use super::{Database, IdList, Result, Store, on};
use crate::{
    clock::Timestamp,
    ids::{ProductId, UserId},
};

/// A user as the marketplace shows them. Never an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ProfileRow {
    /// The user.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Their picture.
    pub avatar_url: Option<String>,
    /// When the main API last said so.
    pub refreshed_at: Timestamp,
}

/// A product as conversations show it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ProductRow {
    /// The product.
    pub id: ProductId,
    /// Its title.
    pub title: String,
    /// Its small picture.
    pub thumbnail_url: Option<String>,
    /// Its pictures: a JSON array of URLs, as text.
    pub image_urls: String,
    /// In the marketplace's currency.
    pub price_per_day: Option<f64>,
    /// Whose it is.
    pub owner_id: Option<UserId>,
    /// When the main API last said so.
    pub refreshed_at: Timestamp,
}

impl Store {
    /// Remembers profiles; newer ones replace older ones.
    pub async fn upsert_profiles(&self, profiles: &[ProfileRow]) -> Result<()> {
        for profile in profiles {
            on!(self, write, pool => sqlx::query(
                "insert into user_profiles (id, name, avatar_url, refreshed_at) values ($1, $2, $3, $4)
                 on conflict (id) do update set name = excluded.name, avatar_url = excluded.avatar_url,
                     refreshed_at = excluded.refreshed_at
                 where user_profiles.refreshed_at <= excluded.refreshed_at",
            )
            .bind(profile.id)
            .bind(&profile.name)
            .bind(&profile.avatar_url)
            .bind(profile.refreshed_at)
            .execute(pool)
            .await
            .map(drop)?);
        }
        Ok(())
    }

    /// Marks a user's profile as old, so that it is asked about at the next occasion.
    pub async fn expire_profile(&self, user: UserId) -> Result<()> {
        on!(self, write, pool => sqlx::query("update user_profiles set refreshed_at = $2 where id = $1")
            .bind(user)
            .bind(Timestamp::EPOCH)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Marks a product as old, so that it is asked about at the next occasion.
    pub async fn expire_product(&self, product: ProductId) -> Result<()> {
        on!(self, write, pool => sqlx::query("update product_cards set refreshed_at = $2 where id = $1")
            .bind(product)
            .bind(Timestamp::EPOCH)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// The profiles that are known of these users.
    pub async fn load_profiles(&self, users: &[UserId]) -> Result<Vec<ProfileRow>> {
        let ids = IdList(users.iter().map(|user| user.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(
                    "select id, name, avatar_url, refreshed_at from user_profiles where id = any($1)",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select id, name, avatar_url, refreshed_at from user_profiles
                     where id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        })
    }

    /// Remembers a product.
    pub async fn upsert_product(&self, product: &ProductRow) -> Result<()> {
        on!(self, write, pool => sqlx::query(
            "insert into product_cards (id, title, thumbnail_url, image_urls, price_per_day, owner_id, refreshed_at)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (id) do update set title = excluded.title, thumbnail_url = excluded.thumbnail_url,
                 image_urls = excluded.image_urls, price_per_day = excluded.price_per_day,
                 owner_id = excluded.owner_id, refreshed_at = excluded.refreshed_at
             where product_cards.refreshed_at <= excluded.refreshed_at",
        )
        .bind(product.id)
        .bind(&product.title)
        .bind(&product.thumbnail_url)
        .bind(&product.image_urls)
        .bind(product.price_per_day)
        .bind(product.owner_id)
        .bind(product.refreshed_at)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// The products that are known of these.
    pub async fn load_products(&self, products: &[ProductId]) -> Result<Vec<ProductRow>> {
        let ids = IdList(products.iter().map(|product| product.0).collect());
        Ok(match &self.database {
            Database::Postgres { read, .. } => {
                sqlx::query_as(
                    "select id, title, thumbnail_url, image_urls, price_per_day, owner_id, refreshed_at
                     from product_cards where id = any($1)",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
            Database::Sqlite { read, .. } => {
                sqlx::query_as(
                    "select id, title, thumbnail_url, image_urls, price_per_day, owner_id, refreshed_at
                     from product_cards where id in (select value from json_each($1))",
                )
                .bind(ids)
                .fetch_all(read)
                .await?
            }
        })
    }
}
