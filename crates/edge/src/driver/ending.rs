//! How a connection ends: what is still sent, to whom it is told, what is let go.
//!
//! Owns the last words of each dialect and transport. The stages that follow are walked in the driver itself.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::{Driver, Stage, after, prefix};
use crate::codec::frame::{self, Opcode};
use crate::handler::{CloseReason, Dialect, Handler};
use crate::link::{Ending, Outgoing};

impl<H: Handler> Driver<H> {
    /// Begins the end, for that reason.
    pub(super) fn end(&mut self, ending: Ending) {
        if self.stage != Stage::Open {
            return;
        }
        self.core.shared.counters.closed(ending.reason);
        self.parked = None;
        self.assembly = None;
        let keep_queue = !matches!(
            ending.reason,
            CloseReason::Client
                | CloseReason::Transport
                | CloseReason::SlowConsumer
                | CloseReason::PingTimeout
        );
        self.link().shut(ending, keep_queue);
        let answered = matches!(
            ending.reason,
            CloseReason::Shutdown
                | CloseReason::Restart
                | CloseReason::Kicked(_)
                | CloseReason::Unauthenticated
        );
        if !answered {
            self.later = None;
        }
        if let Some(session) = &self.session
            && !answered
            && ending.reason != CloseReason::Refused
        {
            session.close();
        }
        let until = after(self.now(), self.config().close_timeout);
        self.stage = if ending.reason == CloseReason::Transport {
            Stage::Gone { reason: ending.reason }
        } else if answered {
            Stage::Draining { ending, until }
        } else {
            self.say_goodbye(ending);
            Stage::Closing { reason: ending.reason, until }
        };
    }

    /// Queues the last words: DISCONNECT where clients should not come back by themselves, then the close frame.
    pub(super) fn say_goodbye(&mut self, ending: Ending) {
        self.later = None;
        let mut words = Vec::new();
        let kicked = matches!(ending.reason, CloseReason::Kicked(_) | CloseReason::Unauthenticated);
        if kicked && self.link().dialect == Dialect::SocketIo {
            for client in self.clients() {
                words.push(Outgoing::Text(format!("41{}", prefix(client.namespace())).into()));
            }
        }
        words.push(if self.socket.is_some() {
            let mut close = Vec::new();
            frame::put(&mut close, Opcode::Close, &[&ending.code.to_be_bytes()]);
            Outgoing::Frames(close.into())
        } else if ending.reason == CloseReason::Client {
            // The client knows; its poll only has to come home.
            Outgoing::Text(Bytes::from_static(b"6"))
        } else {
            Outgoing::Text(Bytes::from_static(b"1"))
        });
        self.link().push_last(words);
    }

    pub(super) fn drop_transport(&mut self) {
        if let Some(session) = self.session.take() {
            self.core.sessions.remove(&session.sid);
            session.end();
            if self.socket.is_none() {
                self.core.shared.counters.polling.fetch_sub(1, Relaxed);
            }
        }
        self.socket = None;
    }

    /// Tells the service that its clients are gone.
    pub(super) fn part(&mut self, reason: CloseReason) {
        for client in self.client.take().into_iter().chain(std::mem::take(&mut self.others)) {
            client.forget_acks();
            self.core.handler.disconnected(&client, reason);
        }
    }
}
