//! Who is calling, and what is known of users and products.
//!
//! `main_api` asks the marketplace, `cache` and `flights` keep it from being asked twice, `jwt`
//! refuses what it need not be asked about; `profiles` knows the names and cards that conversations
//! show; `announcements` tells all nodes what to forget. What a caller may do is decided in `chat`,
//! not here.

mod announcements;
mod cache;
pub mod cards;
pub mod contacts;
mod flights;
mod jwt;
pub mod main_api;
pub mod profiles;
mod saver;
mod shared;
mod token;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use announcements::Reason;
pub use cards::{ProductCard, UserProfile};
pub use contacts::Contacts;
pub use main_api::MainApi;
pub use profiles::{Directory, ProductLookUp};
pub use token::Token;

use crate::{
    clock::{Clock, Timestamp},
    config::{Jwt, Secret},
    delivery::bus::Bus,
    errors::Error,
    ids::{ProductId, UserId},
    metrics::{self, TokenLookUp},
    shared::Redis,
    storage::{Store, StoreError},
};
use announcements::{Announcement, Nodes};
use cache::{Checked, Subject, TokenCache, Verdict};
use flights::Flights;
use jwt::JwtCheck;
use main_api::{Unavailable, UserError};
use shared::{SharedToken, SharedTokens};
use token::TokenKey;

/// The shortest that an answer is remembered: a token at its very end would otherwise be asked about
/// again and again by those that re-validate when it expires.
const AT_LEAST: Duration = Duration::from_secs(1);
/// How often a caller tries again whose answer was forgotten while it was under way.
const ATTEMPTS: u32 = 3;

/// Who makes a request or holds a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub user_id: UserId,
    /// What everybody may see of them.
    pub profile: Arc<UserProfile>,
    /// Their bearer, for questions to the main API on their behalf.
    pub token: Token,
    /// When the token must be validated again.
    pub expires_at: Timestamp,
}

/// Whose connections are to be closed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Those that came with a token; whose it is, if that is known.
    Token(Forgotten, Option<UserId>),
    /// All of a user's.
    User(UserId, Reason),
}

/// A token that was forgotten; only whether another one is it can be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten(TokenKey);

/// Closes connections of this node.
type CutConnections = Box<dyn Fn(Cut) + Send + Sync>;

/// Says whose a token is. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    main_api: MainApi,
    directory: Directory,
    /// Where people want mail; only if anybody sends some.
    contacts: OnceLock<Contacts>,
    jwt: JwtCheck,
    cache: TokenCache,
    /// What other nodes know.
    shared: Option<SharedTokens>,
    /// The other nodes, if there may be any.
    nodes: Option<Nodes>,
    /// Cuts connections; set once.
    cut: OnceLock<CutConnections>,
    flights: Flights<TokenKey, Result<Arc<Checked>, UserError>>,
    key: [u8; 32],
    ttl: Duration,
    clock: Clock,
}

impl Identity {
    /// `key` turns tokens into what the cache knows them by: any 32 random bytes, kept in memory
    /// alone unless the cache is shared. `ttl` is `REDIS_TTL`. Whom it sees, `directory` learns.
    pub fn new(
        main_api: MainApi,
        directory: Directory,
        jwt: &Jwt,
        key: [u8; 32],
        ttl: Duration,
        clock: Clock,
    ) -> Self {
        Self::new_shared(main_api, directory, jwt, key, ttl, clock, None)
    }

    /// The same, with what other nodes know: `key` must then be theirs too.
    pub fn new_shared(
        main_api: MainApi,
        directory: Directory,
        jwt: &Jwt,
        key: [u8; 32],
        ttl: Duration,
        clock: Clock,
        shared: Option<(Redis, Bus, Store)>,
    ) -> Self {
        let (shared, nodes) = match shared {
            Some((redis, bus, store)) => (Some(SharedTokens::new(redis, ttl)), Some(Nodes::new(bus, store))),
            None => (None, None),
        };
        let identity = Self {
            inner: Arc::new(Inner {
                shared,
                nodes,
                cut: OnceLock::new(),
                main_api,
                directory,
                contacts: OnceLock::new(),
                jwt: JwtCheck::new(jwt),
                cache: TokenCache::new(ttl),
                flights: Flights::new(),
                key,
                ttl,
                clock,
            }),
        };
        announcements::start(&identity.inner);
        identity
    }

    /// Keeps from now on what the main API says of mail to those whose tokens it is asked about.
    pub fn keep_contacts(&self, contacts: Contacts) {
        // Set once, at the start.
        let _ = self.inner.contacts.set(contacts);
    }

    /// Whose token this is; one leading `Bearer ` is taken off.
    ///
    /// [`Error::Unauthenticated`] where it is not valid, [`Error::AuthUnavailable`] where the main
    /// API cannot say. Costs a hash and a look into memory once the token is known.
    pub async fn authenticate(&self, token: &str) -> Result<Arc<Caller>, Error> {
        let inner = &self.inner;
        let token = Token::parse(token).ok_or(Error::Unauthenticated)?;
        let key = TokenKey::new(&inner.key, &token);
        for _ in 0..ATTEMPTS {
            let now = inner.clock.now();
            match inner.cache.get(&key, now) {
                Verdict::Valid(checked) => {
                    metrics::get().token_looked_up(TokenLookUp::Valid);
                    return Ok(caller(&checked, token));
                }
                Verdict::Refused => {
                    metrics::get().token_looked_up(TokenLookUp::Refused);
                    return Err(Error::Unauthenticated);
                }
                Verdict::Unknown => metrics::get().token_looked_up(TokenLookUp::Unknown),
            }
            if inner.jwt.check(token.expose(), now).is_err() {
                return Err(Error::Unauthenticated);
            }
            let answer = inner.flights.join(key, || Arc::clone(inner).ask(key, token.clone())).await;
            match answer {
                Some(Ok(checked)) if inner.cache.stands(&key, &checked) => {
                    return Ok(caller(&checked, token));
                }
                Some(Ok(_)) => {}
                Some(Err(UserError::Invalid)) => return Err(Error::Unauthenticated),
                Some(Err(UserError::Unavailable(Unavailable { retry_after, .. }))) => {
                    return Err(Error::AuthUnavailable { retry_after });
                }
                None => break,
            }
        }
        Err(Error::AuthUnavailable { retry_after: AT_LEAST })
    }

    /// Forgets what is known of this token, on all nodes, and cuts the connections that came with it: the
    /// next use asks the main API. An error means that another node may not have heard: call again.
    pub async fn forget(&self, token: &str) -> Result<(), Error> {
        match Token::parse(token) {
            Some(token) => {
                self.inner.announce(Announcement::Token(TokenKey::new(&self.inner.key, &token))).await
            }
            None => Ok(()),
        }
    }

    /// Forgets what is known of all of this user's tokens, on all nodes, and but for a refresh cuts their
    /// connections. An error means that another node may not have heard: call again.
    pub async fn forget_user(&self, user: UserId, reason: Reason) -> Result<(), Error> {
        self.inner.announce(Announcement::User(user, reason)).await
    }

    /// Takes another card of a user, or has the main API asked for it at the next occasion; on all nodes.
    pub async fn refresh_user(&self, user: UserId, card: Option<UserProfile>) -> Result<(), Error> {
        let is_given = card.is_some();
        self.inner.directory.refresh_user(user, card).await?;
        self.inner.announce(Announcement::Profile(user)).await?;
        if !is_given {
            // Without a path for profiles, theirs comes with their own token.
            self.forget_user(user, Reason::Refresh).await?;
        }
        Ok(())
    }

    /// Takes another card of a product, or has the main API asked for it at the next occasion; on all nodes.
    pub async fn refresh_product(&self, product: ProductId, card: Option<ProductCard>) -> Result<(), Error> {
        self.inner.directory.refresh_product(product, card).await?;
        self.inner.announce(Announcement::Product(product)).await
    }

    /// Says how to close connections; only the first word counts.
    pub fn on_cut(&self, cut: impl Fn(Cut) + Send + Sync + 'static) {
        let _ = self.inner.cut.set(Box::new(cut));
    }

    /// Changes whenever something was forgotten: whoever let somebody in meanwhile looks again.
    pub fn forgettings(&self) -> u64 {
        self.inner.cache.sequence()
    }

    /// Whether this is that token.
    pub fn is_forgotten(&self, token: &Token, Forgotten(forgotten): Forgotten) -> bool {
        TokenKey::new(&self.inner.key, token) == forgotten
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("main_api", &self.inner.main_api).finish_non_exhaustive()
    }
}

impl Inner {
    async fn ask(self: Arc<Self>, key: TokenKey, token: Token) -> Result<Arc<Checked>, UserError> {
        // Another flight may have landed between the caller's look and this one's start.
        match self.cache.get(&key, self.clock.now()) {
            Verdict::Valid(checked) => return Ok(checked),
            Verdict::Refused => return Err(UserError::Invalid),
            Verdict::Unknown => {}
        }
        let asked_at = self.cache.sequence();
        let began = self.clock.now();
        if let Some(tokens) = &self.shared
            && self.nodes.as_ref().is_none_or(Nodes::is_redis_told)
            && let Some(known) = tokens.get(&key, began).await
        {
            let expires_at = known.expires_at().min(self.expiry(&token, began));
            let profile = Arc::new(known.into_profile());
            let checked = Arc::new(Checked { profile, expires_at, asked_at });
            self.cache.put(key, Arc::clone(&checked));
            return Ok(checked);
        }
        let answer = self.main_api.user(&token).await;
        let now = self.clock.now();
        match answer {
            Ok((profile, contact)) => {
                if let Some(contacts) = self.contacts.get() {
                    contacts.learn(profile.id, contact);
                }
                let profile = self.directory.learn_user(profile);
                let checked = Arc::new(Checked { profile, expires_at: self.expiry(&token, now), asked_at });
                self.cache.put(key, Arc::clone(&checked));
                self.share(key, &checked, began).await;
                Ok(checked)
            }
            Err(UserError::Invalid) => {
                if let Some(tokens) = &self.shared {
                    tokens.forget(&key).await;
                }
                self.cache.put_refused(key, now);
                Err(UserError::Invalid)
            }
            Err(UserError::Unavailable(unavailable)) => {
                tracing::warn!(cause = %unavailable.cause, "the main API cannot say whose a token is");
                Err(UserError::Unavailable(unavailable))
            }
        }
    }

    async fn share(&self, key: TokenKey, checked: &Checked, began: Timestamp) {
        let Some(tokens) = &self.shared else { return };
        let shared = SharedToken::new(&checked.profile, checked.expires_at, began);
        tokens.put(&key, &shared, self.clock.now()).await;
        // It may have been forgotten while it was on its way there.
        if !self.cache.stands(&key, checked) {
            tokens.forget(&key).await;
        }
    }

    /// Does here what was said to all.
    fn take(&self, announcement: Announcement) {
        let cut = match announcement {
            Announcement::Token(token) => {
                let user = self.cache.user_of(&token);
                self.cache.forget(Subject::Token(token));
                Cut::Token(Forgotten(token), user)
            }
            Announcement::User(user, reason) => {
                self.cache.forget(Subject::User(user));
                if reason == Reason::Refresh {
                    return;
                }
                Cut::User(user, reason)
            }
            Announcement::Profile(user) => return self.directory.drop_user(user),
            Announcement::Product(product) => return self.directory.drop_product(product),
        };
        if let Some(cut_connections) = self.cut.get() {
            cut_connections(cut);
        }
    }

    /// `min(REDIS_TTL, exp)`.
    fn expiry(&self, token: &Token, now: Timestamp) -> Timestamp {
        let latest = now.plus(self.ttl);
        let end = self.jwt.check(token.expose(), now).ok().flatten().unwrap_or(latest);
        latest.min(end.max(now.plus(AT_LEAST)))
    }
}

fn caller(checked: &Checked, token: Token) -> Arc<Caller> {
    Arc::new(Caller {
        user_id: checked.profile.id,
        profile: Arc::clone(&checked.profile),
        token,
        expires_at: checked.expires_at,
    })
}

/// The key under which nodes that share a secret know tokens alike; others make one of their own.
pub fn cache_key(secret: Option<&Secret>) -> [u8; 32] {
    match secret {
        Some(secret) => derived_key(secret.expose()),
        None => rand::random(),
    }
}

/// The key for nodes that share a Redis: derived from the secret, or else made once and kept in the
/// database, so that all of them know tokens alike.
pub async fn shared_cache_key(secret: Option<&Secret>, store: &Store) -> Result<[u8; 32], StoreError> {
    if secret.is_some() {
        return Ok(cache_key(secret));
    }
    let made = || uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string();
    Ok(derived_key(&store.setting("token_cache_key", made).await?))
}

fn derived_key(secret: &str) -> [u8; 32] {
    use hmac::{Hmac, Mac};
    let mut mac =
        Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(b"rented-messaging token cache");
    mac.finalize().into_bytes().into()
}
