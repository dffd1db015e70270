//! What every node must hear of tokens, users and products: said over Redis at once, kept in the
//! database for nodes that did not hear it.
//!
//! A node that shares a Redis looks into the database once a second, which costs next to nothing, so
//! that a lost publication, a Redis that is away or a process that stood still delays what is said by
//! a second and no longer. What Redis itself should have forgotten while it was away is forgotten there
//! before it is believed again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Inner, token::TokenKey};
use crate::{
    delivery::bus::Bus,
    errors::Result,
    ids::{ProductId, UserId},
    storage::Store,
};

/// How often the database is looked into.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often old lines are deleted there.
const PRUNE_EVERY: u32 = 600;
/// Longer than any node may remember a token, where `REDIS_TTL` is not longer still.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Places are given out before their commit: so many of the newest lines are looked at again.
const WINDOW: i64 = 64;
/// Lines read at once.
const PAGE: i64 = 500;
/// Lines remembered as heard; more than can be told within a second or two.
const REMEMBERED: usize = 20_000;
/// Lines that Redis does not know of yet. Beyond them Redis is not believed until it has heard them all.
const MAX_UNCARRIED: usize = 20_000;
/// What the lines on the bus begin with.
const WORD: &str = "announce";

/// Why a user's tokens are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// What they are called may have changed; their connections stay.
    Refresh,
    /// They signed out everywhere, or were erased.
    Logout,
    /// They are not to come back.
    Ban,
}

impl Reason {
    /// As requests and lines write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::Ban => "ban",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Refresh, Self::Logout, Self::Ban].into_iter().find(|reason| reason.name() == name)
    }
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announcement {
    /// Forget this token; its connections are cut.
    Token(TokenKey),
    /// Forget all tokens of this user.
    User(UserId, Reason),
    /// Their card is another one now.
    Profile(UserId),
    /// Its card is another one now.
    Product(ProductId),
}

impl Announcement {
    fn line(self) -> String {
        match self {
            Self::Token(token) => format!("forget-token {token}"),
            Self::User(user, reason) => format!("forget-user {user} {}", reason.name()),
            Self::Profile(user) => format!("refresh-user {user}"),
            Self::Product(product) => format!("refresh-product {product}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        Some(match word {
            "forget-token" => Self::Token(TokenKey::parse(rest)?),
            "forget-user" => {
                let (user, reason) = rest.split_once(' ')?;
                Self::User(UserId(user.parse().ok()?), Reason::parse(reason)?)
            }
            "refresh-user" => Self::Profile(UserId(rest.parse().ok()?)),
            "refresh-product" => Self::Product(ProductId(rest.parse().ok()?)),
            _ => return None,
        })
    }
}

/// The way to the other nodes, and what was heard of them.
pub(super) struct Nodes {
    bus: Bus,
    store: Store,
    heard: Mutex<Heard>,
    uncarried: Mutex<VecDeque<Announcement>>,
}

/// Which lines were heard: each says its own random name.
#[derive(Default)]
struct Heard {
    names: HashSet<String>,
    order: VecDeque<String>,
}

impl Heard {
    /// `false` if it was heard before.
    fn note(&mut self, name: &str) -> bool {
        if !self.names.insert(name.to_owned()) {
            return false;
        }
        self.order.push_back(name.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        true
    }
}

impl Nodes {
    pub(super) fn new(bus: Bus, store: Store) -> Self {
        Self { bus, store, heard: Mutex::default(), uncarried: Mutex::default() }
    }

    /// Whether Redis knows all that it should have forgotten.
    pub(super) fn is_redis_told(&self) -> bool {
        self.uncarried.lock().is_empty()
    }

    fn carry_later(&self, announcement: Announcement) {
        let mut uncarried = self.uncarried.lock();
        if uncarried.len() < MAX_UNCARRIED {
            uncarried.push_back(announcement);
        }
    }
}

/// A line with its name.
fn parse(named: &str) -> Option<(&str, Announcement)> {
    let (name, line) = named.split_once(' ')?;
    Some((name, Announcement::parse(line)?))
}

impl Inner {
    /// Says it here and to all nodes. An error means that a node may not hear of it before it forgets
    /// by itself: say it again.
    pub(super) async fn announce(&self, announcement: Announcement) -> Result<()> {
        self.take(announcement);
        let Some(nodes) = &self.nodes else { return Ok(()) };
        let name = uuid::Uuid::new_v4().simple().to_string();
        nodes.heard.lock().note(&name);
        let line = format!("{name} {}", announcement.line());
        let carrying = async {
            // First where others would look it up again.
            self.carry(announcement).await;
            nodes.bus.broadcast(format!("{WORD} {line}"));
        };
        let (stored, ()) = tokio::join!(nodes.store.insert_announcement(&line), carrying);
        Ok(stored?)
    }

    /// Tells Redis, now or once it is there.
    async fn carry(&self, announcement: Announcement) {
        let Some(nodes) = &self.nodes else { return };
        if !self.tell_redis(announcement).await {
            nodes.carry_later(announcement);
        }
    }

    async fn tell_redis(&self, announcement: Announcement) -> bool {
        let Some(tokens) = &self.shared else { return true };
        match announcement {
            Announcement::Token(token) => tokens.forget(&token).await,
            Announcement::User(user, _) => tokens.forget_user(user, self.clock.now()).await,
            Announcement::Profile(user) => self.directory.forget_shared_user(user).await,
            Announcement::Product(product) => self.directory.forget_shared_product(product).await,
        }
    }

    async fn carry_on(&self, nodes: &Nodes) {
        loop {
            // By a statement of its own: the lock is not held while Redis is waited for.
            let next = nodes.uncarried.lock().front().copied();
            let Some(announcement) = next else { return };
            if !self.tell_redis(announcement).await {
                return;
            }
            nodes.uncarried.lock().pop_front();
        }
    }

    /// Reads what was said since a place; answers where to go on.
    async fn catch_up(&self, nodes: &Nodes, mut place: i64, began: crate::clock::Timestamp) -> Result<i64> {
        loop {
            let lines = nodes.store.announcements((place - WINDOW).max(0), PAGE).await?;
            let is_last = lines.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let before = place;
            for (id, named, said_at) in lines {
                place = place.max(id);
                let Some((name, announcement)) = parse(&named) else { continue };
                if nodes.heard.lock().note(name) {
                    // What was said before this process began concerns no connection of it.
                    if said_at.plus(super::shared::CLOCKS_DIFFER) >= began {
                        self.take(announcement);
                    }
                    self.carry(announcement).await;
                }
            }
            if is_last || place == before {
                return Ok(place);
            }
        }
    }
}

/// Listens to the bus and looks into the database, until the last handle is gone.
pub(super) fn start(inner: &Arc<Inner>) {
    let Some(nodes) = &inner.nodes else { return };
    if let Some(heard) = nodes.bus.broadcasts() {
        tokio::spawn(listen(Arc::downgrade(inner), heard));
    }
    tokio::spawn(look(Arc::downgrade(inner)));
}

async fn listen(weak: Weak<Inner>, mut heard: broadcast::Receiver<Arc<str>>) {
    loop {
        let line = heard.recv().await;
        let Some(inner) = weak.upgrade() else { return };
        let Some(nodes) = &inner.nodes else { return };
        match line {
            Ok(line) => {
                if let Some((name, announcement)) =
                    line.strip_prefix(WORD).and_then(|line| parse(line.trim_start()))
                    && nodes.heard.lock().note(name)
                {
                    inner.take(announcement);
                }
            }
            // Whoever was meant may be anybody; what is to be cut is found in the database.
            Err(broadcast::error::RecvError::Lagged(_)) => inner.cache.forget_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn look(weak: Weak<Inner>) {
    let mut place = None;
    let mut rounds: u32 = 0;
    let Some(began) = weak.upgrade().map(|inner| inner.clock.now()) else { return };
    loop {
        {
            let Some(inner) = weak.upgrade() else { return };
            let Some(nodes) = &inner.nodes else { return };
            let from = match place {
                Some(place) => Ok(place),
                None => nodes.store.last_announcement().await.map_err(Into::into),
            };
            let read = match from {
                Ok(from) => inner.catch_up(nodes, from, began).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => place = Some(read),
                Err(error) => tracing::debug!(%error, "announcements cannot be read yet"),
            }
            inner.carry_on(nodes).await;
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(PRUNE_EVERY) {
                let before = inner.clock.now().minus(KEPT_FOR.max(inner.ttl));
                if let Err(error) = nodes.store.prune_announcements(before).await {
                    tracing::debug!(%error, "old announcements could not be deleted");
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::token::Token;

    #[test]
    fn an_announcement_comes_back_as_what_it_was() {
        let token = TokenKey::new(&[3; 32], &Token::parse("7|x").expect("a token"));
        for announcement in [
            Announcement::Token(token),
            Announcement::User(UserId(5), Reason::Refresh),
            Announcement::User(UserId(5), Reason::Logout),
            Announcement::User(UserId(5), Reason::Ban),
            Announcement::Profile(UserId(5)),
            Announcement::Product(ProductId(5)),
        ] {
            let named = format!("name {}", announcement.line());
            assert_eq!(parse(&named), Some(("name", announcement)));
        }
        for other in
            ["", "absent", "x forget-user x", "x forget-user 5", "x forget-token 12", "x forget-token é"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_line_is_heard_once_and_memory_is_bounded() {
        let mut heard = Heard::default();
        for n in 0..(REMEMBERED + 10) {
            assert!(heard.note(&n.to_string()));
            assert!(!heard.note(&n.to_string()));
        }
        assert_eq!((heard.names.len(), heard.order.len()), (REMEMBERED, REMEMBERED));
    }
}
