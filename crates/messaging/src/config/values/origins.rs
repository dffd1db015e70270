//! `CORS_ORIGIN`: the origins whose pages may call.

use url::{Origin, Url};

use crate::config::reader::quoted;

/// Which `Origin` headers are welcome, for REST and live connections alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All.
    Any,
    /// Any port of `http://localhost` and `http://127.0.0.1`.
    Localhost,
    /// These, each as a browser writes it; none if empty.
    List(Vec<String>),
}

impl Origins {
    /// Reads a comma-separated list of origins, or `*`.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let mut list = Vec::new();
        for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item == "*" {
                return Ok(Self::Any);
            }
            let origin = normalized(item).ok_or_else(|| {
                format!(
                    "must list origins such as https://example.test, comma-separated; {} is none.",
                    quoted(item)
                )
            })?;
            if !list.contains(&origin) {
                list.push(origin);
            }
        }
        Ok(Self::List(list))
    }

    /// Whether a page of this origin (the header's value) may call.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Localhost => is_localhost(origin),
            Self::List(list) => list.iter().any(|listed| listed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// An origin as a browser writes it: lower case, no default port, no slash at the end.
fn normalized(text: &str) -> Option<String> {
    let bare = text.strip_suffix('/').unwrap_or(text);
    let (scheme, authority) = bare.split_once("://")?;
    let url = Url::parse(bare).ok()?;
    if scheme.is_empty() || authority.is_empty() || authority.contains(['/', '?', '#', '@', '*']) {
        return None;
    }
    Some(match url.origin() {
        origin @ Origin::Tuple(..) => origin.ascii_serialization(),
        // Schemes of app shells, such as `capacitor://localhost`.
        Origin::Opaque(_) => bare.to_ascii_lowercase(),
    })
}

fn is_localhost(origin: &str) -> bool {
    ["http://localhost", "http://127.0.0.1"].iter().any(|host| {
        origin.strip_prefix(host).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_it_lists_and_nothing_else() {
        let origins =
            Origins::parse("http://localhost:3000, https://YourDomain.com:443/,capacitor://localhost")
                .expect("a list");
        for good in ["http://localhost:3000", "https://yourdomain.com", "capacitor://localhost"] {
            assert!(origins.allows(good), "{good}");
        }
        for bad in
            ["http://localhost:3001", "http://yourdomain.com", "https://yourdomain.com.evil.test", "null", ""]
        {
            assert!(!origins.allows(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for bad in [
            "yourdomain.com",
            "https://a.test/path",
            "https://*.a.test",
            "https://u@a.test",
            "null",
            "https://",
        ] {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn localhost_is_any_port_of_this_machine_and_no_other() {
        for good in ["http://localhost", "http://localhost:5173", "http://127.0.0.1:8080"] {
            assert!(Origins::Localhost.allows(good), "{good}");
        }
        for bad in [
            "https://localhost:5173",
            "http://localhost.evil.test",
            "http://localhost:1@evil.test",
            "http://localhost:",
        ] {
            assert!(!Origins::Localhost.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_star_allows_all() {
        assert!(Origins::parse("https://a.test,*").expect("a list").allows("https://b.test"));
    }
}
