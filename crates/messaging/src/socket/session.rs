//! What is kept with each live connection: whose it is, and whose turn it is to be confirmed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{identity::Caller, ids::UserId};

/// Resident for every connection: two words and a lock.
#[derive(Debug, Default)]
pub struct Session {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    caller: Option<Arc<Caller>>,
    /// Ends when the confirmation before the next one is out.
    previous: Option<oneshot::Receiver<()>>,
}

impl Session {
    /// Makes the connection this caller's; `false` if it is somebody's already.
    pub(super) fn claim(&self, caller: &Arc<Caller>) -> bool {
        let mut state = self.state.lock();
        if state.caller.is_some() {
            return false;
        }
        state.caller = Some(Arc::clone(caller));
        true
    }

    /// Makes it nobody's again.
    pub(super) fn release(&self) {
        self.state.lock().caller = None;
    }

    /// Whose it is.
    pub(super) fn caller(&self) -> Option<Arc<Caller>> {
        self.state.lock().caller.clone()
    }

    /// Whose it is.
    pub(super) fn user_id(&self) -> Option<UserId> {
        self.state.lock().caller.as_ref().map(|caller| caller.user_id)
    }

    /// A place in the order of confirmations, behind all taken before.
    pub(super) fn take_turn(&self) -> Turn {
        let (done, next) = oneshot::channel();
        let previous = self.state.lock().previous.replace(next);
        Turn { previous, done }
    }
}

/// A place in the order of confirmations.
#[derive(Debug)]
pub(super) struct Turn {
    previous: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl Turn {
    /// Waits until those before are out; dropping the answer lets the next one come.
    pub(super) async fn come(self) -> oneshot::Sender<()> {
        if let Some(previous) = self.previous {
            // It ends by being dropped, whatever became of it.
            let _ = previous.await;
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_they_were_taken() {
        let session = Session::default();
        let (first, second) = (session.take_turn(), session.take_turn());
        let order = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&order);
        let later = tokio::spawn(async move {
            let _turn = second.come().await;
            noted.lock().push(2);
        });
        tokio::task::yield_now().await;
        let turn = first.come().await;
        order.lock().push(1);
        drop(turn);
        later.await.expect("the second comes");
        assert_eq!(*order.lock(), [1, 2]);
    }
}
