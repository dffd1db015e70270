//! What nodes know in common of tokens, users and products, in Redis for `REDIS_TTL`.
//!
//! A second level behind each node's own: a token that one node had checked is not asked about again by
//! the next, to which its client comes back. Nothing here is needed to answer.

use std::{fmt::Display, time::Duration};

use redis::Value;
use serde::{Serialize, de::DeserializeOwned};

use super::{cards::UserProfile, token::TokenKey};
use crate::{
    clock::Timestamp,
    ids::{ProductId, UserId},
    shared::{PATIENCE, Redis},
    storage::profiles::{ProductRow, ProfileRow},
};

/// Cards are written behind the answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// Clocks of two nodes differ by less: what was asked for this shortly after a forgetting counts as
/// asked before.
pub(super) const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// Cards of one kind, by id.
#[derive(Clone)]
pub(super) struct SharedCards {
    redis: Redis,
    kind: &'static str,
    ttl: Duration,
}

/// A card and when the main API gave it.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(super) struct Dated<T> {
    pub(super) card: T,
    pub(super) refreshed_at_ms: i64,
}

/// A profile, but for its id: name and picture.
pub(super) type ProfileCard = (String, Option<String>);
/// A product, but for its id: title, small picture, pictures, price and owner.
pub(super) type ProductFields = (String, Option<String>, String, Option<f64>, Option<UserId>);

impl Dated<ProfileCard> {
    pub(super) fn of_profile(row: &ProfileRow) -> Self {
        let card = (row.name.clone(), row.avatar_url.clone());
        Self { card, refreshed_at_ms: row.refreshed_at.as_millis() }
    }

    pub(super) fn into_profile(self, id: UserId) -> ProfileRow {
        let (name, avatar_url) = self.card;
        ProfileRow { id, name, avatar_url, refreshed_at: Timestamp::from_millis(self.refreshed_at_ms) }
    }
}

impl Dated<ProductFields> {
    pub(super) fn of_product(row: &ProductRow) -> Self {
        let ProductRow { title, thumbnail_url, image_urls, price_per_day, owner_id, .. } = row.clone();
        let card = (title, thumbnail_url, image_urls, price_per_day, owner_id);
        Self { card, refreshed_at_ms: row.refreshed_at.as_millis() }
    }

    pub(super) fn into_product(self, id: ProductId) -> ProductRow {
        let (title, thumbnail_url, image_urls, price_per_day, owner_id) = self.card;
        let refreshed_at = Timestamp::from_millis(self.refreshed_at_ms);
        ProductRow { id, title, thumbnail_url, image_urls, price_per_day, owner_id, refreshed_at }
    }
}

impl SharedCards {
    pub(super) fn new(redis: Redis, kind: &'static str, ttl: Duration) -> Self {
        Self { redis, kind, ttl }
    }

    fn key(&self, id: impl Display) -> String {
        self.redis.key(format_args!("{}:{id}", self.kind))
    }

    /// Those of these that are there.
    pub(super) async fn get<K, T>(&self, ids: &[K]) -> Vec<(K, Dated<T>)>
    where
        K: Display + Copy,
        T: DeserializeOwned,
    {
        let commands: Vec<_> = ids.iter().map(|id| redis::cmd("GET").arg(self.key(id)).clone()).collect();
        let Ok(answers) = self.redis.ask_all(&commands, PATIENCE).await else { return Vec::new() };
        let card = |answer| match answer {
            Ok(Value::BulkString(json)) => serde_json::from_slice(&json).ok(),
            _ => None,
        };
        ids.iter().zip(answers).filter_map(|(id, answer)| Some((*id, card(answer)?))).collect()
    }

    /// Whether Redis has forgotten it now.
    pub(super) async fn forget(&self, id: impl Display) -> bool {
        self.redis.ask::<Value>(redis::cmd("DEL").arg(self.key(id))).await.is_ok()
    }

    /// [`Self::put`], not waited for.
    pub(super) fn put_behind<K, T>(&self, cards: Vec<(K, Dated<T>)>, now: Timestamp)
    where
        K: Display + Send + Sync + 'static,
        T: Serialize + Send + Sync + 'static,
    {
        let shared = self.clone();
        tokio::spawn(async move { shared.put(&cards, now).await });
    }

    pub(super) async fn put<K, T>(&self, cards: &[(K, Dated<T>)], now: Timestamp)
    where
        K: Display,
        T: Serialize,
    {
        let commands: Vec<_> = cards
            .iter()
            .filter_map(|(id, card)| {
                let left = Timestamp::from_millis(card.refreshed_at_ms).plus(self.ttl).since(now);
                let json = serde_json::to_vec(card).ok().filter(|_| !left.is_zero())?;
                Some(redis::cmd("SET").arg(self.key(id)).arg(json).arg("PX").arg(millis(left)).clone())
            })
            .collect();
        // Not there is as good as never put.
        let _ = self.redis.ask_all(&commands, WRITE_PATIENCE).await;
    }
}

/// Tokens that the main API accepted.
pub(super) struct SharedTokens {
    redis: Redis,
    ttl: Duration,
}

/// One of them; the token itself is nowhere.
#[derive(Serialize, serde::Deserialize)]
pub(super) struct SharedToken {
    user_id: UserId,
    name: String,
    avatar_url: Option<String>,
    expires_at_ms: i64,
    asked_at_ms: i64,
}

impl SharedToken {
    pub(super) fn new(profile: &UserProfile, expires_at: Timestamp, asked_at: Timestamp) -> Self {
        Self {
            user_id: profile.id,
            name: profile.name.clone(),
            avatar_url: profile.avatar_url.clone(),
            expires_at_ms: expires_at.as_millis(),
            asked_at_ms: asked_at.as_millis(),
        }
    }

    pub(super) const fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis(self.expires_at_ms)
    }

    pub(super) fn into_profile(self) -> UserProfile {
        UserProfile { id: self.user_id, name: self.name, avatar_url: self.avatar_url }
    }
}

impl SharedTokens {
    pub(super) fn new(redis: Redis, ttl: Duration) -> Self {
        Self { redis, ttl }
    }

    fn token_key(&self, token: &TokenKey) -> String {
        self.redis.key(format_args!("token:{token}"))
    }

    fn forgotten_key(&self, user: UserId) -> String {
        self.redis.key(format_args!("forgotten:{user}"))
    }

    /// The token, if it is there and its user was not forgotten since it was asked about.
    pub(super) async fn get(&self, token: &TokenKey, now: Timestamp) -> Option<SharedToken> {
        let json: Option<Vec<u8>> =
            self.redis.ask(redis::cmd("GET").arg(self.token_key(token))).await.ok()?;
        let shared: SharedToken = serde_json::from_slice(&json?).ok()?;
        let forgotten: Option<i64> =
            self.redis.ask(redis::cmd("GET").arg(self.forgotten_key(shared.user_id))).await.ok()?;
        let stands = forgotten
            .is_none_or(|at| shared.asked_at_ms > Timestamp::from_millis(at).plus(CLOCKS_DIFFER).as_millis());
        (stands && now < shared.expires_at()).then_some(shared)
    }

    pub(super) async fn put(&self, token: &TokenKey, shared: &SharedToken, now: Timestamp) {
        let left = shared.expires_at().since(now);
        if let Ok(json) = serde_json::to_vec(shared)
            && !left.is_zero()
        {
            let mut command = redis::cmd("SET");
            command.arg(self.token_key(token)).arg(json).arg("PX").arg(millis(left));
            let _ = self.redis.ask::<Value>(&command).await;
        }
    }

    /// Whether Redis has forgotten it now.
    pub(super) async fn forget(&self, token: &TokenKey) -> bool {
        self.redis.ask::<Value>(redis::cmd("DEL").arg(self.token_key(token))).await.is_ok()
    }

    /// Whether Redis knows now that all tokens of the user are forgotten.
    pub(super) async fn forget_user(&self, user: UserId, now: Timestamp) -> bool {
        let mut command = redis::cmd("SET");
        command.arg(self.forgotten_key(user)).arg(now.as_millis()).arg("PX").arg(millis(self.ttl));
        self.redis.ask::<Value>(&command).await.is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
