//! One live connection, as the hub sees it.

use edge::{Client, CloseReason, Event, Handler};

/// Something that takes events: a live connection, or a recorder in tests.
pub trait Receiver: Send + Sync {
    /// A number that no other receiver of this process has.
    fn id(&self) -> u64;
    /// Takes an event; never waits.
    fn emit(&self, event: &Event);
    /// Bytes that were emitted and not yet read.
    fn queued_bytes(&self) -> usize;
    /// Ends the connection after what was emitted.
    fn close(&self, reason: CloseReason);
}

impl<H: Handler> Receiver for Client<H> {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn emit(&self, event: &Event) {
        Self::emit(self, event);
    }

    fn queued_bytes(&self) -> usize {
        Self::queued_bytes(self)
    }

    fn close(&self, reason: CloseReason) {
        Self::close(self, reason);
    }
}
