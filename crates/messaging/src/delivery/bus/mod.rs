//! How events reach a user's connections on other nodes.
//!
//! Twins behind one interface: in one process there is nobody else, through Redis (`redis`) each user
//! has a channel. It carries lines of text; what they say is decided in `chat::relay`. It may lose
//! any of them: the users' logs have what is to be kept, and the bus says when one should look there.

mod quiet;
mod redis;

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};

use self::redis::RedisBus;
use crate::{ids::UserId, shared::Redis};

/// What comes from other nodes.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Lines for a user's connections here, in order.
    News {
        /// Whose.
        user: UserId,
        /// What was given to [`Bus::publish`], one or more of them.
        lines: Vec<Arc<str>>,
    },
    /// Publications for these users may have been missed.
    Missed(Vec<UserId>),
    /// Publications for anybody may have been missed.
    MissedAny,
}

/// The way to the other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Bus {
    /// There are none.
    InProcess,
    /// Through Redis.
    Redis(RedisBus),
}

impl Bus {
    /// Starts to listen and to speak over a Redis that other nodes use too.
    pub fn shared(redis: &Redis) -> Self {
        Self::Redis(RedisBus::start(redis))
    }

    /// Whether there may be other nodes.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Whether other nodes can be heard at present.
    pub fn is_up(&self) -> bool {
        match self {
            Self::InProcess => true,
            Self::Redis(bus) => bus.is_up(),
        }
    }

    /// What comes from other nodes; to be taken once.
    pub fn incoming(&self) -> Option<mpsc::Receiver<Incoming>> {
        match self {
            Self::InProcess => None,
            Self::Redis(bus) => bus.incoming(),
        }
    }

    /// Lines for all nodes, from others; whoever lags behind must assume that anything was said.
    pub fn broadcasts(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        match self {
            Self::InProcess => None,
            Self::Redis(bus) => Some(bus.broadcasts()),
        }
    }

    /// Another connection of the user is here. Done once their channel is listened to, or cannot be
    /// for the moment; what is published from then on comes here or is reported as missed.
    ///
    /// Counted at once, whether the answer is waited for or not.
    pub fn attach(&self, user: UserId) -> impl Future<Output = ()> + Send + use<> {
        let attaching = match self {
            Self::InProcess => None,
            Self::Redis(bus) => bus.attach(user),
        };
        async move {
            if let Some(attaching) = attaching {
                attaching.wait().await;
            }
        }
    }

    /// A connection that was attached is gone.
    pub fn detach(&self, user: UserId) {
        if let Self::Redis(bus) = self {
            bus.detach(user);
        }
    }

    /// Whether it is worth the while to publish for a user: other nodes can be reached, and one of them
    /// may have a connection of theirs. `event_seq` is the place of what would be published, if it
    /// is stored; it is remembered in case such a connection comes just now.
    pub fn reaches(&self, user: UserId, event_seq: Option<i64>) -> bool {
        match self {
            Self::InProcess => false,
            Self::Redis(bus) => bus.reaches(user, event_seq),
        }
    }

    /// Sends a line, without line breaks, to the user's connections on other nodes. Never waits.
    pub fn publish(&self, user: UserId, line: impl Into<Arc<str>>) {
        if let Self::Redis(bus) = self {
            bus.publish(user, line.into());
        }
    }

    /// Sends a line, without line breaks, to all other nodes. Never waits.
    pub fn broadcast(&self, line: impl Into<Arc<str>>) {
        if let Self::Redis(bus) = self {
            bus.broadcast(line.into());
        }
    }
}

/// The line that points to a stored event instead of carrying it: whoever is behind reads the log.
pub fn pointer(event_seq: i64) -> String {
    format!("{POINTER}{event_seq}")
}

/// The place that a line points to, if it is such a line.
pub fn pointed_to(line: &str) -> Option<i64> {
    line.strip_prefix(POINTER)?.parse().ok()
}

/// No JSON text begins with it.
const POINTER: char = '@';
