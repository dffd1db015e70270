//! Values with a form of their own: each is parsed once and passed on as what it is.
//!
//! An error of a `parse` here continues the variable's name to a sentence: "must start with …".

mod database_url;
mod origins;
mod proxies;
mod redis_url;
mod smtp_url;

pub use database_url::DatabaseUrl;
pub use origins::Origins;
pub use proxies::TrustedProxies;
pub use redis_url::{RedisTopology, RedisUrl};
pub use smtp_url::{Encryption, SmtpUrl};

use std::net::{IpAddr, Ipv4Addr};

use lettre::message::Mailbox;
use url::Url;

use super::{Secret, reader::quoted};

/// The address to listen on.
pub(super) fn host(value: &str) -> Result<IpAddr, String> {
    if value.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    bare.parse().map_err(|_| format!("must be an IP address such as 0.0.0.0 or ::, not {}.", quoted(value)))
}

/// The base of an HTTP service, without a slash at its end.
pub(super) fn base_url(value: &str) -> Result<String, String> {
    let rule = "must be a URL that starts with http:// or https://, without a user name, `?` or `#`.";
    let url = Url::parse(value).map_err(|_| rule)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(rule.to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The path of a user's profile, with `{id}` in it.
pub(super) fn user_path(value: &str) -> Result<String, String> {
    let fits = value.starts_with('/')
        && value.matches("{id}").count() == 1
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(value.to_owned())
    } else {
        Err("must be a path with {id} in it, such as /users/{id}.".to_owned())
    }
}

/// The address of a conversation in the app, with `{conversation_id}` in it.
pub(super) fn app_url(value: &str) -> Result<String, String> {
    const PLACE: &str = "{conversation_id}";
    let url = Url::parse(&value.replace(PLACE, "1"));
    let fits = value.matches(PLACE).count() == 1
        && value.bytes().all(|byte| byte.is_ascii_graphic())
        && url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if fits {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "must be an http or https URL with {PLACE} in it, such as https://app.example.test/conversations/{PLACE}."
        ))
    }
}

/// Whom mail comes from.
pub(super) fn mailbox(value: &str) -> Result<Mailbox, String> {
    let mailbox = value
        .parse::<Mailbox>()
        .ok()
        .filter(|mailbox| mailbox.email.to_string().is_ascii() && !value.chars().any(char::is_control));
    mailbox.ok_or_else(|| {
        format!("must be an address such as Rented <no-reply@example.test>, not {}.", quoted(value))
    })
}

/// A language tag such as `en` or `pt-br`.
pub(super) fn language(value: &str) -> Result<String, String> {
    let fits = (2..=35).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(format!("must be a language such as en or fr, not {}.", quoted(value)))
    }
}

/// Headers as OpenTelemetry writes them: `name=value,name=value`, values percent-encoded.
pub(super) fn headers(value: &str) -> Result<Vec<(String, Secret)>, &'static str> {
    let rule = "must be name=value, comma-separated.";
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) = item.split_once('=').ok_or(rule)?;
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().map_err(|_| rule)?;
            Ok((name.trim().to_owned(), Secret::new(value)))
        })
        .collect()
}

/// What keys and channels begin with.
pub(super) fn redis_prefix(value: &str) -> Result<String, String> {
    // Braces would put all keys of a cluster into one slot.
    let fits = value.len() <= 64
        && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'*' | b'?'));
    if fits {
        Ok(value.to_owned())
    } else {
        Err("must be at most 64 visible ASCII characters without {, }, * and ?.".to_owned())
    }
}

/// What to log, as `tracing` directives.
pub(super) fn log_level(value: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level.trim()));
    // A word that is no level would be taken for a module's name and switch everything else off.
    let fits =
        value.split(',').all(|part| part.split_once('=').map_or(known(part), |(_, level)| known(level)));
    if fits && tracing_subscriber::EnvFilter::try_new(value).is_ok() {
        Ok(value.to_owned())
    } else {
        Err(format!("must be error, warn, info, debug, trace or off, not {}.", quoted(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_in_any_usual_way() {
        for (text, address) in
            [("localhost", "127.0.0.1"), ("::", "::"), ("[::1]", "::1"), ("0.0.0.0", "0.0.0.0")]
        {
            assert_eq!(host(text).expect("an address").to_string(), address);
        }
        assert!(host("my-machine").is_err());
    }

    #[test]
    fn a_base_url_loses_its_slash_and_takes_no_credentials() {
        assert_eq!(base_url("http://main-api:8000/api/v1/").as_deref(), Ok("http://main-api:8000/api/v1"));
        for bad in [
            "main-api:8000",
            "ftp://main-api",
            "http://",
            "http://user:hunter2@main-api",
            "http://main-api?x=1",
        ] {
            let rule = base_url(bad).expect_err(bad);
            assert!(!rule.contains("hunter2"));
        }
    }

    #[test]
    fn a_user_path_has_one_place_for_the_id() {
        assert!(user_path("/users/{id}").is_ok());
        for bad in ["users/{id}", "/users", "/users/:id", "/users/{id}/{id}", "/us ers/{id}"] {
            assert!(user_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_app_url_has_one_place_for_the_conversation() {
        assert!(app_url("https://app.example.test/conversations/{conversation_id}?from=mail").is_ok());
        for bad in [
            "https://app.example.test/",
            "javascript:alert({conversation_id})",
            "/conversations/{conversation_id}",
            "https://app.example.test/{conversation_id}/{conversation_id}",
            "https://app.example.test/{conversation_id} x",
        ] {
            assert!(app_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sender_is_one_address_with_or_without_a_name() {
        for good in ["no-reply@example.test", "Rented <no-reply@example.test>", "Loué é <a@example.test>"] {
            assert!(mailbox(good).is_ok(), "{good}");
        }
        for bad in
            ["Rented", "no-reply@", "a@example.test\r\nBcc: b@example.test", "a@example.test, b@example.test"]
        {
            assert!(mailbox(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_level_is_one_or_one_per_module() {
        for good in ["info", "INFO", "info,messaging=debug", "messaging=trace,off"] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "info,loud", "messaging=loud", ","] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
    }
}
