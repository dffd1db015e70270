//! What can be said of a token that is a JWT before the main API is asked.
//!
//! The algorithm is pinned, time comes from the clock, and a token that passes is still only a
//! candidate: the main API has the last word.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    config::{Jwt, JwtVerification},
};

/// How far two machines' clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(5);

/// The check of one configuration.
pub(super) struct JwtCheck {
    verification: Option<JwtVerification>,
    issuers: Vec<String>,
}

/// The token is a JWT that must not be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl JwtCheck {
    pub(super) fn new(config: &Jwt) -> Self {
        Self { verification: config.verification.clone(), issuers: config.issuers.clone() }
    }

    /// When the token ends, if it says so.
    ///
    /// Without a key, nothing is refused: an unverified `exp` can only shorten how long the main
    /// API's answer is remembered.
    pub(super) fn check(&self, token: &str, now: Timestamp) -> Result<Option<Timestamp>, Refused> {
        let Some(jwt) = Parts::split(token) else { return Ok(None) };
        let claims = object(jwt.claims);
        let Some(verification) = &self.verification else {
            return Ok(claims.and_then(|claims| seconds(claims.get("exp")?)));
        };
        jwt.verify(verification)?;
        self.check_claims(&claims.ok_or(Refused)?, now)
    }

    fn check_claims(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refused> {
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => seconds(value).map(Some).ok_or(Refused),
        };
        let (expires, not_before) = (time("exp")?, time("nbf")?);
        if expires.is_some_and(|expires| now >= expires.plus(LEEWAY)) {
            return Err(Refused);
        }
        if not_before.is_some_and(|not_before| now.plus(LEEWAY) < not_before) {
            return Err(Refused);
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        if !self.issuers.is_empty()
            && !issuer.is_some_and(|issuer| self.issuers.iter().any(|ours| ours == issuer))
        {
            return Err(Refused);
        }
        Ok(expires)
    }
}

/// The three parts of a JWT, still encoded.
struct Parts<'a> {
    header: Map<String, Value>,
    claims: &'a str,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` for a token that is no JWT: opaque ones may well have dots.
    fn split(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header = object(header).filter(|header| header.contains_key("alg"))?;
        Some(Self { header, claims, signed, signature })
    }

    fn verify(&self, verification: &JwtVerification) -> Result<(), Refused> {
        let name = match verification.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            _ => return Err(Refused),
        };
        // `crit` names extensions that must be understood (RFC 7515 section 4.1.11); we know none.
        if self.header.get("alg").and_then(Value::as_str) != Some(name) || self.header.contains_key("crit") {
            return Err(Refused);
        }
        let genuine = jsonwebtoken::crypto::verify(
            self.signature,
            self.signed.as_bytes(),
            &verification.key,
            verification.algorithm,
        );
        if genuine.unwrap_or(false) { Ok(()) } else { Err(Refused) }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A time in seconds since the epoch, whole or not.
fn seconds(value: &Value) -> Option<Timestamp> {
    // The cast keeps to the ends of the range: a time beyond them is just very far away.
    let millis = (value.as_f64()? * 1000.0) as i64;
    Some(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"5b3f0c0d8e7a4f6c9a1b2c3d4e5f6071";
    const NOW: Timestamp = Timestamp::from_millis(1_764_930_600_000);

    fn check(issuers: &[&str]) -> JwtCheck {
        JwtCheck {
            verification: Some(JwtVerification {
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(SECRET),
            }),
            issuers: issuers.iter().map(|&issuer| issuer.to_owned()).collect(),
        }
    }

    fn sign(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).expect("signed")
    }

    fn at(offset: i64) -> i64 {
        NOW.as_seconds() + offset
    }

    #[test]
    fn exp_and_nbf_are_respected_with_five_seconds_of_leeway() {
        for (claims, accepted) in [
            (json!({"exp": at(60)}), true),
            (json!({"exp": at(-4)}), true),
            (json!({"exp": at(-5)}), false),
            (json!({"exp": at(60), "nbf": at(5)}), true),
            (json!({"exp": at(60), "nbf": at(6)}), false),
            (json!({}), true),
            (json!({"exp": "soon"}), false),
            (json!({"exp": 1e300}), true),
            (json!({"exp": -1e300}), false),
        ] {
            assert_eq!(check(&[]).check(&sign(&claims), NOW).is_ok(), accepted, "{claims}");
        }
        assert_eq!(
            check(&[]).check(&sign(&json!({"exp": at(60)})), NOW),
            Ok(Some(NOW.plus(Duration::from_secs(60))))
        );
    }

    #[test]
    fn the_issuer_must_be_one_of_the_list_where_there_is_one() {
        let issuers = ["rented-marketplace", "http://main-api:8000/api/v1/login"];
        for (claims, accepted) in [
            (json!({"iss": "rented-marketplace"}), true),
            (json!({"iss": "http://main-api:8000/api/v1/login"}), true),
            (json!({"iss": "rented"}), false),
            (json!({"iss": ["rented-marketplace"]}), false),
            (json!({}), false),
        ] {
            assert_eq!(check(&issuers).check(&sign(&claims), NOW).is_ok(), accepted, "{claims}");
            assert!(check(&[]).check(&sign(&claims), NOW).is_ok(), "{claims}");
        }
    }

    #[test]
    fn only_the_pinned_algorithm_and_an_untouched_token_are_accepted() {
        let good = sign(&json!({"sub": "1"}));
        let (signed, signature) = good.rsplit_once('.').expect("a JWT");
        let (_, claims) = signed.split_once('.').expect("a JWT");
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let other_secret = EncodingKey::from_secret(b"another secret");
        for bad in [
            format!("{}.{claims}.", part(json!({"alg": "none"}))),
            format!("{}.{claims}.{signature}", part(json!({"alg": "none"}))),
            format!("{}.{claims}.{signature}", part(json!({"alg": "RS256"}))),
            format!(
                "{}.{}.{signature}",
                part(json!({"alg": "HS256", "typ": "JWT"})),
                part(json!({"sub": "2"}))
            ),
            format!("{signed}."),
            format!("{signed}.!"),
            encode(&Header::default(), &json!({}), &other_secret).expect("signed"),
            encode(&Header::new(Algorithm::HS512), &json!({}), &EncodingKey::from_secret(SECRET))
                .expect("signed"),
            encode(&Header::default(), &json!([1]), &EncodingKey::from_secret(SECRET)).expect("signed"),
        ] {
            assert_eq!(check(&[]).check(&bad, NOW), Err(Refused), "{bad}");
        }
        assert!(check(&[]).check(&good, NOW).is_ok());
    }

    #[test]
    fn opaque_tokens_are_left_to_the_main_api() {
        for opaque in ["7|AbC", "a.b.c", "..", "a.b", "e30.e30.e30", "a.b.c.d.e"] {
            assert_eq!(check(&["x"]).check(opaque, NOW), Ok(None), "{opaque}");
        }
    }

    #[test]
    fn without_a_key_an_end_is_read_and_nothing_refused() {
        let check = JwtCheck { verification: None, issuers: vec!["x".to_owned()] };
        assert_eq!(
            check.check(&sign(&json!({"exp": at(-60)})), NOW),
            Ok(Some(NOW.minus(Duration::from_secs(60))))
        );
        assert_eq!(check.check(&sign(&json!({"exp": "soon"})), NOW), Ok(None));
    }
}
