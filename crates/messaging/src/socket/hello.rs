//! How a connection introduces itself: a token and a place to go on, in any of four ways (contract 4.1).

use std::borrow::Cow;

use edge::Hello;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::{
    chat::{Fields, Since},
    errors::{Error, Result},
};

/// A token, if one came, and where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) token: Option<String>,
    pub(super) since: Since,
}

impl Introduction {
    /// From the CONNECT payload, else the `Authorization` header, else the query.
    pub(super) fn of(hello: &Hello) -> Result<Self> {
        let query = hello.query.as_deref().unwrap_or_default();
        let payload = hello.auth.as_ref().map(|raw| raw.get()).filter(|raw| *raw != "null");
        let mut introduction = match payload {
            Some(payload) => Self::parse(payload)?,
            None => Self { token: None, since: Since::Now },
        };
        if introduction.token.is_none() {
            introduction.token = hello
                .authorization
                .clone()
                .or_else(|| query_value(query, "token").map(Cow::into_owned))
                .filter(|token| !token.trim().is_empty());
        }
        if introduction.since == Since::Now
            && let Some(since) = query_value(query, "since").filter(|since| !since.is_empty())
        {
            let seq = since.parse().ok().filter(|seq| *seq >= 0);
            introduction.since = seq.map(Since::Seq).ok_or_else(|| Error::field("since", BAD_SINCE))?;
        }
        Ok(introduction)
    }

    /// From a CONNECT payload or the argument of `authenticate`.
    pub(super) fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let token = fields.text("token").filter(|token| !token.trim().is_empty());
        let since = since_of(&mut fields);
        fields.finish(Some(Self { token, since }))
    }
}

const BAD_SINCE: &str = "The since field must be an integer of at least 0.";

/// `since`, if there is one: 0 is the whole log.
pub(super) fn since_of(fields: &mut Fields) -> Since {
    match fields.value("since").map(Value::as_i64) {
        None => Since::Now,
        Some(Some(seq)) if seq >= 0 => Since::Seq(seq),
        Some(_) => {
            fields.refuse("since", BAD_SINCE);
            Since::Now
        }
    }
}

/// A query parameter, percent-decoded; a `+` stays one, since tokens are no forms.
fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        if key == name { percent_decode_str(value).decode_utf8().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn hello(auth: Option<&str>, authorization: Option<&str>, query: Option<&str>) -> Hello {
        Hello {
            dialect: edge::Dialect::SocketIo,
            namespace: "/".into(),
            auth: auth.map(|json| RawValue::from_string(json.into()).expect("JSON")),
            query: query.map(Into::into),
            authorization: authorization.map(Into::into),
            remote: [127, 0, 0, 1].into(),
        }
    }

    fn token(auth: Option<&str>, authorization: Option<&str>, query: Option<&str>) -> Option<String> {
        Introduction::of(&hello(auth, authorization, query)).expect("an introduction").token
    }

    #[test]
    fn a_token_comes_in_any_of_three_ways_and_the_payload_goes_first() {
        let (auth, header, query) = (r#"{"token":"7|a"}"#, "Bearer 7|b", "EIO=4&token=7%7Cc&x=y");
        assert_eq!(token(Some(auth), Some(header), Some(query)).as_deref(), Some("7|a"));
        assert_eq!(token(Some("{}"), Some(header), Some(query)).as_deref(), Some("Bearer 7|b"));
        assert_eq!(token(Some("null"), None, Some(query)).as_deref(), Some("7|c"));
        assert_eq!(token(None, None, Some("token=7|c")).as_deref(), Some("7|c"));
        assert_eq!(token(None, None, Some("token=&EIO=4")), None);
        assert_eq!(token(None, None, None), None);
    }

    #[test]
    fn a_place_to_go_on_is_a_number_from_0() {
        let since = |query: &str| Introduction::of(&hello(None, None, Some(query))).map(|hello| hello.since);
        assert_eq!(since("since=0").expect("a place"), Since::Seq(0));
        assert_eq!(since("token=x").expect("none"), Since::Now);
        for bad in ["since=-1", "since=x", "since=1.5"] {
            assert!(since(bad).is_err(), "{bad}");
        }
        let payload = Introduction::parse(r#"{"token":"x","since":12}"#).expect("a place");
        assert_eq!(payload.since, Since::Seq(12));
        assert!(Introduction::parse(r#"{"since":"12"}"#).is_err());
        assert!(Introduction::parse(r#"{"token":7}"#).is_err());
    }
}
