//! AsyncAPI 3: the live events, as each dialect writes them.
//!
//! A dialect is a channel. Every event is a message of both: its data is the same, the frame around it is
//! not. What the events are is said in `events`.

use serde_json::{Map, Value, json};

use super::{
    errors,
    events::{self, ClientEvent, ServerEvent},
    requests,
    schemas::{Schemas, described, object},
};
use crate::socket::Command;

const DESCRIPTION: &str = "\
What happens in conversations, live. The same events in two dialects: Socket.IO, and plain WebSocket with \
`{\"event\", \"data\"}` text frames. Every event carries exactly one object.

Events that change what a client keeps are stored, in the transaction that caused them, in the log of each user they are \
for. They carry `event_seq`, that user's own counter: 1, 2, 3 … without gaps, the same on all their connections. A client \
that comes back names the last one it heard as `since` and gets what it missed right after `authenticated`, then the live \
stream, without a gap or a repeat.

A refused event is told by its ack, where it asked for one, and by an `error` event in every case; the connection stays. \
The events of one connection are handled and confirmed in the order sent.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Plain,
    SocketIo,
}

impl Dialect {
    const ALL: [Self; 2] = [Self::Plain, Self::SocketIo];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::SocketIo => "socketIo",
        }
    }

    /// What an event of the service looks like.
    fn sent(self, name: &str, data: &Value) -> Value {
        match self {
            Self::Plain => object([("event", json!({"const": name})), ("data", data.clone())]),
            Self::SocketIo => pair(name, data),
        }
    }

    /// What an event of a client looks like.
    fn received(self, name: &str, data: &Value) -> Value {
        match self {
            Self::Plain => {
                let reference =
                    described(json!({"type": ["string", "number"]}), "Asks for an ack, which repeats it.");
                object([("event", json!({"const": name})), ("data", data.clone()), ("ref?", reference)])
            }
            Self::SocketIo => pair(name, data),
        }
    }

    /// What an ack looks like.
    fn ack(self, ack: &Value) -> Value {
        match self {
            Self::Plain => object([
                ("event", json!({"const": "ack"})),
                ("ref", json!({"type": ["string", "number"]})),
                ("data", ack.clone()),
            ]),
            Self::SocketIo => json!({"type": "array", "prefixItems": [ack], "minItems": 1, "maxItems": 1}),
        }
    }

    /// An example of an event.
    fn event_example(self, name: &str, data: &Value, wants_ack: bool) -> Value {
        match (self, wants_ack) {
            (Self::Plain, true) => json!({"event": name, "ref": 1, "data": data}),
            (Self::Plain, false) => json!({"event": name, "data": data}),
            (Self::SocketIo, _) => json!([name, data]),
        }
    }

    fn ack_example(self, ack: &Value) -> Value {
        match self {
            Self::Plain => json!({"event": "ack", "ref": 1, "data": ack}),
            Self::SocketIo => json!([ack]),
        }
    }

    fn channel(self, messages: Map<String, Value>) -> Value {
        let (address, title, description) = match self {
            Self::Plain => ("/ws", "Plain WebSocket", PLAIN),
            Self::SocketIo => ("/socket.io/", "Socket.IO", SOCKET_IO),
        };
        let token = || json!({"type": "string", "description": "The bearer token, percent-encoded."});
        let since = || json!({"type": "integer", "minimum": 0, "description": "The last `event_seq` heard."});
        let query = match self {
            Self::Plain => object([("token?", token()), ("since?", since())]),
            Self::SocketIo => object([
                ("EIO", json!({"const": "4"})),
                ("transport", json!({"type": "string", "enum": ["websocket", "polling"]})),
                ("token?", token()),
                ("since?", since()),
            ]),
        };
        let headers = object([("Authorization?", json!({"type": "string", "pattern": "^[Bb]earer "}))]);
        json!({
            "address": address,
            "title": title,
            "description": description,
            "messages": messages,
            "bindings": {"ws": {"method": "GET", "query": query, "headers": headers, "bindingVersion": "0.1.0"}},
        })
    }
}

fn pair(name: &str, data: &Value) -> Value {
    json!({"type": "array", "prefixItems": [{"const": name}, data], "minItems": 2, "maxItems": 2})
}

const PLAIN: &str = "\
`/` and `/ws`. The token comes as `?token=`, as `Authorization`, or in a first frame `authenticate` within 10 s. Frames \
are text, both ways: `{\"event\", \"data\"}`; with a `ref` in it a client's frame is answered by `ack`. The server pings \
every 25 s. Close codes: 4401 no valid token, 4403 refused, 4429 too many connections, 1013 try again later, 1001 and \
1012 come back, 1007 not JSON, 1003 binary, 1009 too large.";

const SOCKET_IO: &str = "\
Engine.IO 4, Socket.IO protocol 5, namespace `/`, by WebSocket and by long-polling with upgrade. The token comes as the \
CONNECT payload's `token`, as `Authorization`, as `?token=`, or in `authenticate` within 10 s. An event has one argument, \
an ack one object. A refused CONNECT is answered by CONNECT_ERROR.";

/// The document; `server` is the service's public address.
pub(super) fn document(server: &str) -> Value {
    let mut schemas = Schemas::new();
    let client_events: Vec<_> =
        Command::ALL.into_iter().map(|command| events::of_client(command, &mut schemas)).collect();
    let server_events = events::of_server(&mut schemas);
    let mut parts = Parts::default();
    for dialect in Dialect::ALL {
        let mut channel = Map::new();
        for event in &client_events {
            parts.add_client_event(dialect, event, &mut channel);
        }
        for event in &server_events {
            parts.add_server_event(dialect, event, &mut channel);
        }
        if dialect == Dialect::SocketIo {
            parts.add_connect(&mut channel);
        }
        parts.channels.insert(dialect.name().into(), dialect.channel(channel));
    }
    let components =
        schemas.into_components([("RefusedAck", refused_ack()), ("ConnectError", connect_error())]);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rented Messaging, live",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"service": server_object(server)},
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {"schemas": components, "messages": parts.messages},
        "x-errors": errors::catalogue(),
    })
}

fn server_object(server: &str) -> Value {
    let (scheme, rest) = server.split_once("://").unwrap_or(("http", "localhost:3001"));
    let protocol = if scheme == "https" { "wss" } else { "ws" };
    match rest.split_once('/') {
        Some((host, path)) => json!({"host": host, "pathname": format!("/{path}"), "protocol": protocol}),
        None => json!({"host": rest, "protocol": protocol}),
    }
}

#[derive(Default)]
struct Parts {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
}

impl Parts {
    fn add_client_event(&mut self, dialect: Dialect, event: &ClientEvent, channel: &mut Map<String, Value>) {
        let accepted = object([("success", json!({"const": true})), ("data", event.ack.clone())]);
        let ack = json!({"oneOf": [accepted, {"$ref": "#/components/schemas/RefusedAck"}]});
        let ack_name = format!("{}.ack", event.name);
        let accepted_example = json!({"success": true, "data": event.ack_example});
        self.add_message(
            dialect,
            channel,
            event.name,
            json!({
                "name": event.name,
                "title": event.name,
                "summary": event.summary,
                "payload": dialect.received(event.name, &event.data),
                "examples": [{"payload": dialect.event_example(event.name, &event.example, true)}],
                "x-data": event.data,
                "x-codes": event.codes,
            }),
        );
        self.add_message(
            dialect,
            channel,
            &ack_name,
            json!({
                "name": ack_name,
                "title": format!("Ack of {}", event.name),
                "payload": dialect.ack(&ack),
                "examples": [{"payload": dialect.ack_example(&accepted_example)}],
                "x-data": event.ack,
            }),
        );
        let reference =
            |name: &str| json!({"$ref": format!("#/channels/{}/messages/{name}", dialect.name())});
        let channel = json!({"$ref": format!("#/channels/{}", dialect.name())});
        self.operations.insert(
            format!("{}.{}", dialect.name(), event.name),
            json!({
                "action": "receive",
                "channel": channel,
                "summary": event.summary,
                "messages": [reference(event.name)],
                "reply": {"channel": channel, "messages": [reference(&ack_name)]},
            }),
        );
    }

    fn add_server_event(&mut self, dialect: Dialect, event: &ServerEvent, channel: &mut Map<String, Value>) {
        self.add_message(
            dialect,
            channel,
            event.name,
            json!({
                "name": event.name,
                "title": event.name,
                "summary": event.when,
                "description": format!("To {}.", event.to),
                "payload": dialect.sent(event.name, &event.data),
                "examples": [{"payload": dialect.event_example(event.name, &event.example, false)}],
                "x-data": event.data,
                "x-stored": event.is_stored,
            }),
        );
        self.add_sending(dialect, event.name, event.when);
    }

    /// How a Socket.IO connection begins.
    fn add_connect(&mut self, channel: &mut Map<String, Value>) {
        let dialect = Dialect::SocketIo;
        self.add_message(dialect, channel, "CONNECT", json!({
            "name": "CONNECT",
            "title": "CONNECT",
            "summary": "The payload of the CONNECT packet, `auth` in most clients.",
            "payload": requests::introduction(),
            "examples": [{"payload": {"token": "7|AbCdEf", "since": 4710}}],
            "x-data": requests::introduction(),
            "x-codes": ["UNAUTHENTICATED", "AUTH_UNAVAILABLE", "RATE_LIMITED", "VALIDATION_FAILED", "SERVICE_UNAVAILABLE"],
        }));
        let error = json!({"$ref": "#/components/schemas/ConnectError"});
        self.add_message(dialect, channel, "CONNECT_ERROR", json!({
            "name": "CONNECT_ERROR",
            "title": "CONNECT_ERROR",
            "summary": "The token was refused, or could not be checked.",
            "payload": error,
            "examples": [{"payload": {"message": "Unauthenticated.", "data": {"code": "UNAUTHENTICATED"}}}],
            "x-data": error,
            "x-stored": false,
        }));
        self.operations.insert(
            "socketIo.CONNECT".into(),
            json!({
                "action": "receive",
                "channel": {"$ref": "#/channels/socketIo"},
                "messages": [{"$ref": "#/channels/socketIo/messages/CONNECT"}],
            }),
        );
        self.add_sending(dialect, "CONNECT_ERROR", "The token was refused, or could not be checked.");
    }

    fn add_sending(&mut self, dialect: Dialect, name: &str, summary: &str) {
        self.operations.insert(
            format!("{}.{name}", dialect.name()),
            json!({
                "action": "send",
                "channel": {"$ref": format!("#/channels/{}", dialect.name())},
                "summary": summary,
                "messages": [{"$ref": format!("#/channels/{}/messages/{name}", dialect.name())}],
            }),
        );
    }

    fn add_message(
        &mut self,
        dialect: Dialect,
        channel: &mut Map<String, Value>,
        name: &str,
        message: Value,
    ) {
        let key = format!("{}.{name}", dialect.name());
        channel.insert(name.into(), json!({"$ref": format!("#/components/messages/{key}")}));
        self.messages.insert(key, message);
    }
}

fn refused_ack() -> Value {
    let codes: Vec<_> = errors::all().iter().map(crate::errors::Error::code).collect();
    let error = object([
        ("code", json!({"type": "string", "enum": codes})),
        ("message", described(json!({"type": "string"}), "One sentence for a person.")),
        ("retryable", described(json!({"type": "boolean"}), "Whether the same event may succeed later.")),
    ]);
    described(object([("success", json!({"const": false})), ("error", error)]), "The event was refused.")
}

fn connect_error() -> Value {
    let data = object([("code", json!({"type": "string"}))]);
    object([("message", json!({"type": "string"})), ("data", data)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_message_of_both_dialects() {
        let document = document("/");
        for dialect in Dialect::ALL {
            let messages = document["channels"][dialect.name()]["messages"].as_object().expect("messages");
            for command in Command::ALL {
                assert!(messages.contains_key(command.name()), "{}", command.name());
            }
            let server = events::of_server(&mut Schemas::new());
            assert_eq!(server.iter().filter(|event| messages.contains_key(event.name)).count(), server.len());
        }
    }

    #[test]
    fn a_server_has_a_host_and_a_protocol() {
        assert_eq!(server_object("/"), json!({"host": "localhost:3001", "protocol": "ws"}));
        let public = server_object("https://chat.example.test/base");
        assert_eq!(public, json!({"host": "chat.example.test", "pathname": "/base", "protocol": "wss"}));
    }
}
