//! Socket.IO packets (protocol 5): reading what clients send.
//!
//! Owns the grammar `<type>[<attachments>-][<namespace>,][<id>][<json>]` and nothing of sessions. What goes to
//! clients is encoded in [`crate::event`]; Engine.IO around it is in `payload`.

use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};

/// A packet of a client, borrowed from its text.
#[derive(Debug)]
pub enum Packet<'a> {
    /// Asks into a namespace.
    Connect {
        /// The namespace.
        namespace: &'a str,
        /// The payload, an object.
        auth: Option<&'a RawValue>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// The namespace.
        namespace: &'a str,
    },
    /// An event.
    Event {
        /// The namespace.
        namespace: &'a str,
        /// The id to acknowledge it by, if wanted.
        id: Option<u64>,
        /// How many binary messages follow that belong to it.
        attachments: usize,
        /// Its name; none if the first element is no string.
        name: Option<String>,
        /// The other elements.
        args: Vec<Box<RawValue>>,
    },
    /// An answer to an event of the server.
    Ack {
        /// The namespace.
        namespace: &'a str,
        /// Which event it answers.
        id: u64,
        /// How many binary messages follow that belong to it.
        attachments: usize,
        /// The arguments.
        args: Vec<Box<RawValue>>,
    },
}

/// A packet that is none: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPacket;

/// Namespaces are short; nothing longer is worth answering.
const MAX_NAMESPACE: usize = 128;

/// Reads a packet from the text of one Engine.IO message.
pub fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    let kind = *text.as_bytes().first().ok_or(BadPacket)?;
    if !kind.is_ascii_digit() {
        return Err(BadPacket);
    }
    let mut rest = &text[1..];

    let binary = matches!(kind, b'5' | b'6');
    let attachments = if binary {
        let (count, after) = rest.split_once('-').ok_or(BadPacket)?;
        rest = after;
        usize::try_from(number(count)?).map_err(|_| BadPacket)?
    } else {
        0
    };

    let namespace = if rest.starts_with('/') {
        let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
        rest = after;
        // Clients may append a query; it names the same namespace.
        namespace.split('?').next().unwrap_or(namespace)
    } else {
        "/"
    };
    if namespace.len() > MAX_NAMESPACE {
        return Err(BadPacket);
    }

    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, json) = rest.split_at(digits);
    let id = if id.is_empty() { None } else { Some(number(id)?) };

    match kind {
        b'0' if id.is_none() => {
            let auth = match json {
                "" => None,
                json => Some(serde_json::from_str::<&RawValue>(json).map_err(|_| BadPacket)?),
            };
            // `null` is what some clients send for "nothing".
            let auth = auth.filter(|raw| raw.get() != "null");
            if auth.is_some_and(|raw| !raw.get().starts_with('{')) {
                return Err(BadPacket);
            }
            Ok(Packet::Connect { namespace, auth })
        }
        b'1' if id.is_none() && json.is_empty() => Ok(Packet::Disconnect { namespace }),
        b'2' | b'5' => {
            let Elements { name, args }: Elements = serde_json::from_str(json).map_err(|_| BadPacket)?;
            check_placeholders(binary, &args, attachments)?;
            Ok(Packet::Event { namespace, id, attachments, name, args })
        }
        b'3' | b'6' => {
            let id = id.ok_or(BadPacket)?;
            let args: Vec<Box<RawValue>> = serde_json::from_str(json).map_err(|_| BadPacket)?;
            check_placeholders(binary, &args, attachments)?;
            Ok(Packet::Ack { namespace, id, attachments, args })
        }
        _ => Err(BadPacket),
    }
}

/// In a binary packet every placeholder stands for an attachment that comes.
fn check_placeholders(binary: bool, args: &[Box<RawValue>], attachments: usize) -> Result<(), BadPacket> {
    if !binary {
        return Ok(());
    }
    for arg in args {
        // Nesting deeper than the parser's own limit is refused with it, so the walk is no deeper either.
        let value = serde_json::from_str(arg.get()).map_err(|_| BadPacket)?;
        if !placeholders_fit(&value, attachments) {
            return Err(BadPacket);
        }
    }
    Ok(())
}

fn placeholders_fit(value: &Value, attachments: usize) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| placeholders_fit(item, attachments)),
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) => object
            .get("num")
            .and_then(Value::as_u64)
            .is_some_and(|num| usize::try_from(num).is_ok_and(|num| num < attachments)),
        Value::Object(object) => object.values().all(|item| placeholders_fit(item, attachments)),
        _ => true,
    }
}

/// A decimal number without sign or leading surprises that fits.
fn number(digits: &str) -> Result<u64, BadPacket> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadPacket);
    }
    digits.parse().map_err(|_| BadPacket)
}

/// Whether Socket.IO keeps this event name to itself.
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener"
    )
}

/// A non-empty JSON array whose first element is taken for a name.
struct Elements {
    name: Option<String>,
    args: Vec<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Elements;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a non-empty array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Elements, A::Error> {
                let first: &RawValue =
                    seq.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let name = serde_json::from_str::<String>(first.get()).ok();
                let mut args = Vec::new();
                while let Some(arg) = seq.next_element::<Box<RawValue>>()? {
                    args.push(arg);
                }
                Ok(Elements { name, args })
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_without_its_attachment_is_no_packet() {
        for bad in [
            r#"51-["x",{"_placeholder":true,"num":1}]"#,
            r#"51-["x",{"_placeholder":true,"num":-1}]"#,
            r#"51-["x",{"_placeholder":true}]"#,
            r#"51-["x",[{"a":{"_placeholder":true,"num":7}}]]"#,
            r#"61-3[{"_placeholder":true,"num":"0"}]"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(
            parse(r#"52-["x",[{"a":{"_placeholder":true,"num":1}}],{"_placeholder":true,"num":0}]"#).is_ok()
        );
        assert!(parse(r#"2["x",{"_placeholder":true,"num":7}]"#).is_ok(), "without attachments it is data");
    }

    #[test]
    fn connect_carries_a_namespace_and_an_object() {
        let cases = [
            ("0", "/", None),
            ("0{\"token\":\"7|AbC\"}", "/", Some("{\"token\":\"7|AbC\"}")),
            ("0/custom,", "/custom", None),
            ("0/custom", "/custom", None),
            ("0/custom?a=1,{}", "/custom", Some("{}")),
            ("0null", "/", None),
        ];
        for (text, wanted, payload) in cases {
            let Ok(Packet::Connect { namespace, auth }) = parse(text) else { panic!("{text}") };
            assert_eq!(namespace, wanted, "{text}");
            assert_eq!(auth.map(|raw| raw.get()), payload, "{text}");
        }
    }

    #[test]
    fn an_event_has_a_name_arguments_and_perhaps_an_id() {
        let Ok(Packet::Event { namespace, id, attachments, name, args }) =
            parse("2/admin,13[\"a\",1,{\"b\":[2]}]")
        else {
            panic!()
        };
        assert_eq!((namespace, id, attachments), ("/admin", Some(13), 0));
        assert_eq!(name.as_deref(), Some("a"));
        assert_eq!(args.iter().map(|arg| arg.get()).collect::<Vec<_>>(), ["1", "{\"b\":[2]}"]);
        let Ok(Packet::Event { attachments: 2, id: Some(7), .. }) = parse("52-7[\"a\"]") else { panic!() };
        let Ok(Packet::Event { name: None, .. }) = parse("2[1]") else { panic!() };
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bad in [
            "",
            "a",
            "abc",
            "7",
            "9[]",
            "2",
            "2{}",
            "2[]",
            "2[\"a\"",
            "2abc[\"a\"]",
            "2-1[\"a\"]",
            "5[\"a\"]",
            "5-[\"a\"]",
            "5x-[\"a\"]",
            "5-1-[\"a\"]",
            "3[]",
            "31",
            "31{}",
            "0[]",
            "0\"x\"",
            "0{",
            "012",
            "1x",
            "2[\"a\"]x",
            "299999999999999999999999[\"a\"]",
            "4{}",
            "é",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("0/{},", "n".repeat(200))).is_err());
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("2[\"a\",{}{}]", "[".repeat(40_000), "]".repeat(40_000));
        assert!(matches!(parse(&deep), Ok(Packet::Event { .. })));
    }
}
