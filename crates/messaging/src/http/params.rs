//! Path and query parameters (contract section 7, out-of-range numbers).
//!
//! Ids that are numbers but exist nowhere are 404, ids that are not numbers 422; pages and limits
//! above their maximum are clamped; zero, negative, fractional or non-numeric ones are 422.

use std::collections::HashMap;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::{chat::PageRequest, errors::Error};

/// The id in a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathId(pub(super) i64);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let ids = path.map_err(|_| Error::BadRequest("The path cannot be read.".into()))?;
        parse_id("id", ids.get("id").map_or("", String::as_str)).map(Self)
    }
}

/// A number too large for any id is an id that exists nowhere, as 0 is.
fn parse_id(name: &'static str, text: &str) -> Result<i64, Error> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::field(name, format!("The {name} must be a number.")));
    }
    Ok(text.parse().unwrap_or(0))
}

/// The query string's parameters; of a repeated one the last counts.
#[derive(Debug, Default)]
pub(super) struct Query(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// A parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An id, which need not exist anywhere.
    pub(super) fn id(&self, name: &'static str) -> Result<Option<i64>, Error> {
        self.text(name).map(|text| parse_id(name, text)).transpose()
    }

    /// A positive integer, clamped to `max`.
    pub(super) fn positive(&self, name: &'static str, max: i64) -> Result<Option<i64>, Error> {
        self.integer(name, 1, max)
    }

    /// An integer of at least `min`, clamped to `max`.
    pub(super) fn integer(&self, name: &'static str, min: i64, max: i64) -> Result<Option<i64>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().unwrap_or(i64::MAX);
        if !is_number || number < min {
            return Err(Error::field(
                name,
                format!("The {name} field must be an integer of at least {min}."),
            ));
        }
        Ok(Some(number.min(max)))
    }

    /// `page` and `limit`.
    pub(super) fn page(&self, default_limit: i64, max_limit: i64) -> Result<PageRequest, Error> {
        Ok(PageRequest {
            page: self.positive("page", i64::from(i32::MAX))?.unwrap_or(1),
            limit: self.positive("limit", max_limit)?.unwrap_or(default_limit),
        })
    }

    /// A yes or no, as people write it in addresses.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.text(name) {
            None | Some("false" | "0" | "") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(Error::field(name, format!("The {name} field must be true or false."))),
        }
    }

    /// A comma-separated list of ids.
    pub(super) fn ids(&self, name: &'static str, max: usize) -> Result<Vec<i64>, Error> {
        let text = self.text(name).unwrap_or_default();
        let ids: Option<Vec<i64>> =
            text.split(',').map(|id| id.trim().parse().ok().filter(|id| *id > 0)).collect();
        match ids {
            Some(ids) if ids.len() <= max => Ok(ids),
            Some(_) => {
                Err(Error::field(name, format!("The {name} field must not have more than {max} items.")))
            }
            None => Err(Error::field(
                name,
                format!("The {name} field must be a list of ids, separated by commas."),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    #[test]
    fn numbers_above_the_maximum_are_clamped_and_nonsense_is_refused() {
        assert_eq!(query("limit=1000").positive("limit", 100).expect("clamped"), Some(100));
        assert_eq!(query("limit=99999999999999999999").positive("limit", 100).expect("clamped"), Some(100));
        assert_eq!(query("").positive("limit", 100).expect("absent"), None);
        for bad in ["0", "-1", "1.5", "abc", "", "1e3", " 1"] {
            assert!(query(&format!("limit={bad}")).positive("limit", 100).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_a_number_even_if_it_exists_nowhere() {
        for (text, id) in [("7", 7), ("0", 0), ("-7", -7), ("99999999999999999999", 0)] {
            assert_eq!(parse_id("id", text).expect("a number"), id);
        }
        for bad in ["", "-", "abc", "1.5", "1 ", "٣"] {
            assert!(parse_id("id", bad).is_err(), "{bad}");
        }
    }
}
