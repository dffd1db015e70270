//! Calls to the service and what becomes of its answers.
//!
//! Owns letting clients in, handing events over and sending replies in the order of their events. When a call
//! may be made is decided in `incoming`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use futures_util::stream::Stream as _;
use serde_json::value::RawValue;

use super::read::Answer;
use super::{Answered, Done, Driver, NEVER, Parked, after, prefix};
use crate::client::Client;
use crate::event::{Event, json_string};
use crate::handler::{ClientEvent, CloseReason, Dialect, Handled, Handler, Hello, Refusal};
use crate::handshake;
use crate::link::{Ending, Outgoing};

impl<H: Handler> Driver<H> {
    /// Asks the service whether the client may come in.
    pub(super) fn ask_in(&mut self, namespace: u16, auth: Option<Box<RawValue>>) {
        let link = self.link();
        let client = Client::<H>::new(Arc::clone(link), namespace);
        let hello = Hello {
            dialect: link.dialect,
            namespace: client.namespace().to_owned(),
            auth,
            query: self.introduction.as_ref().and_then(|it| it.query.as_deref()).map(str::to_owned),
            authorization: self
                .introduction
                .as_ref()
                .and_then(|it| it.authorization.as_deref())
                .map(str::to_owned),
            remote: link.remote,
        };
        if link.dialect == Dialect::SocketIo {
            link.hold(client.id());
        }
        self.admit_due = if self.client.is_some() { self.admit_due } else { NEVER };
        let handler = Arc::clone(&self.core.handler);
        self.work = Some(Box::pin(async move {
            let result = handler.connect(&client, hello).await;
            Done::Asked { client, result }
        }));
    }

    /// Hands an event to the service, or parks it until earlier replies are out.
    pub(super) fn hand_in(
        &mut self,
        namespace: u16,
        event: ClientEvent,
        answer: Answer,
    ) -> Result<(), Ending> {
        if self.later.is_some() && !self.core.handler.may_overlap(&event.name) {
            self.parked = Some(Box::new(Parked { namespace, event, answer }));
            return Ok(());
        }
        let Some(client) = self.client_in(namespace).cloned() else {
            return Err(CloseReason::Protocol.into());
        };
        self.count_event();
        let handler = Arc::clone(&self.core.handler);
        self.work = Some(Box::pin(async move {
            let handled = handler.event(&client, event).await;
            Done::Handled { handled, namespace, answer }
        }));
        Ok(())
    }

    pub(super) fn count_event(&self) {
        self.core.shared.counters.events_in.fetch_add(1, Relaxed);
    }

    /// Ready when no call to the service is under way.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let done = ready!(work.as_mut().poll(cx));
        self.work = None;
        match done {
            Done::Asked { client, result: Ok(()) } => self.let_in(client),
            Done::Asked { client, result: Err(refusal) } => self.turn_away(&client, refusal),
            Done::Message => {}
            Done::Handled { handled: Handled::Done(reply), namespace, answer } => {
                self.answer_in_turn(Answered { namespace, answer, reply });
            }
            Done::Handled { handled: Handled::Later(reply), namespace, answer } => {
                let later = self.later.get_or_insert_default();
                later.push_back(Box::pin(async move { Answered { namespace, answer, reply: reply.await } }));
            }
        }
        Poll::Ready(())
    }

    pub(super) fn poll_later(&mut self, cx: &mut Context<'_>) {
        while let Some(later) = &mut self.later {
            match Pin::new(&mut **later).poll_next(cx) {
                Poll::Ready(Some(answered)) => self.answer(answered),
                Poll::Ready(None) => self.later = None,
                Poll::Pending => return,
            }
        }
    }

    /// Sends a reply that is there, behind those that are still under way.
    pub(super) fn answer_in_turn(&mut self, answered: Answered) {
        match &mut self.later {
            Some(later) => later.push_back(Box::pin(std::future::ready(answered))),
            None => self.answer(answered),
        }
    }

    pub(super) fn answer(&self, answered: Answered) {
        let Some(reply) = answered.reply else { return };
        match answered.answer {
            Answer::None => {}
            Answer::Ref(reference) => self.send(Outgoing::Frames(reply.plain_frame(&reference))),
            Answer::Id(id) => {
                let Some(client) = self.client_in(answered.namespace) else { return };
                self.send(Outgoing::Text(reply.packet(client.namespace(), id).into()));
                for attachment in reply.attachments() {
                    self.send(Outgoing::Binary(attachment.clone()));
                }
            }
        }
    }

    pub(super) fn let_in(&mut self, client: Client<H>) {
        if self.link().dialect == Dialect::SocketIo {
            let sid = handshake::random_id();
            let prefix = prefix(client.namespace());
            self.link().release(Outgoing::Text(format!("40{prefix}{{\"sid\":\"{sid}\"}}").into()), true);
        }
        let auth_timeout = self.config().auth_timeout;
        if !client.is_authenticated() && !auth_timeout.is_zero() && self.link().dialect != Dialect::EngineIo {
            self.admit_due = self.admit_due.min(after(self.now(), auth_timeout));
        }
        if self.client.is_none() {
            self.client = Some(client);
        } else {
            self.others.push(client);
        }
        if self.link().dialect != Dialect::SocketIo || self.config().namespaces.len() <= 1 {
            self.introduction = None;
        }
    }

    pub(super) fn turn_away(&mut self, client: &Client<H>, refusal: Refusal) {
        let message = json_string(&refusal.message);
        let code = json_string(&refusal.code);
        if self.link().dialect == Dialect::SocketIo {
            let prefix = prefix(client.namespace());
            let text = format!("44{prefix}{{\"message\":{message},\"data\":{{\"code\":{code}}}}}");
            self.link().release(Outgoing::Text(text.into()), false);
            if self.client.is_none() {
                self.admit_due = after(self.now(), self.config().connect_timeout);
            }
        } else {
            if self.link().dialect == Dialect::Plain {
                let farewell = refusal.farewell.unwrap_or_else(|| {
                    Event::new("error", format!("{{\"message\":{message},\"code\":{code}}}"))
                });
                self.send(Outgoing::Event(farewell));
            }
            self.link().close(Ending { reason: CloseReason::Refused, code: refusal.close_code });
        }
    }

    pub(super) fn take_client(&mut self, namespace: u16) -> Option<Client<H>> {
        if self.client.as_ref().is_some_and(|client| client.namespace_index() == namespace) {
            return std::mem::replace(&mut self.client, self.others.pop());
        }
        let place = self.others.iter().position(|client| client.namespace_index() == namespace)?;
        Some(self.others.swap_remove(place))
    }
}
