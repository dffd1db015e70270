//! The two dialects: Socket.IO 5 in Engine.IO 4, and `{"event","data"}` text frames.
//!
//! Owns text to [`Incoming`] and client events to text. Framing is in `frame`, the events' shapes in `event`.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::event::{Ack, Event, Refusal};

/// How a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Socket.IO over WebSocket.
    SocketIo,
    /// `{"event","data"}` frames.
    Plain,
}

/// What a text frame of the service means.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Engine.IO's handshake: CONNECT may be sent.
    Open,
    /// To be answered with the Engine.IO pong.
    Ping,
    /// Nothing to do.
    Quiet,
    /// The namespace let the client in.
    Connected,
    /// The namespace refused the client.
    Refused(Refusal<'a>),
    /// The service ends the session.
    Disconnected,
    /// An event.
    Event(Event<'a>),
}

/// Engine.IO's answer to a ping.
pub const PONG: &[u8] = b"3";

/// Reads a text frame; the error says what is wrong with it.
pub fn parse(dialect: Dialect, text: &[u8]) -> Result<Incoming<'_>, String> {
    match dialect {
        Dialect::SocketIo => parse_socket_io(text),
        Dialect::Plain => read(text, PlainFrame).map(Incoming::Event),
    }
}

fn parse_socket_io(text: &[u8]) -> Result<Incoming<'_>, String> {
    match text {
        [b'0', ..] => Ok(Incoming::Open),
        [b'2', ..] => Ok(Incoming::Ping),
        [b'3' | b'6', ..] => Ok(Incoming::Quiet),
        [b'4', b'0', ..] => Ok(Incoming::Connected),
        [b'4', b'1', ..] | [b'1', ..] => Ok(Incoming::Disconnected),
        [b'4', b'2', rest @ ..] => read(rest, EventArray).map(Incoming::Event),
        [b'4', b'3', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, rest) = rest.split_at(digits);
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
            let number = number.ok_or("an ack has no number")?;
            let [ack]: [Ack<'_>; 1] =
                serde_json::from_slice(rest).map_err(|error| format!("an ack: {error}"))?;
            Ok(Incoming::Event(Event::Ack(number, ack)))
        }
        [b'4', b'4', rest @ ..] => {
            /// CONNECT_ERROR's payload.
            #[derive(Deserialize)]
            struct ConnectError<'a> {
                #[serde(borrow, default)]
                message: Cow<'a, str>,
                #[serde(borrow)]
                data: Option<Refusal<'a>>,
            }
            let error: ConnectError<'_> =
                serde_json::from_slice(rest).map_err(|error| format!("a CONNECT_ERROR: {error}"))?;
            let code = error.data.map_or(Cow::Borrowed(""), |data| data.code);
            Ok(Incoming::Refused(Refusal { code, message: error.message, client_message_id: None }))
        }
        _ => Err("a packet is of a type that this client never asked for".into()),
    }
}

fn read<'a, S: DeserializeSeed<'a>>(text: &'a [u8], seed: S) -> Result<S::Value, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| format!("an event cannot be read: {error}"))
}

/// Reads an event's one argument when its name is known, so that each text is walked once.
struct Data<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = Event<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event<'de>, D::Error> {
        match self.0 {
            "message_received" => Deserialize::deserialize(deserializer).map(Event::Received),
            "message_sent" => Deserialize::deserialize(deserializer).map(Event::Sent),
            "authenticated" => Deserialize::deserialize(deserializer).map(Event::Authenticated),
            "error" => Deserialize::deserialize(deserializer).map(Event::Error),
            "sync_required" => Deserialize::deserialize(deserializer).map(Event::SyncRequired),
            _ => Deserialize::deserialize(deserializer).map(Event::Other),
        }
    }
}

/// `["name",{…}]`
struct EventArray;

impl<'de> DeserializeSeed<'de> for EventArray {
    type Value = Event<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event<'de>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EventArray {
    type Value = Event<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event's name and one object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Event<'de>, A::Error> {
        let name: Text<'de> =
            array.next_element()?.ok_or_else(|| A::Error::custom("an event has no name"))?;
        let event = array.next_element_seed(Data(&name.0))?;
        let event = event.ok_or_else(|| A::Error::custom("an event has no argument"))?;
        match array.next_element::<IgnoredAny>()? {
            Some(_) => Err(A::Error::custom("an event has more than one argument")),
            None => Ok(event),
        }
    }
}

/// `{"event":"name","data":{…}}`, in any order.
struct PlainFrame;

impl<'de> DeserializeSeed<'de> for PlainFrame {
    type Value = Event<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PlainFrame {
    type Value = Event<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with event and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<'de>, A::Error> {
        let (mut name, mut event): (Option<Text<'de>>, _) = (None, None);
        let (mut raw, mut reference): (Option<&'de RawValue>, Option<u64>) = (None, None);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match (&*key.0, &name) {
                ("event", _) => name = Some(map.next_value()?),
                // An ack's data has a shape of its own; it waits until `ref` is known.
                ("data", Some(name)) if name.0 != "ack" => event = Some(map.next_value_seed(Data(&name.0))?),
                ("data", _) => raw = Some(map.next_value()?),
                ("ref", _) => reference = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let name = name.ok_or_else(|| A::Error::custom("a frame has no event"))?;
        let in_data = |error: serde_json::Error| A::Error::custom(error);
        match (event, raw) {
            (Some(event), _) => Ok(event),
            (None, Some(raw)) if name.0 == "ack" => {
                let number = reference.ok_or_else(|| A::Error::custom("an ack has no ref"))?;
                serde_json::from_str(raw.get()).map(|ack| Event::Ack(number, ack)).map_err(in_data)
            }
            (None, Some(raw)) => {
                let mut deserializer = serde_json::Deserializer::from_str(raw.get());
                Data(&name.0).deserialize(&mut deserializer).map_err(in_data)
            }
            (None, None) => Err(A::Error::custom("a frame has no data")),
        }
    }
}

/// A string that is only copied where it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow<'a>(PhantomData<&'a str>);
        impl<'de: 'a, 'a> Visitor<'de> for Borrow<'a> {
            type Value = Text<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow(PhantomData))
    }
}

/// Appends a client event's text: its name, its data as JSON text, and the number its ack shall have.
pub fn encode(out: &mut String, dialect: Dialect, name: &str, data: &str, ack: Option<u64>) {
    use fmt::Write as _;
    let written = match (dialect, ack) {
        (Dialect::SocketIo, None) => write!(out, "42[\"{name}\",{data}]"),
        (Dialect::SocketIo, Some(ack)) => write!(out, "42{ack}[\"{name}\",{data}]"),
        (Dialect::Plain, None) => write!(out, "{{\"event\":\"{name}\",\"data\":{data}}}"),
        (Dialect::Plain, Some(ack)) => write!(out, "{{\"event\":\"{name}\",\"ref\":{ack},\"data\":{data}}}"),
    };
    written.expect("writing into a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        r#"{"id":7,"conversation_id":3,"seq":2,"sender_id":9,"sender":{"id":9},"content":"a \"b\"","x":[1]}"#;

    #[test]
    fn both_dialects_say_the_same() {
        let data = format!(r#"{{"message":{MESSAGE},"conversation_id":3,"event_seq":12}}"#);
        for (dialect, text) in [
            (Dialect::SocketIo, format!(r#"42["message_received",{data}]"#)),
            (Dialect::SocketIo, format!(r#"42 [ "message_received" , {data} ]"#)),
            (Dialect::Plain, format!(r#"{{"event":"message_received","data":{data}}}"#)),
            (Dialect::Plain, format!(r#"{{"data":{data},"more":[1],"event":"message_received"}}"#)),
        ] {
            let incoming = parse(dialect, text.as_bytes()).unwrap();
            let Incoming::Event(Event::Received(received)) = incoming else { panic!("{incoming:?}") };
            assert_eq!((received.conversation_id, received.event_seq), (3, Some(12)));
            assert_eq!((received.message.seq, &*received.message.content), (2, "a \"b\""));
        }
    }

    #[test]
    fn acks_carry_their_number_in_both_dialects() {
        let data = format!(r#"{{"success":true,"data":{MESSAGE}}}"#);
        for (dialect, text) in [
            (Dialect::SocketIo, format!("4317[{data}]")),
            (Dialect::Plain, format!(r#"{{"event":"ack","ref":17,"data":{data}}}"#)),
            (Dialect::Plain, format!(r#"{{"event":"ack","data":{data},"ref":17}}"#)),
        ] {
            let incoming = parse(dialect, text.as_bytes()).unwrap();
            let Incoming::Event(Event::Ack(17, ack)) = incoming else { panic!("{incoming:?}") };
            assert!(ack.success);
            assert_eq!(ack.data.unwrap().content.unwrap(), "a \"b\"");
        }
    }

    #[test]
    fn what_breaks_the_contract_is_an_error() {
        for (dialect, text) in [
            (Dialect::SocketIo, r#"42["message_sent"]"#),
            (Dialect::SocketIo, r#"42["user_presence",{},{}]"#),
            (Dialect::SocketIo, r#"42["message_received",{"message":{}}]"#),
            (Dialect::SocketIo, "43[{}]"),
            (Dialect::SocketIo, "9"),
            (Dialect::Plain, r#"{"event":"x"}"#),
            (Dialect::Plain, r#"{"data":{}}"#),
            (Dialect::Plain, "[]"),
        ] {
            assert!(parse(dialect, text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn client_events_are_what_the_contract_shows() {
        let text = |dialect, ack| {
            let mut text = String::new();
            encode(&mut text, dialect, "mark_read", r#"{"conversation_id":1}"#, ack);
            text
        };
        assert_eq!(text(Dialect::SocketIo, None), r#"42["mark_read",{"conversation_id":1}]"#);
        assert_eq!(text(Dialect::SocketIo, Some(5)), r#"425["mark_read",{"conversation_id":1}]"#);
        assert_eq!(text(Dialect::Plain, None), r#"{"event":"mark_read","data":{"conversation_id":1}}"#);
        assert_eq!(
            text(Dialect::Plain, Some(5)),
            r#"{"event":"mark_read","ref":5,"data":{"conversation_id":1}}"#
        );
    }
}
