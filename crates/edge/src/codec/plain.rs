//! The plain dialect: JSON text frames `{"event","data","ref"}`.
//!
//! Owns reading what clients send; what goes to them is encoded in [`crate::event`]. What follows from a bad
//! frame is decided in `driver`.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::handler::Malformed;

/// A frame of a client.
#[derive(Debug)]
pub struct Frame {
    /// The event's name, not empty; none if there is no such string.
    pub name: Option<String>,
    /// Its data; `{}` if absent or null.
    pub data: Box<RawValue>,
    /// The `ref` to answer to, as JSON text.
    pub reference: Option<Box<str>>,
}

/// A `ref` is echoed; longer than this it is refused.
const MAX_REF: usize = 256;

/// Reads a frame from the text of one WebSocket message.
pub fn parse(text: &str) -> Result<Frame, Malformed> {
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| {
        // The same text again as any JSON at all: only what is none closes the connection.
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Malformed::NotAnObject,
            Err(_) => Malformed::NotJson,
        }
    })?;
    let name = present(fields.event).and_then(|raw| serde_json::from_str::<String>(raw).ok());
    let name = name.filter(|name| !name.is_empty());
    let reference = match present(fields.reference) {
        Some(raw) if raw.len() > MAX_REF || !is_string_or_number(raw) => return Err(Malformed::BadRef),
        raw => raw.map(Box::from),
    };
    let data = RawValue::from_string(present(fields.data).unwrap_or("{}").to_owned())
        .map_err(|_| Malformed::NotJson)?;
    Ok(Frame { name, data, reference })
}

/// The JSON text of a field, unless it is absent or null.
fn present(field: Option<&RawValue>) -> Option<&str> {
    field.map(RawValue::get).filter(|json| *json != "null")
}

fn is_string_or_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

/// An object's fields that matter; the last one of a name counts, others are ignored.
#[derive(Default)]
struct Fields<'a> {
    event: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    reference: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match &*key {
                        "event" => fields.event = Some(map.next_value()?),
                        "data" => fields.data = Some(map.next_value()?),
                        "ref" => fields.reference = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_an_object_with_an_event() {
        let frame = parse(r#" {"event":"typing","data":{"a":1},"ref":"x","more":[]} "#).unwrap();
        assert_eq!(frame.name.as_deref(), Some("typing"));
        assert_eq!(frame.data.get(), r#"{"a":1}"#);
        assert_eq!(frame.reference.as_deref(), Some(r#""x""#));
        let bare = parse(r#"{"event":"a","data":null,"ref":null}"#).unwrap();
        assert_eq!((bare.data.get(), bare.reference), ("{}", None));
        assert_eq!(parse(r#"{"event":"a","ref":-1.5}"#).unwrap().reference.as_deref(), Some("-1.5"));
        assert_eq!(parse(r#"{"\u0065vent":"\u0061"}"#).unwrap().name.as_deref(), Some("a"));
    }

    #[test]
    fn each_problem_has_its_name() {
        let cases = [
            ("", Malformed::NotJson),
            ("hello", Malformed::NotJson),
            ("{\"event\":", Malformed::NotJson),
            ("{\"event\":\"a\"} x", Malformed::NotJson),
            ("[\"a\",{}]", Malformed::NotAnObject),
            ("\"a\"", Malformed::NotAnObject),
            ("1", Malformed::NotAnObject),
            ("null", Malformed::NotAnObject),
            ("{\"event\":\"a\",\"ref\":{}}", Malformed::BadRef),
            ("{\"event\":\"a\",\"ref\":true}", Malformed::BadRef),
        ];
        for (text, problem) in cases {
            assert_eq!(parse(text).unwrap_err(), problem, "{text}");
        }
        let long = format!("{{\"event\":\"a\",\"ref\":\"{}\"}}", "r".repeat(300));
        assert_eq!(parse(&long).unwrap_err(), Malformed::BadRef);
    }

    #[test]
    fn a_frame_without_a_name_keeps_its_ref() {
        for text in ["{}", r#"{"event":""}"#, r#"{"event":5}"#, r#"{"event":null}"#] {
            assert_eq!(parse(text).unwrap().name, None, "{text}");
        }
        let frame = parse(r#"{"data":1,"ref":7}"#).unwrap();
        assert_eq!((frame.name, frame.reference.as_deref()), (None, Some("7")));
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("{{\"event\":\"a\",\"data\":{}{}}}", "[".repeat(40_000), "]".repeat(40_000));
        assert!(parse(&deep).is_ok());
        assert_eq!(parse(&"[".repeat(80_000)).unwrap_err(), Malformed::NotJson);
    }
}
