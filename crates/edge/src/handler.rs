//! What a service behind the connections implements and what it is handed.
//!
//! Owns the [`Handler`] trait and the plain values around it. How clients are driven is in `driver`; what a
//! service sends is in [`crate::event`]; the handle to one client is [`crate::client::Client`].

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::event::{Event, Message, Reply};
use crate::handshake;

/// The service behind the connections.
///
/// All calls for one client come from its one task, in order. A call that blocks its thread blocks other
/// clients; a future that takes long only holds back its own client, whose heartbeats and outgoing events go on
/// meanwhile.
pub trait Handler: Send + Sync + Sized + 'static {
    /// What the service keeps per client; resident, so keep it small.
    type Session: Default + Send + Sync + 'static;

    /// A client asks in: a Socket.IO CONNECT for a served namespace, or a finished plain handshake.
    ///
    /// `Ok(())` lets it in, authenticated or not: call [`Client::set_authenticated`] when it is. One that is not
    /// by `auth_timeout` gets [`Handler::unauthenticated`] and is closed. On Socket.IO the CONNECT reply goes
    /// out before anything emitted in here.
    fn connect<'a>(&'a self, client: &'a Client<Self>, hello: Hello) -> BoxFuture<'a, Result<(), Refusal>>;

    /// One event of the client, called in the order sent; the next one is not handed in before this future is
    /// done.
    fn event<'a>(&'a self, client: &'a Client<Self>, event: ClientEvent) -> BoxFuture<'a, Handled>;

    /// Whether an event of this name may be handed in while earlier ones are still [`Handled::Later`]; replies
    /// are sent in order all the same. By default all earlier replies are awaited first.
    fn may_overlap(&self, _name: &str) -> bool {
        false
    }

    /// A frame that is sound for the transport but no proper event; the handler emits its `error` event.
    ///
    /// The connection stays open, except where [`Malformed::close_code`] says that the edge closes it next.
    fn malformed(&self, client: &Client<Self>, problem: Malformed);

    /// What answers the ack of such a frame, if it asked for one and the connection stays; nothing by default.
    fn malformed_reply(&self, _problem: Malformed) -> Option<Reply> {
        None
    }

    /// The time to authenticate is over; the handler emits its farewell, then the edge closes (plain: 4401).
    fn unauthenticated(&self, client: &Client<Self>);

    /// The client is gone; called once for each client that [`Handler::connect`] let in.
    fn disconnected(&self, client: &Client<Self>, reason: CloseReason);

    /// A message of an Engine.IO connection without Socket.IO ([`Dialect::EngineIo`]); ignored by default.
    fn message<'a>(&'a self, _client: &'a Client<Self>, _message: Message) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// How an event was taken.
pub enum Handled {
    /// It is done; the reply answers the client's ack, if it asked for one.
    Done(Option<Reply>),
    /// It is under way; the reply comes from this future. Up to `EdgeConfig::max_later` are pending per
    /// connection, then the edge stops reading from it.
    Later(BoxFuture<'static, Option<Reply>>),
}

impl std::fmt::Debug for Handled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(reply) => f.debug_tuple("Done").field(reply).finish(),
            Self::Later(_) => f.write_str("Later(..)"),
        }
    }
}

/// Which language a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Socket.IO protocol 5 over Engine.IO 4.
    SocketIo,
    /// Text frames `{"event","data"}` over a bare WebSocket.
    Plain,
    /// Engine.IO 4 messages with nothing on top.
    EngineIo,
}

impl Dialect {
    /// The name used in logs and metrics: `socket_io`, `plain` or `engine_io`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SocketIo => "socket_io",
            Self::Plain => "plain",
            Self::EngineIo => "engine_io",
        }
    }
}

/// How a client introduced itself.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The language it speaks.
    pub dialect: Dialect,
    /// The Socket.IO namespace asked for; `/` on other dialects.
    pub namespace: String,
    /// The payload of its CONNECT packet; Socket.IO only.
    pub auth: Option<Box<RawValue>>,
    /// The query string of the handshake request, without `?`, as sent.
    pub query: Option<String>,
    /// The `Authorization` header of the handshake request, as sent.
    pub authorization: Option<String>,
    /// The client's address, after trusted proxies.
    pub remote: IpAddr,
}

impl Hello {
    /// The token that came with it: of the CONNECT payload (`token`), else of the `Authorization` header, else of
    /// the query (`?token=`, percent-decoded); a leading `Bearer ` is stripped. `None` if there is none or it is
    /// empty.
    pub fn token(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Auth {
            token: String,
        }
        let payload = || {
            let raw = self.auth.as_deref()?;
            serde_json::from_str::<Auth>(raw.get()).ok().map(|auth| auth.token)
        };
        let header = || self.authorization.clone();
        let sources: [&dyn Fn() -> Option<String>; 3] = [&payload, &header, &|| self.query_value("token")];
        sources.iter().find_map(|source| {
            let token = source()?;
            let token = strip_bearer(&token);
            (!token.is_empty()).then(|| token.to_owned())
        })
    }

    /// The value of a key in the query string, percent-decoded.
    pub fn query_value(&self, key: &str) -> Option<String> {
        let value = handshake::query_value(self.query.as_deref()?, key)?;
        Some(handshake::percent_decode(value))
    }
}

/// The token without a leading `Bearer `, in any case, and without blanks around it.
pub fn strip_bearer(token: &str) -> &str {
    let token = token.trim();
    match token.get(..6) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => {
            let rest = &token[6..];
            if rest.is_empty() || rest.starts_with(char::is_whitespace) { rest.trim() } else { token }
        }
        _ => token,
    }
}

/// Why a client was not let in.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// One sentence for people.
    pub message: String,
    /// A stable code for programs; Socket.IO sends it as `data.code` of CONNECT_ERROR.
    pub code: String,
    /// The close code on the plain dialect.
    pub close_code: u16,
    /// What the plain dialect hears before it is closed; `error` with `message` and `code` if absent.
    pub farewell: Option<Event>,
}

impl Refusal {
    /// A refusal with close code 4401 and the default farewell.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), code: code.into(), close_code: 4401, farewell: None }
    }
}

/// One event of a client.
#[derive(Debug, Clone)]
pub struct ClientEvent {
    /// Its name; never empty, never one that Socket.IO reserves.
    pub name: String,
    /// Its arguments; the plain dialect always has one, `data` (`{}` if absent).
    pub args: Vec<Box<RawValue>>,
    /// Binary attachments, which the arguments refer to as `{"_placeholder":true,"num":n}`.
    pub attachments: Vec<Bytes>,
    /// Whether the client asked for an ack; plain: whether it sent a `ref`.
    pub wants_ack: bool,
}

impl ClientEvent {
    /// The JSON text of the first argument; `null` if there is none.
    pub fn data(&self) -> &str {
        self.args.first().map_or("null", |raw| raw.get())
    }
}

/// What was wrong with what a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Plain: the text is not JSON. Fatal.
    NotJson,
    /// Plain: a binary frame. Fatal.
    Binary,
    /// Plain: the text is not UTF-8. Fatal.
    NotUtf8,
    /// Plain: the message is larger than `max_payload`. Fatal.
    TooBig,
    /// Plain: the frame breaks RFC 6455. Fatal.
    BadFrame,
    /// Plain: JSON, but not an object.
    NotAnObject,
    /// No event name, or one that is not a string or is empty.
    NoName,
    /// The name of the event is reserved by Socket.IO (`connect`, `disconnect`, …).
    ReservedName,
    /// Plain: a `ref` that is neither a string nor a number, or longer than 256 bytes.
    BadRef,
}

impl Malformed {
    /// The code that the edge closes the connection with after the handler was told; `None` where it stays.
    pub fn close_code(self) -> Option<u16> {
        match self {
            Self::NotJson | Self::NotUtf8 => Some(1007),
            Self::Binary => Some(1003),
            Self::TooBig => Some(1009),
            Self::BadFrame => Some(1002),
            Self::NotAnObject | Self::NoName | Self::ReservedName | Self::BadRef => None,
        }
    }

    /// Whether the edge closes the connection after the handler was told.
    pub fn is_fatal(self) -> bool {
        self.close_code().is_some()
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotJson => "The frame is not JSON.",
            Self::Binary => "Binary frames are not understood here.",
            Self::NotUtf8 => "The text is not valid UTF-8.",
            Self::TooBig => "The message is too large.",
            Self::BadFrame => "The frame breaks the WebSocket protocol.",
            Self::NotAnObject => "The frame is not a JSON object.",
            Self::NoName => "The frame has no event name.",
            Self::ReservedName => "The event name is reserved.",
            Self::BadRef => "A `ref` is a short string or a number.",
        })
    }
}

/// Why a connection ended, or is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client said goodbye: a DISCONNECT, an Engine.IO close, or a WebSocket close frame.
    Client,
    /// The transport went away without a goodbye.
    Transport,
    /// The client did not answer a ping in time.
    PingTimeout,
    /// The client broke the protocol.
    Protocol,
    /// A message was larger than `max_payload`.
    TooBig,
    /// The client did not read what was sent to it, by bytes or by time.
    SlowConsumer,
    /// A message was begun and not finished in time, or no CONNECT came.
    Stalled,
    /// The client did not authenticate in time.
    Unauthenticated,
    /// [`Handler::connect`] refused the client.
    Refused,
    /// The service put the client out. Socket.IO sends DISCONNECT (clients do not come back by themselves), the
    /// plain dialect closes with this code.
    Kicked(u16),
    /// The service wants the client to come back: the transport is closed without DISCONNECT, plain with 1012.
    Restart,
    /// The service shuts down; as [`CloseReason::Restart`], plain with 1001.
    Shutdown,
}

impl CloseReason {
    /// The name used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Transport => "transport",
            Self::PingTimeout => "ping_timeout",
            Self::Protocol => "protocol",
            Self::TooBig => "too_big",
            Self::SlowConsumer => "slow_consumer",
            Self::Stalled => "stalled",
            Self::Unauthenticated => "unauthenticated",
            Self::Refused => "refused",
            Self::Kicked(_) => "kicked",
            Self::Restart => "restart",
            Self::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(auth: Option<&str>, authorization: Option<&str>, query: Option<&str>) -> Hello {
        Hello {
            dialect: Dialect::SocketIo,
            namespace: "/".into(),
            auth: auth.map(|json| RawValue::from_string(json.into()).unwrap()),
            query: query.map(Into::into),
            authorization: authorization.map(Into::into),
            remote: [127, 0, 0, 1].into(),
        }
    }

    #[test]
    fn a_token_is_taken_from_payload_then_header_then_query() {
        let all = hello(Some(r#"{"token":"a"}"#), Some("Bearer b"), Some("EIO=4&token=c"));
        assert_eq!(all.token().as_deref(), Some("a"));
        let two = hello(Some("{}"), Some("bearer  7|b "), Some("token=c"));
        assert_eq!(two.token().as_deref(), Some("7|b"));
        let one = hello(None, None, Some("token=Bearer%207%7Cc"));
        assert_eq!(one.token().as_deref(), Some("7|c"));
        let numeric = hello(Some(r#"{"token":5}"#), Some("Bearer "), Some("token="));
        assert_eq!(numeric.token(), None);
        assert_eq!(hello(None, None, None).token(), None);
    }

    #[test]
    fn a_token_that_only_looks_like_a_scheme_stays_whole() {
        assert_eq!(strip_bearer("BearerToken"), "BearerToken");
        assert_eq!(strip_bearer("Bearer"), "");
        assert_eq!(strip_bearer("BEARER x"), "x");
        assert_eq!(strip_bearer("é"), "é");
    }
}
