//! What goes to a client: from the link's queue to the socket or to the poll that waits.
//!
//! Owns the moment of writing; the queue is [`crate::link`], the bytes are written in `socket`.

use std::task::{Context, Poll};

use super::{Driver, NEVER, after};
use crate::codec::frame;
use crate::codec::payload::Encoder;
use crate::handler::{Dialect, Handler};
use crate::handshake;
use crate::link::Outgoing;

/// How many packets one poll carries: python-engineio refuses a body of more.
const POLL_PACKETS: usize = 16;
/// About how many bytes one poll carries.
const POLL_BYTES: usize = 256 * 1024;

impl<H: Handler> Driver<H> {
    /// Queues something of the connection itself: acks and heartbeats go out even while it is closing.
    pub(super) fn send(&self, item: Outgoing) {
        self.link().push_own(item);
    }

    pub(super) fn send_open(&self) {
        let config = self.config();
        let (sid, upgrades) = match &self.session {
            Some(session) => (session.sid.clone(), "\"websocket\""),
            None => (handshake::random_id(), ""),
        };
        let text = format!(
            "0{{\"sid\":\"{sid}\",\"upgrades\":[{upgrades}],\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
            config.ping_interval.as_millis(),
            config.ping_timeout.as_millis(),
            config.max_payload,
        );
        self.send(Outgoing::Text(text.into()));
    }

    /// Ready when nothing is queued any more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<(), ()>> {
        let slow_after = self.core.shared.config.slow_after;
        let Some(socket) = &mut self.socket else { return self.flush_poll(now) };
        match socket.poll_flush(cx, &self.admission.link, || self.write_due = after(now, slow_after)) {
            Poll::Ready(done) => {
                self.write_due = NEVER;
                Poll::Ready(done.map_err(drop))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same while long-polling: what is queued goes with the poll that waits, if one does.
    pub(super) fn flush_poll(&mut self, now: u64) -> Poll<Result<(), ()>> {
        let Some(session) = &self.session else { return Poll::Ready(Err(())) };
        let link = &self.admission.link;
        let has_packets = !link.is_empty();
        let poll = session.take_poll(has_packets);
        if !has_packets {
            self.write_due = NEVER;
            return Poll::Ready(Ok(()));
        }
        let Some(poll) = poll else {
            if self.write_due == NEVER {
                self.write_due = after(now, self.core.shared.config.slow_after);
            }
            return Poll::Pending;
        };
        self.write_due = NEVER;
        let mut payload = Encoder::default();
        let taken = link.take_body(POLL_PACKETS, POLL_BYTES, |item| match item {
            Outgoing::Event(event) => {
                payload.text(frame::payload(event.frames(Dialect::SocketIo)));
                event.attachments().iter().for_each(|attachment| payload.binary(attachment));
            }
            Outgoing::Text(text) => payload.text(&text),
            Outgoing::Binary(bytes) => payload.binary(&bytes),
            // WebSocket's own frames have no meaning here and are not made while polling.
            Outgoing::Frames(_) => {}
        });
        link.take(taken, 0, 0, drop);
        if poll.send(payload.finish()).is_err() {
            // Its client is gone, and with it what it should have carried.
            return Poll::Ready(Err(()));
        }
        self.flush_poll(now)
    }
}
