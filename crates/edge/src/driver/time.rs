//! Deadlines of a connection: heartbeats, authentication, stalled messages, slow readers, the rate of events.
//!
//! Owns when something is overdue and what follows; the clock that wakes the task is [`crate::wheel`].

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Driver, NEVER, Stage, after};
use crate::codec::frame::Opcode;
use crate::handler::{CloseReason, Dialect, Handler};
use crate::link::{Ending, Outgoing};

impl<H: Handler> Driver<H> {
    pub(super) fn set_alarm(&mut self) {
        if let Some(session) = &self.session {
            let overdue = if self.awaiting_pong {
                self.heartbeat_due
            } else {
                after(self.heartbeat_due, self.config().ping_timeout)
            };
            session.alive_until.store(overdue, Ordering::Release);
        }
        let due = match self.stage {
            Stage::Open => {
                [self.heartbeat_due, self.admit_due, self.message_due, self.write_due, self.resume_due]
                    .into_iter()
                    .min()
                    .unwrap_or(NEVER)
            }
            Stage::Draining { until, .. } | Stage::Closing { until, .. } | Stage::Lingering { until, .. } => {
                until
            }
            Stage::Gone { .. } => NEVER,
        };
        if due != self.alarm {
            self.alarm = due;
            self.core.shared.wheel.wake_at(&self.admission.link, due);
        }
    }

    /// `more` says that the client's messages were not all read in this turn.
    pub(super) fn check_deadlines(&mut self, now: u64, more: bool) -> Result<(), Ending> {
        // The wheel has spent its entry if it woke us; asking again is cheap.
        if now >= self.alarm {
            self.alarm = NEVER;
        }
        if self.stage != Stage::Open {
            return Ok(());
        }
        if now >= self.message_due {
            return Err(CloseReason::Stalled.into());
        }
        if now >= self.resume_due {
            self.resume_due = NEVER;
        }
        if now >= self.admit_due {
            self.admit_due = NEVER;
            self.check_admission()?;
        }
        if now >= self.heartbeat_due {
            self.heartbeat(now, more)?;
        }
        Ok(())
    }

    pub(super) fn check_admission(&self) -> Result<(), Ending> {
        if self.client.is_none() {
            // Nobody was let in; while the service still thinks about it, its time is its own.
            return if self.work.is_some() { Ok(()) } else { Err(CloseReason::Stalled.into()) };
        }
        let late: Vec<_> = self.clients().filter(|client| !client.is_authenticated()).collect();
        if late.is_empty() {
            return Ok(());
        }
        late.iter().for_each(|client| self.core.handler.unauthenticated(client));
        Err(CloseReason::Unauthenticated.into())
    }

    pub(super) fn heartbeat(&mut self, now: u64, more: bool) -> Result<(), Ending> {
        let config = &self.core.shared.config;
        if self.awaiting_pong {
            // The answer may lie behind what we do not read now, or behind a message that is still arriving and
            // has a deadline of its own.
            let unread = more || self.work.is_some() || self.later.is_some() || self.tokens == 0;
            let blocked = unread || self.message_due != NEVER;
            if !blocked {
                return Err(CloseReason::PingTimeout.into());
            }
            self.heartbeat_due = after(now, config.ping_timeout);
            return Ok(());
        }
        self.awaiting_pong = true;
        // From when the ping was due, not from when the coarse clock got to it.
        let due = after(self.heartbeat_due, config.ping_timeout);
        self.heartbeat_due = if due > now { due } else { after(now, config.ping_timeout) };
        self.send(match self.link().dialect {
            Dialect::Plain => Outgoing::Frames(Bytes::from_static(&[0x80 | Opcode::Ping as u8, 0])),
            Dialect::SocketIo | Dialect::EngineIo => Outgoing::Text(Bytes::from_static(b"2")),
        });
        Ok(())
    }

    /// Whether the rate limit lets a message in now; if not, sets when it will.
    pub(super) fn may_take(&mut self, now: u64) -> bool {
        let config = &self.core.shared.config;
        let rate = u64::from(config.events_per_second);
        if rate == 0 {
            self.tokens = u32::MAX;
            return true;
        }
        if self.tokens == 0 {
            let earned = now.saturating_sub(self.filled_at).saturating_mul(rate) / 1000;
            let burst = config.events_burst.max(1);
            self.tokens = u32::try_from(earned).unwrap_or(u32::MAX).min(burst);
            if self.tokens > 0 {
                self.filled_at = now;
            }
        }
        if self.tokens == 0 {
            self.resume_due = now + 1000 / rate + 1;
        }
        self.tokens > 0
    }
}
