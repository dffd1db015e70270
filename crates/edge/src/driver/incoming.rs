//! What a client sends, taken one message at a time and in order.
//!
//! Owns when the next message may be taken and what each asks for leads to. Bytes are in `socket` and
//! [`crate::polling`], their meaning in `read`; calls to the service are in `calls`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use super::read::{self, Step};
use super::socket::ReadError;
use super::{Answered, Done, Driver, NEVER, Parked, after, limits};
use crate::codec::frame::{self, FrameError, Opcode};
use crate::codec::payload::Packet;
use crate::handler::{CloseReason, Dialect, Handler, Malformed};
use crate::link::{Ending, Outgoing};

impl<H: Handler> Driver<H> {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<(), Ending>> {
        if let Some(parked) = self.parked.take() {
            if self.later.is_some() {
                self.parked = Some(parked);
                return Poll::Pending;
            }
            let Parked { namespace, event, answer } = *parked;
            return Poll::Ready(self.hand_in(namespace, event, answer));
        }
        if self.later.as_ref().is_some_and(|later| later.len() >= self.config().max_later) {
            return Poll::Pending;
        }
        if !self.may_take(now) {
            return Poll::Pending;
        }
        let step = match self.read_step(cx, now) {
            Poll::Ready(Ok(step)) => step,
            Poll::Ready(Err(ending)) => return Poll::Ready(Err(ending)),
            Poll::Pending => return Poll::Pending,
        };
        self.tokens = self.tokens.saturating_sub(1);
        Poll::Ready(self.take(step, now))
    }

    /// What the next message asks for.
    pub(super) fn read_step(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<Result<Step, Ending>> {
        let config = &self.core.shared.config;
        let dialect = self.admission.link.dialect;
        let assembly = &mut self.assembly;
        if self.socket.is_none()
            && let Some(session) = &self.session
        {
            match session.next_posted() {
                Some(Packet::Text(text)) => {
                    return Poll::Ready(read::read_text(dialect, config, assembly, &text));
                }
                Some(Packet::Binary(bytes)) => {
                    return Poll::Ready(read::read_binary(dialect, config, assembly, bytes));
                }
                // Only after all that was posted: the WebSocket goes on where polling stopped.
                None => match session.take_socket() {
                    Some(socket) => {
                        self.socket = Some(*socket);
                        self.core.shared.counters.polling.fetch_sub(1, Relaxed);
                        self.write_due = NEVER;
                    }
                    None => return Poll::Pending,
                },
            }
        }
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(CloseReason::Transport.into())) };
        let read = socket
            .poll_message(cx, limits(config), |incoming| read::read(dialect, config, assembly, incoming));
        // Bytes behind a whole message begin another one, with a time of its own.
        let unfinished = socket.in_fragments() || self.assembly.is_some();
        let begun = unfinished || socket.has_rest();
        match read {
            Poll::Pending => {
                if !begun {
                    self.message_due = NEVER;
                } else if self.message_due == NEVER {
                    self.message_due = after(now, self.config().frame_timeout);
                }
                Poll::Pending
            }
            Poll::Ready(Ok(step)) => {
                if !unfinished {
                    self.message_due = NEVER;
                }
                Poll::Ready(step)
            }
            Poll::Ready(Err(ReadError::Gone)) => Poll::Ready(Err(CloseReason::Transport.into())),
            Poll::Ready(Err(ReadError::Bad(error))) => {
                let (reason, problem) = match error {
                    FrameError::TooBig => (CloseReason::TooBig, Malformed::TooBig),
                    FrameError::Protocol => (CloseReason::Protocol, Malformed::BadFrame),
                    FrameError::NotUtf8 => (CloseReason::Protocol, Malformed::NotUtf8),
                };
                // On plain, close codes alone say too little to those who write clients.
                if dialect == Dialect::Plain
                    && let Some(client) = &self.client
                {
                    self.core.handler.malformed(client, problem);
                }
                Poll::Ready(Err(Ending { reason, code: error.close_code() }))
            }
        }
    }

    pub(super) fn take(&mut self, step: Step, now: u64) -> Result<(), Ending> {
        const OUT_OF_PLACE: Ending = Ending { reason: CloseReason::Protocol, code: 1002 };
        match step {
            Step::Nothing => {}
            Step::Pong => {
                if std::mem::take(&mut self.awaiting_pong) {
                    self.heartbeat_due = after(now, self.config().ping_interval);
                }
            }
            Step::Ping(payload) => {
                let mut pong = Vec::new();
                frame::put(&mut pong, Opcode::Pong, &[&payload]);
                self.send(Outgoing::Frames(pong.into()));
            }
            Step::Goodbye(code) => {
                return Err(Ending { reason: CloseReason::Client, code: code.unwrap_or(1000) });
            }
            Step::Connect { namespace, auth } => {
                if self.client_in(namespace).is_some() {
                    return Err(OUT_OF_PLACE);
                }
                self.ask_in(namespace, auth);
            }
            Step::Unserved { namespace } => {
                let text = format!("44{namespace},{{\"message\":\"Invalid namespace\"}}");
                self.send(Outgoing::Text(text.into()));
            }
            Step::Leave { namespace } => {
                let client = self.take_client(namespace).ok_or(OUT_OF_PLACE)?;
                client.forget_acks();
                self.core.handler.disconnected(&client, CloseReason::Client);
                if self.client.is_none() {
                    self.admit_due = after(now, self.config().connect_timeout);
                }
            }
            Step::Ack { namespace, id, ack } => {
                self.client_in(namespace).ok_or(OUT_OF_PLACE)?.acknowledged(id, ack);
            }
            Step::Event { namespace, event, answer } => return self.hand_in(namespace, event, answer),
            Step::Malformed { namespace, problem, answer } => {
                let client = self.client_in(namespace).ok_or(OUT_OF_PLACE)?;
                self.core.handler.malformed(client, problem);
                if let Some(code) = problem.close_code() {
                    return Err(Ending { reason: CloseReason::Protocol, code });
                }
                let reply = self.core.handler.malformed_reply(problem);
                self.answer_in_turn(Answered { namespace, answer, reply });
            }
            Step::Message(message) => {
                let client = self.client.clone().ok_or(OUT_OF_PLACE)?;
                let handler = Arc::clone(&self.core.handler);
                self.count_event();
                self.work = Some(Box::pin(async move {
                    handler.message(&client, message).await;
                    Done::Message
                }));
            }
        }
        Ok(())
    }
}
