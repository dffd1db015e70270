//! The flat object that a client may attach to a message; the service keeps it and reads nothing of it.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::errors::{Error, Result};

/// The most bytes the object may have as compact JSON.
const MAX_BYTES: usize = 2_048;

/// A flat JSON object of at most 2 KB: strings, numbers, booleans and nulls by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// Reads the `metadata` of a request; `null` means that there is none.
    pub fn parse(raw: Value) -> Result<Option<Self>> {
        let refused = |sentence: &str| Err(Error::field("metadata", sentence));
        let object = match raw {
            Value::Null => return Ok(None),
            Value::Object(object) => object,
            _ => return refused("The metadata field must be an object."),
        };
        if object.values().any(|value| value.is_object() || value.is_array()) {
            return refused("The metadata field must only contain strings, numbers, booleans and nulls.");
        }
        // PostgreSQL's `jsonb` cannot hold it, so neither database gets it.
        if object
            .iter()
            .any(|(key, value)| key.contains('\0') || value.as_str().is_some_and(|text| text.contains('\0')))
        {
            return refused("The metadata field must not contain NUL characters.");
        }
        let metadata = Self(object);
        if metadata.to_json().len() > MAX_BYTES {
            return refused("The metadata field must not be greater than 2048 bytes.");
        }
        Ok(Some(metadata))
    }

    /// The object as compact JSON, as it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("a map with string keys is always JSON")
    }

    /// The object.
    pub const fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The object as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flat_objects_come_back_as_sent() {
        for value in [
            json!({}),
            json!({"a": "b", "n": 1, "f": -1.5, "t": true, "f2": false, "z": null, "é": "ü"}),
            json!({"a": "x".repeat(MAX_BYTES - r#"{"a":""}"#.len())}),
        ] {
            assert_eq!(Metadata::parse(value.clone()).unwrap().unwrap().into_value(), value);
        }
    }

    #[test]
    fn null_is_no_metadata() {
        assert_eq!(Metadata::parse(Value::Null).unwrap(), None);
    }

    #[test]
    fn anything_nested_large_or_not_an_object_is_refused() {
        for value in [
            json!([]),
            json!("a"),
            json!(1),
            json!({"a": {}}),
            json!({"a": []}),
            json!({"a": "\u{0}"}),
            json!({"\u{0}": 1}),
            json!({"a": "x".repeat(MAX_BYTES - r#"{"a":""}"#.len() + 1)}),
            // Counted as bytes, not as characters.
            json!({"a": "é".repeat(1_024)}),
        ] {
            let error = Metadata::parse(value.clone()).unwrap_err();
            assert_eq!(error.code(), "VALIDATION_FAILED");
            assert!(error.message().starts_with("The metadata field must"), "{value}");
        }
    }
}
