//! Live connections whose token's time is over are validated again, and cut if it is refused
//! (contract section 5).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use edge::{Client, CloseReason};
use parking_lot::Mutex;

use super::{CLOSE_UNAUTHENTICATED, Socket, refuse};
use crate::{
    clock::{Clock, Timestamp},
    errors::Error,
};

/// How often expired tokens are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// A main API that cannot say is asked again after this time; meanwhile the connection stays.
const RETRY: Duration = Duration::from_secs(30);
/// Questions under way at once: an hour after a storm of logins comes a storm of these.
const AT_ONCE: usize = 32;

/// Which connection is due when.
pub(super) struct Revalidation {
    clock: Clock,
    due: Mutex<Due>,
}

#[derive(Default)]
struct Due {
    by_time: BTreeMap<(Timestamp, u64), Client<Socket>>,
    times: HashMap<u64, Timestamp>,
    /// When it was last looked.
    seen: Option<Timestamp>,
}

impl Due {
    /// A clock that was set back takes the times along: they were counted from what it showed before, and a token
    /// that is no longer valid would otherwise keep its connection for as long as the clock jumped.
    fn follow(&mut self, now: Timestamp) {
        let jump = self.seen.replace(now).map_or(Duration::ZERO, |seen| seen.since(now));
        if jump.is_zero() {
            return;
        }
        for at in self.times.values_mut() {
            *at = at.minus(jump);
        }
        let by_time = std::mem::take(&mut self.by_time);
        self.by_time = by_time.into_iter().map(|((at, id), client)| ((at.minus(jump), id), client)).collect();
    }
}

impl Revalidation {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, due: Mutex::default() }
    }

    /// Looks at a connection again at that time.
    pub(super) fn watch(&self, client: &Client<Socket>, at: Timestamp) {
        let mut due = self.due.lock();
        due.times.insert(client.id(), at);
        due.by_time.insert((at, client.id()), client.clone());
    }

    /// Looks at it no more.
    pub(super) fn forget(&self, connection: u64) {
        let mut due = self.due.lock();
        if let Some(at) = due.times.remove(&connection) {
            due.by_time.remove(&(at, connection));
        }
    }

    /// The connections among those looked at that fit.
    pub(super) fn find(&self, fits: impl Fn(&Client<Socket>) -> bool) -> Vec<Client<Socket>> {
        self.due.lock().by_time.values().filter(|client| fits(client)).cloned().collect()
    }

    fn take_due(&self, max: usize) -> Vec<Client<Socket>> {
        let now = self.clock.now();
        let mut due = self.due.lock();
        due.follow(now);
        let mut taken = Vec::new();
        while taken.len() < max
            && due.by_time.first_key_value().is_some_and(|((at, _), _)| *at <= now)
            && let Some(((_, connection), client)) = due.by_time.pop_first()
        {
            due.times.remove(&connection);
            taken.push(client);
        }
        taken
    }
}

/// Starts looking; ends with the last handle to the socket.
pub(super) fn start(socket: &Arc<Socket>) {
    let weak: Weak<Socket> = Arc::downgrade(socket);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            loop {
                let Some(socket) = weak.upgrade() else { return };
                let due = socket.revalidation.take_due(AT_ONCE);
                if due.is_empty() {
                    break;
                }
                let checks = due.iter().map(|client| socket.validate_again(client));
                futures_util::future::join_all(checks).await;
            }
        }
    });
}

impl Socket {
    async fn validate_again(&self, client: &Client<Self>) {
        let Some(before) = client.session().caller() else { return };
        let now = self.revalidation.clock.now();
        match self.identity.authenticate(before.token.expose()).await {
            Ok(caller) if caller.user_id == before.user_id => {
                self.revalidation.watch(client, caller.expires_at.max(now.plus(INTERVAL)));
            }
            Ok(_) | Err(Error::Unauthenticated) => {
                refuse(client, &Error::Unauthenticated, None, "");
                client.close(CloseReason::Kicked(CLOSE_UNAUTHENTICATED));
            }
            Err(_) => self.revalidation.watch(client, now.plus(RETRY)),
        }
        // It may have gone while the answer was on its way.
        if !self.chat.hub().has(before.user_id, client.id()) {
            self.revalidation.forget(client.id());
        }
    }
}
