//! What the service knows of users and products: learned from the main API's answers, kept in
//! memory and in the database, shown in conversations.
//!
//! Shown is what is known, however old; the main API is asked again behind the answer once it is
//! older than `REDIS_TTL`. Only who has never been heard of is waited for, and not for long.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use moka::sync::Cache;

use super::{
    cards::{ProductCard, UserProfile},
    flights::Flights,
    main_api::{LookUpError, MainApi, Unavailable},
    saver::Saver,
    shared::{Dated, SharedCards},
    token::Token,
};
use crate::{
    clock::{Clock, Timestamp},
    errors::Result,
    ids::{ProductId, UserId},
    metrics::{self, CardCache},
    shared::Redis,
    storage::{
        Store,
        profiles::{ProductRow, ProfileRow},
    },
};

/// Users and products kept in memory, each: 100,000 of them take some 40 MB.
const MAX_KNOWN: u64 = 100_000;
/// How long a request waits for a first or a fresh answer before it goes on without.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long something that could not be learned is left alone.
const REST: Duration = Duration::from_secs(10);

/// How long a product that one caller may not see is not asked about while cards are shown.
const HIDDEN_FOR: Duration = Duration::from_secs(300);

/// What is known of a product.
#[derive(Debug, Clone, PartialEq)]
pub enum ProductLookUp {
    /// This.
    Known(Arc<ProductCard>),
    /// The main API says that there is none, for this caller at least.
    NotFound,
    /// The main API is away and the product has never been heard of.
    Unavailable,
}

/// The users and products that the service knows. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    main_api: MainApi,
    ttl: Duration,
    clock: Clock,
    saver: Saver,
    /// Users and products that all nodes know.
    shared: Option<(SharedCards, SharedCards)>,
    users: Shelf<UserId, UserProfile>,
    products: Shelf<ProductId, ProductCard>,
    /// Products that some caller may not see, until then. Says nothing of other callers.
    hidden: Cache<ProductId, Timestamp>,
    user_flights: Flights<UserId, ()>,
    // By token too: a product that is not approved exists for its owner alone.
    product_flights: Flights<(ProductId, Token), ProductLookUp>,
}

impl Directory {
    /// `ttl` (`REDIS_TTL`) is the age from which the main API is asked again.
    pub fn new(store: Store, main_api: MainApi, ttl: Duration, clock: Clock) -> Self {
        Self::new_shared(store, main_api, ttl, clock, None)
    }

    /// The same, with what other nodes learned: through `redis`, where there is one.
    pub fn new_shared(
        store: Store,
        main_api: MainApi,
        ttl: Duration,
        clock: Clock,
        redis: Option<&Redis>,
    ) -> Self {
        let shared = redis.map(|redis| {
            let cards = |kind| SharedCards::new(redis.clone(), kind, ttl);
            (cards("profile"), cards("product"))
        });
        let saved = shared.as_ref().map(|(profiles, _)| profiles.clone());
        Self {
            inner: Arc::new(Inner {
                saver: Saver::new(store.clone(), ttl, clock.clone(), saved),
                shared,
                store,
                main_api,
                ttl,
                clock,
                users: Shelf::new(),
                products: Shelf::new(),
                hidden: Cache::builder().max_capacity(MAX_KNOWN).time_to_live(HIDDEN_FOR).build(),
                user_flights: Flights::new(),
                product_flights: Flights::new(),
            }),
        }
    }

    /// Takes in what the main API said of a user; it is known at once and saved behind the answer.
    pub fn learn_user(&self, profile: UserProfile) -> Arc<UserProfile> {
        self.inner.learn_user(profile)
    }

    /// Takes another card of a user, or marks the one that is kept as old. Nodes are to be told after it.
    pub(super) async fn refresh_user(&self, id: UserId, card: Option<UserProfile>) -> Result<()> {
        let inner = &self.inner;
        let Some(card) = card else {
            inner.store.expire_profile(id).await?;
            self.forget_shared_user(id).await;
            self.drop_user(id);
            if inner.main_api.has_profiles() {
                let flight = inner.user_flights.join(id, || Arc::clone(inner).fetch_user(id, None));
                let _ = tokio::time::timeout(PATIENCE, flight).await;
            }
            return Ok(());
        };
        let refreshed_at = inner.clock.now();
        let row = ProfileRow { id, name: card.name, avatar_url: card.avatar_url, refreshed_at };
        inner.store.upsert_profiles(std::slice::from_ref(&row)).await?;
        if let Some((shared, _)) = &inner.shared {
            shared.put(&[(id, Dated::of_profile(&row))], refreshed_at).await;
        }
        Ok(())
    }

    /// The same of a product.
    pub(super) async fn refresh_product(&self, id: ProductId, card: Option<ProductCard>) -> Result<()> {
        let inner = &self.inner;
        let Some(card) = card else {
            inner.store.expire_product(id).await?;
            self.forget_shared_product(id).await;
            return Ok(());
        };
        let refreshed_at = inner.clock.now();
        let row = product_row(&card, refreshed_at);
        inner.store.upsert_product(&row).await?;
        if let Some((_, shared)) = &inner.shared {
            shared.put(&[(id, Dated::of_product(&row))], refreshed_at).await;
        }
        Ok(())
    }

    /// Forgets a user's card in this process; the database or Redis has a newer one.
    pub(super) fn drop_user(&self, id: UserId) {
        self.inner.users.drop(&id);
    }

    /// Forgets a product's card in this process.
    pub(super) fn drop_product(&self, id: ProductId) {
        self.inner.products.drop(&id);
        self.inner.hidden.invalidate(&id);
    }

    /// Whether Redis has forgotten a user's card now.
    pub(super) async fn forget_shared_user(&self, id: UserId) -> bool {
        match &self.inner.shared {
            Some((shared, _)) => shared.forget(id).await,
            None => true,
        }
    }

    /// Whether Redis has forgotten a product's card now.
    pub(super) async fn forget_shared_product(&self, id: ProductId) -> bool {
        match &self.inner.shared {
            Some((_, shared)) => shared.forget(id).await,
            None => true,
        }
    }

    /// What to show of this user; of one never heard of, `User {id}`. The bearer is whoever's asks.
    pub async fn user(&self, id: UserId, bearer: Option<&Token>) -> Arc<UserProfile> {
        let mut users = self.users(&[id], bearer).await;
        users.remove(&id).unwrap_or_else(|| Arc::new(UserProfile::unknown(id)))
    }

    /// What to show of these users: an entry for each of them.
    pub async fn users(&self, ids: &[UserId], bearer: Option<&Token>) -> HashMap<UserId, Arc<UserProfile>> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut found = inner.load_users(ids, now).await;
        let mut flights = Vec::new();
        let mut waited_for = Vec::new();
        if inner.main_api.has_profiles() {
            for id in distinct(ids) {
                let known = found.get(&id);
                if known.is_some_and(|known| inner.is_fresh(known, now)) || inner.users.rests(&id, now) {
                    continue;
                }
                let is_known = known.is_some();
                let flight =
                    inner.user_flights.join(id, || Arc::clone(inner).fetch_user(id, bearer.cloned()));
                if !is_known {
                    flights.push(flight);
                    waited_for.push(id);
                }
            }
        }
        if !flights.is_empty() {
            // The flights go on behind an impatient caller.
            let _ = tokio::time::timeout(PATIENCE, join_all(flights)).await;
            found.extend(waited_for.into_iter().filter_map(|id| Some((id, inner.users.get(&id)?))));
        }
        let shown = |id| {
            let known = found.get(&id).map(|known: &Arc<Known<UserProfile>>| Arc::clone(&known.value));
            (id, known.unwrap_or_else(|| Arc::new(UserProfile::unknown(id))))
        };
        ids.iter().copied().map(shown).collect()
    }

    /// Whether this product exists for the owner of this bearer, and what to show of it.
    ///
    /// For the start of a conversation: what is older than `REDIS_TTL` is asked about again and
    /// waited for, though not for long.
    pub async fn product(&self, id: ProductId, bearer: &Token) -> ProductLookUp {
        let inner = &self.inner;
        let now = inner.clock.now();
        let known = inner.load_products(&[id], now).await.remove(&id);
        let card = known.as_ref().map(|known| Arc::clone(&known.value));
        if let (Some(known), Some(card)) = (&known, &card)
            && (inner.is_fresh(known, now) || inner.products.rests(&id, now))
        {
            return ProductLookUp::Known(Arc::clone(card));
        }
        let flight = inner.fetch_product(id, bearer);
        let Some(card) = card else { return flight.await.unwrap_or(ProductLookUp::Unavailable) };
        match tokio::time::timeout(PATIENCE, flight).await {
            Ok(Some(answer @ (ProductLookUp::Known(_) | ProductLookUp::NotFound))) => answer,
            Ok(Some(ProductLookUp::Unavailable) | None) | Err(_) => ProductLookUp::Known(card),
        }
    }

    /// What to show of these products: an entry for each of them, of an unknown one `Product {id}`.
    ///
    /// Never waits for the main API. With a bearer, what is unknown or old is asked about behind
    /// the answer.
    pub async fn products(
        &self,
        ids: &[ProductId],
        bearer: Option<&Token>,
    ) -> HashMap<ProductId, Arc<ProductCard>> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let found = inner.load_products(ids, now).await;
        if let Some(bearer) = bearer {
            for id in distinct(ids) {
                let fresh = found.get(&id).is_some_and(|known| inner.is_fresh(known, now));
                let hidden = inner.hidden.get(&id).is_some_and(|until| now < until);
                if !fresh && !hidden && !inner.products.rests(&id, now) {
                    drop(inner.fetch_product(id, bearer));
                }
            }
        }
        let shown = |id| {
            let known = found.get(&id).map(|known| Arc::clone(&known.value));
            (id, known.unwrap_or_else(|| Arc::new(ProductCard::unknown(id))))
        };
        ids.iter().copied().map(shown).collect()
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Inner {
    fn is_fresh<T>(&self, known: &Known<T>, now: Timestamp) -> bool {
        now < known.refreshed_at.plus(self.ttl)
    }

    fn learn_user(&self, profile: UserProfile) -> Arc<UserProfile> {
        let now = self.clock.now();
        if let Some(known) = self.users.get(&profile.id)
            && *known.value == profile
            && self.is_fresh(&known, now)
        {
            return Arc::clone(&known.value);
        }
        let profile = Arc::new(profile);
        self.users.put(profile.id, Known { value: Arc::clone(&profile), refreshed_at: now });
        self.saver.save(ProfileRow {
            id: profile.id,
            name: profile.name.clone(),
            avatar_url: profile.avatar_url.clone(),
            refreshed_at: now,
        });
        profile
    }

    async fn fetch_user(self: Arc<Self>, id: UserId, bearer: Option<Token>) {
        match self.main_api.profile(id, bearer.as_ref()).await {
            Ok(profile) => drop(self.learn_user(profile)),
            Err(LookUpError::NotFound) => self.users.rest(id, self.clock.now().plus(self.ttl)),
            Err(LookUpError::Unavailable(unavailable)) => {
                tracing::debug!(user_id = %id, cause = %unavailable.cause, "the main API gave no profile");
                self.users.rest(id, self.clock.now().plus(rest(unavailable)));
            }
        }
    }

    fn fetch_product(
        self: &Arc<Self>,
        id: ProductId,
        bearer: &Token,
    ) -> impl Future<Output = Option<ProductLookUp>> + use<> {
        self.product_flights.join((id, bearer.clone()), || {
            let (inner, bearer) = (Arc::clone(self), bearer.clone());
            async move { inner.ask_product(id, &bearer).await }
        })
    }

    async fn ask_product(&self, id: ProductId, bearer: &Token) -> ProductLookUp {
        let product = match self.main_api.product(bearer, id).await {
            Ok(product) => product,
            Err(LookUpError::NotFound) => {
                self.hidden.insert(id, self.clock.now().plus(HIDDEN_FOR));
                return ProductLookUp::NotFound;
            }
            Err(LookUpError::Unavailable(unavailable)) => {
                tracing::debug!(product_id = %id, cause = %unavailable.cause, "the main API gave no product");
                self.products.rest(id, self.clock.now().plus(rest(unavailable)));
                return ProductLookUp::Unavailable;
            }
        };
        if let Some(owner) = product.owner {
            self.learn_user(owner);
        }
        let card = Arc::new(product.card);
        let refreshed_at = self.clock.now();
        self.products.put(id, Known { value: Arc::clone(&card), refreshed_at });
        let row = product_row(&card, refreshed_at);
        if let Some((_, shared)) = &self.shared {
            shared.put_behind(vec![(id, Dated::of_product(&row))], refreshed_at);
        }
        if let Err(error) = self.store.upsert_product(&row).await {
            tracing::warn!(product_id = %id, error = %error, "a product could not be saved");
        }
        ProductLookUp::Known(card)
    }

    async fn load_users(&self, ids: &[UserId], now: Timestamp) -> HashMap<UserId, Arc<Known<UserProfile>>> {
        let (mut found, mut missing) = self.users.find(ids, now);
        metrics::get().cache_looked_up(CardCache::Users, found.len() + missing.len(), missing.len());
        let known = |row: ProfileRow| {
            let value = UserProfile { id: row.id, name: row.name, avatar_url: row.avatar_url };
            self.users.put_older(row.id, Known { value: Arc::new(value), refreshed_at: row.refreshed_at })
        };
        if let Some((shared, _)) = self.shared.as_ref().filter(|_| !missing.is_empty()) {
            let cards = shared.get(&missing).await.into_iter();
            found.extend(cards.map(|(id, card): (_, Dated<_>)| (id, known(card.into_profile(id)))));
            missing.retain(|id| !found.contains_key(id));
        }
        if missing.is_empty() {
            return found;
        }
        match self.store.load_profiles(&missing).await {
            Ok(rows) => {
                if let Some((shared, _)) = &self.shared {
                    let cards: Vec<_> = rows.iter().map(|row| (row.id, Dated::of_profile(row))).collect();
                    shared.put_behind(cards, now);
                }
                found.extend(rows.into_iter().map(|row| (row.id, known(row))));
                self.users.miss(missing.into_iter().filter(|id| !found.contains_key(id)), now);
            }
            Err(error) => tracing::warn!(error = %error, "profiles could not be loaded"),
        }
        found
    }

    async fn load_products(
        &self,
        ids: &[ProductId],
        now: Timestamp,
    ) -> HashMap<ProductId, Arc<Known<ProductCard>>> {
        let (mut found, mut missing) = self.products.find(ids, now);
        metrics::get().cache_looked_up(CardCache::Products, found.len() + missing.len(), missing.len());
        let known = |row: ProductRow| {
            let (id, refreshed_at) = (row.id, row.refreshed_at);
            self.products.put_older(id, Known { value: Arc::new(product_card(row)), refreshed_at })
        };
        if let Some((_, shared)) = self.shared.as_ref().filter(|_| !missing.is_empty()) {
            let cards = shared.get(&missing).await.into_iter();
            found.extend(cards.map(|(id, card): (_, Dated<_>)| (id, known(card.into_product(id)))));
            missing.retain(|id| !found.contains_key(id));
        }
        if missing.is_empty() {
            return found;
        }
        match self.store.load_products(&missing).await {
            Ok(rows) => {
                if let Some((_, shared)) = &self.shared {
                    let cards: Vec<_> = rows.iter().map(|row| (row.id, Dated::of_product(row))).collect();
                    shared.put_behind(cards, now);
                }
                found.extend(rows.into_iter().map(|row| (row.id, known(row))));
                self.products.miss(missing.into_iter().filter(|id| !found.contains_key(id)), now);
            }
            Err(error) => tracing::warn!(error = %error, "products could not be loaded"),
        }
        found
    }
}

/// What was learned, and when.
struct Known<T> {
    value: Arc<T>,
    refreshed_at: Timestamp,
}

/// One kind of thing in memory: what is known, what is known to be unknown, what is left alone.
struct Shelf<K, T> {
    known: Cache<K, Arc<Known<T>>>,
    /// Not in the database until then, as far as this node knows.
    missing: Cache<K, Timestamp>,
    /// Not to be asked about until then.
    resting: Cache<K, Timestamp>,
}

impl<K, T> Shelf<K, T>
where
    K: Hash + Eq + Copy + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    fn new() -> Self {
        let room = || Cache::builder().max_capacity(MAX_KNOWN);
        Self {
            known: room().build(),
            missing: Cache::builder().max_capacity(MAX_KNOWN).time_to_live(REST).build(),
            resting: Cache::builder().max_capacity(MAX_KNOWN).build(),
        }
    }

    fn get(&self, key: &K) -> Option<Arc<Known<T>>> {
        self.known.get(key)
    }

    fn put(&self, key: K, known: Known<T>) {
        self.missing.invalidate(&key);
        self.resting.invalidate(&key);
        self.known.insert(key, Arc::new(known));
    }

    fn drop(&self, key: &K) {
        self.missing.invalidate(key);
        self.resting.invalidate(key);
        self.known.invalidate(key);
    }

    /// Puts what the database has, unless something newer was learned meanwhile.
    fn put_older(&self, key: K, known: Known<T>) -> Arc<Known<T>> {
        let entry = self.known.entry(key).or_insert_with(|| Arc::new(known));
        entry.into_value()
    }

    /// What is in memory of these, and what is worth looking for in the database.
    fn find(&self, keys: &[K], now: Timestamp) -> (HashMap<K, Arc<Known<T>>>, Vec<K>) {
        let mut found = HashMap::with_capacity(keys.len());
        let mut missing = Vec::new();
        for key in distinct(keys) {
            if let Some(known) = self.known.get(&key) {
                found.insert(key, known);
            } else if self.missing.get(&key).is_none_or(|until| now >= until) {
                missing.push(key);
            }
        }
        (found, missing)
    }

    fn miss(&self, keys: impl Iterator<Item = K>, now: Timestamp) {
        for key in keys {
            self.missing.insert(key, now.plus(REST));
        }
    }

    fn rest(&self, key: K, until: Timestamp) {
        self.resting.insert(key, until);
    }

    fn rests(&self, key: &K, now: Timestamp) -> bool {
        self.resting.get(key).is_some_and(|until| now < until)
    }
}

fn rest(unavailable: Unavailable) -> Duration {
    unavailable.retry_after.max(REST)
}

fn distinct<K: Hash + Eq + Copy>(keys: &[K]) -> HashSet<K> {
    keys.iter().copied().collect()
}

fn product_row(card: &ProductCard, refreshed_at: Timestamp) -> ProductRow {
    ProductRow {
        id: card.id,
        title: card.title.clone(),
        thumbnail_url: card.thumbnail_url.clone(),
        image_urls: serde_json::Value::from(card.image_urls.as_slice()).to_string(),
        price_per_day: card.price_per_day,
        owner_id: card.owner_id,
        refreshed_at,
    }
}

fn product_card(row: ProductRow) -> ProductCard {
    ProductCard {
        id: row.id,
        title: row.title,
        thumbnail_url: row.thumbnail_url,
        image_urls: serde_json::from_str(&row.image_urls).unwrap_or_default(),
        price_per_day: row.price_per_day,
        owner_id: row.owner_id,
    }
}
