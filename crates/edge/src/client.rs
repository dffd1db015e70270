//! The handle to one client, for the service to keep and to send to.
//!
//! Owns identity, session and the authenticated mark; the queue behind [`Client::emit`] is in `link`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::event::{Event, Message};
use crate::handler::{CloseReason, Dialect, Handler};
use crate::link::{Link, Outgoing};

/// One client: a plain connection, or one namespace of a Socket.IO connection. Cheap to clone; keeping it does
/// not keep the connection open.
pub struct Client<H: Handler>(Arc<Inner<H>>);

struct Inner<H: Handler> {
    link: Arc<Link>,
    id: u64,
    /// The namespace's place in `EdgeConfig::namespaces`.
    namespace: u16,
    authenticated: AtomicBool,
    /// No ack can come any more.
    gone: AtomicBool,
    acks: Mutex<Option<Box<Acks>>>,
    session: H::Session,
}

/// Events that wait for the client's ack.
#[derive(Default)]
struct Acks {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Ack>>,
}

/// A client's answer to an event.
#[derive(Debug)]
pub struct Ack {
    /// Its arguments.
    pub args: Vec<Box<RawValue>>,
    /// Binary attachments, which the arguments refer to as `{"_placeholder":true,"num":n}`.
    pub attachments: Vec<Bytes>,
}

/// The client did not acknowledge an event and no longer can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAck;

impl std::fmt::Display for NoAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("The client went away without an acknowledgement.")
    }
}

impl std::error::Error for NoAck {}

impl<H: Handler> Client<H> {
    pub(crate) fn new(link: Arc<Link>, namespace: u16) -> Self {
        let id = link.shared.next_id();
        let (authenticated, gone) = (AtomicBool::new(false), AtomicBool::new(false));
        let (acks, session) = (Mutex::default(), H::Session::default());
        Self(Arc::new(Inner { link, id, namespace, authenticated, gone, acks, session }))
    }

    /// A number that no other client of this process has had.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The language it speaks.
    pub fn dialect(&self) -> Dialect {
        self.0.link.dialect
    }

    /// The Socket.IO namespace it is in; `/` on other dialects.
    pub fn namespace(&self) -> &str {
        self.0.link.shared.config.namespaces.get(usize::from(self.0.namespace)).map_or("/", String::as_str)
    }

    pub(crate) fn namespace_index(&self) -> u16 {
        self.0.namespace
    }

    /// What the service keeps with it.
    pub fn session(&self) -> &H::Session {
        &self.0.session
    }

    /// Its address, after trusted proxies.
    pub fn remote(&self) -> IpAddr {
        self.0.link.remote
    }

    /// Marks it authenticated, which ends the wait of `auth_timeout`.
    pub fn set_authenticated(&self) {
        self.0.authenticated.store(true, Ordering::Release);
        self.0.link.authenticate();
    }

    /// Whether it was marked so.
    pub fn is_authenticated(&self) -> bool {
        self.0.authenticated.load(Ordering::Acquire)
    }

    /// Queues an event; never blocks.
    ///
    /// A client with more than `queue_bytes` unread, or one that reads too slowly for too long, is closed as a
    /// slow consumer. To a client that is gone or going, nothing is sent, nor to one of bare Engine.IO.
    pub fn emit(&self, event: &Event) {
        let link = &self.0.link;
        if link.dialect == Dialect::EngineIo {
            return;
        }
        let namespace = self.namespace();
        if namespace == "/" {
            link.push(self.0.id, Outgoing::Event(event.clone()));
        } else {
            self.push_packet(event, None);
        }
    }

    /// Queues an event like [`Client::emit`] and asks the client to acknowledge it; Socket.IO alone has such acks.
    ///
    /// The answer may never come: put a limit on the wait. It is an error once the client is gone.
    pub fn emit_with_ack(&self, event: &Event) -> impl Future<Output = Result<Ack, NoAck>> + Send + 'static {
        let (sender, answer) = oneshot::channel();
        if self.dialect() == Dialect::SocketIo {
            let mut acks = self.0.acks.lock();
            if !self.0.gone.load(Ordering::Acquire) {
                let acks = acks.get_or_insert_default();
                // Those whose asker has stopped waiting would pile up with a client that never answers.
                acks.waiting.retain(|_, waiting| !waiting.is_closed());
                acks.last_id += 1;
                acks.waiting.insert(acks.last_id, sender);
                self.push_packet(event, Some(acks.last_id));
            }
        }
        async move { answer.await.map_err(|_| NoAck) }
    }

    /// Queues an event as packets of its own, for its namespace and id.
    fn push_packet(&self, event: &Event, id: Option<u64>) {
        let link = &self.0.link;
        link.push(self.0.id, Outgoing::Text(event.packet(self.namespace(), id).into()));
        for attachment in event.attachments() {
            link.push(self.0.id, Outgoing::Binary(attachment.clone()));
        }
    }

    /// Hands the client's ack to whoever waits for it; one that nobody awaits is dropped.
    pub(crate) fn acknowledged(&self, id: u64, ack: Ack) {
        let waiting = self.0.acks.lock().as_mut().and_then(|acks| acks.waiting.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(ack);
        }
    }

    /// Tells all who wait for acks that none will come.
    pub(crate) fn forget_acks(&self) {
        let mut acks = self.0.acks.lock();
        self.0.gone.store(true, Ordering::Release);
        *acks = None;
    }

    /// Queues a bare Engine.IO message; nothing happens on other dialects.
    pub fn send(&self, message: Message) {
        if self.dialect() != Dialect::EngineIo {
            return;
        }
        let item = match message {
            Message::Text(text) if self.0.link.shared.config.bare_messages => {
                Outgoing::Text(Bytes::from(text))
            }
            Message::Text(text) => Outgoing::Text(Bytes::from(format!("4{text}"))),
            Message::Binary(bytes) => Outgoing::Binary(bytes),
        };
        self.0.link.push(self.0.id, item);
    }

    /// Bytes queued for its connection that it has not read yet.
    pub fn queued_bytes(&self) -> usize {
        self.0.link.queued_bytes()
    }

    /// Ends its connection once what was queued has gone out, within `close_timeout`.
    pub fn close(&self, reason: CloseReason) {
        self.0.link.close(reason.into());
    }
}

impl<H: Handler> Clone for Client<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> std::fmt::Debug for Client<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.0.id)
            .field("dialect", &self.dialect())
            .field("authenticated", &self.is_authenticated())
            .finish_non_exhaustive()
    }
}
