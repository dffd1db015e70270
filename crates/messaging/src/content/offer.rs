//! The offer of a message, as the main API writes it and the app renders it. What an offer means is the
//! main API's business; here its fields are only checked.

use serde_json::{Map, Number, Value, json};

use super::MessageText;
use crate::{
    clock::Timestamp,
    errors::{Error, FieldErrors, Result},
};

/// The fields of an offer, and whether each must be there.
const FIELDS: [(&str, bool); 7] = [
    ("id", true),
    ("offer_type", true),
    ("amount", true),
    ("start_date", false),
    ("end_date", false),
    ("status", true),
    ("message", false),
];
/// More characters than this are no word for a type or status.
const MAX_WORD: usize = 32;
/// More than this is no price of anything that is rented.
const MAX_AMOUNT: f64 = 1e12;

/// A whole offer: `{id, offer_type, amount, start_date, end_date, status, message}`, all of them there.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer(Map<String, Value>);

/// Some fields of an offer, to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferChange(Map<String, Value>);

impl Offer {
    /// Reads the `offer` of a request; what is wrong is told by field, as `offer.amount`.
    pub fn parse(value: &Value) -> Result<Self> {
        let Value::Object(given) = value else {
            return Err(Error::field("offer", "The offer field must be an object."));
        };
        let mut errors = FieldErrors::new();
        let mut offer = Map::new();
        for (name, is_required) in FIELDS {
            let key = format!("offer.{name}");
            match given.get(name).filter(|value| !value.is_null()) {
                None if is_required => {
                    errors.insert(key.clone().into(), vec![format!("The {key} field is required.")]);
                }
                None => drop(offer.insert(name.into(), Value::Null)),
                Some(value) => match checked(name, &key, value) {
                    Ok(value) => drop(offer.insert(name.into(), value)),
                    Err(sentence) => drop(errors.insert(key.into(), vec![sentence])),
                },
            }
        }
        if errors.is_empty() {
            in_order(&offer, "offer.end_date")?;
            return Ok(Self(offer));
        }
        Err(Error::Validation(errors))
    }

    /// As it is stored.
    pub fn to_json(&self) -> String {
        json!(self.0).to_string()
    }
}

impl OfferChange {
    /// Reads a request body with one field of an offer or more; the id is not among them.
    pub fn parse(json: &str) -> Result<Self> {
        let Ok(Value::Object(given)) = serde_json::from_str(json) else {
            return Err(Error::BadRequest("The body must be a JSON object.".into()));
        };
        let mut errors = FieldErrors::new();
        let mut change = Map::new();
        for (name, is_required) in FIELDS.into_iter().skip(1) {
            match given.get(name) {
                None => {}
                Some(Value::Null) if is_required => {
                    errors.insert(name.into(), vec![format!("The {name} field must not be null.")]);
                }
                Some(Value::Null) => drop(change.insert(name.into(), Value::Null)),
                Some(value) => match checked(name, name, value) {
                    Ok(value) => drop(change.insert(name.into(), value)),
                    Err(sentence) => drop(errors.insert(name.into(), vec![sentence])),
                },
            }
        }
        if !errors.is_empty() {
            return Err(Error::Validation(errors));
        }
        if change.is_empty() {
            return Err(Error::field("status", "The status field is required when nothing else is changed."));
        }
        Ok(Self(change))
    }

    /// The stored offer with these fields, or `None` if that changes nothing.
    pub fn apply(&self, stored: &str) -> Result<Option<String>> {
        let before: Map<String, Value> = serde_json::from_str(stored).map_err(Error::internal)?;
        let mut after = before.clone();
        after.extend(self.0.clone());
        in_order(&after, "end_date")?;
        Ok((after != before).then(|| json!(after).to_string()))
    }
}

/// A field's value as it is stored, or what is wrong with it.
fn checked(name: &str, key: &str, value: &Value) -> Result<Value, String> {
    match name {
        "id" => value
            .as_i64()
            .filter(|id| *id > 0)
            .map(Value::from)
            .ok_or_else(|| format!("The {key} field must be a positive integer.")),
        "amount" => amount(value)
            .map(Value::Number)
            .ok_or_else(|| format!("The {key} field must be a number of at least 0.")),
        "start_date" | "end_date" => value
            .as_str()
            .map(str::trim)
            .filter(|text| begins(text).is_some())
            .map(Value::from)
            .ok_or_else(|| format!("The {key} field must be a date, such as 2026-05-01.")),
        "message" => {
            let text = value.as_str().ok_or_else(|| format!("The {key} field must be a string."))?;
            let text = MessageText::parse_beside_attachment(text)
                .map_err(|_| format!("The {key} field must not be greater than 5000 characters."))?;
            Ok(text.into_string().into())
        }
        _ => value
            .as_str()
            .filter(|word| is_word(word))
            .map(Value::from)
            .ok_or_else(|| format!("The {key} field must be a word of letters, digits, - and _.")),
    }
}

fn is_word(word: &str) -> bool {
    (1..=MAX_WORD).contains(&word.len())
        && word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A number, or a numeric string as Laravel's decimal casts write it.
fn amount(value: &Value) -> Option<Number> {
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::String(text) => {
            let amount: f64 = text.trim().parse().ok()?;
            Number::from_f64(amount)?
        }
        _ => return None,
    };
    number.as_f64().filter(|amount| (0.0..=MAX_AMOUNT).contains(amount))?;
    Some(number)
}

/// When a date, or a date with a time, begins.
fn begins(text: &str) -> Option<Timestamp> {
    let is_date = text.len() == 10;
    Timestamp::parse(&if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() })
}

fn in_order(offer: &Map<String, Value>, key: &'static str) -> Result<()> {
    let date = |name: &str| offer.get(name).and_then(Value::as_str).and_then(begins);
    match (date("start_date"), date("end_date")) {
        (Some(start), Some(end)) if end < start => {
            Err(Error::field(key, format!("The {key} field must not be before the start date.")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        json!({
            "id": 17, "offer_type": "rental", "amount": "45.50", "start_date": "2026-05-01",
            "end_date": "2026-05-03", "status": "pending", "message": " For the weekend? ",
        })
    }

    fn refused(offer: &Value) -> Vec<String> {
        match Offer::parse(offer) {
            Err(Error::Validation(fields)) => fields.into_keys().map(Into::into).collect(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn an_offer_is_stored_with_all_its_fields() {
        let offer = Offer::parse(&whole()).expect("an offer").to_json();
        let offer: Value = serde_json::from_str(&offer).expect("JSON");
        assert_eq!(
            offer,
            json!({
                "id": 17, "offer_type": "rental", "amount": 45.5, "start_date": "2026-05-01",
                "end_date": "2026-05-03", "status": "pending", "message": "For the weekend?",
            })
        );
        let least = json!({"id": 1, "offer_type": "sale", "amount": 0, "status": "pending", "color": "red"});
        let offer: Value =
            serde_json::from_str(&Offer::parse(&least).expect("an offer").to_json()).expect("JSON");
        assert_eq!(offer.as_object().map(Map::len), Some(7));
        assert_eq!((&offer["start_date"], &offer["color"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn each_field_is_refused_by_its_name() {
        for (name, bad) in [
            ("id", json!(0)),
            ("id", json!("17")),
            ("offer_type", json!("")),
            ("offer_type", json!("a b")),
            ("offer_type", json!("x".repeat(33))),
            ("amount", json!(-1)),
            ("amount", json!("NaN")),
            ("amount", json!("12,5")),
            ("amount", json!(1e13)),
            ("start_date", json!("1 May")),
            ("start_date", json!("2026-02-30")),
            ("end_date", json!("2026-04-30")),
            ("status", json!(1)),
            ("status", Value::Null),
            ("message", json!([])),
            ("message", json!("x".repeat(5001))),
        ] {
            let mut offer = whole();
            offer[name] = bad.clone();
            assert_eq!(refused(&offer), [format!("offer.{name}")], "{bad}");
        }
        assert_eq!(refused(&json!([])), ["offer"]);
        assert_eq!(refused(&json!({})), ["offer.amount", "offer.id", "offer.offer_type", "offer.status"]);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let stored = Offer::parse(&whole()).expect("an offer").to_json();
        let change = OfferChange::parse(r#"{"status":"accepted","id":4,"amount":40}"#).expect("a change");
        let changed = change.apply(&stored).expect("in order").expect("changed");
        let changed: Value = serde_json::from_str(&changed).expect("JSON");
        assert_eq!((&changed["status"], &changed["amount"]), (&json!("accepted"), &json!(40)));
        assert_eq!((&changed["id"], &changed["end_date"]), (&json!(17), &json!("2026-05-03")));
        assert_eq!(change.apply(&changed.to_string()).expect("in order"), None, "the same again");
        let late = OfferChange::parse(r#"{"start_date":"2026-06-01"}"#).expect("a change");
        assert!(late.apply(&stored).is_err(), "the end would be before the start");
        for bad in ["{}", r#"{"id":4}"#, r#"{"status":null}"#, r#"{"amount":"x"}"#, "[]", ""] {
            assert!(OfferChange::parse(bad).is_err(), "{bad}");
        }
    }
}
