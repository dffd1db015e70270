//! Which browser origins may talk to the service.
//!
//! Owns the comparison alone; where it is asked is in [`crate::edge`], and a service may ask it for its own
//! CORS answers too.

/// The origins that are let in. A request without an `Origin` header comes from no browser and is never asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// Every origin.
    Any,
    /// None.
    #[default]
    None,
    /// `http://localhost` and `http://127.0.0.1` on any port: for development.
    Localhost,
    /// These, compared without regard to ASCII case and without a trailing slash.
    List(Vec<String>),
}

impl Origins {
    /// Whether this value of an `Origin` header is let in.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::None => false,
            Self::Localhost => {
                let host = |name: &str| {
                    origin
                        .strip_prefix("http://")
                        .and_then(|rest| rest.strip_prefix(name))
                        .is_some_and(|rest| rest.is_empty() || is_port(rest))
                };
                host("localhost") || host("127.0.0.1")
            }
            Self::List(list) => {
                let origin = origin.trim_end_matches('/');
                list.iter().any(|entry| entry.trim_end_matches('/').eq_ignore_ascii_case(origin))
            }
        }
    }
}

fn is_port(rest: &str) -> bool {
    rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::Origins;

    #[test]
    fn localhost_means_that_host_on_any_port_and_nothing_that_looks_like_it() {
        for good in ["http://localhost:3000", "http://localhost", "http://127.0.0.1:8080"] {
            assert!(Origins::Localhost.allows(good), "{good}");
        }
        for bad in [
            "http://localhost.example.test",
            "https://localhost",
            "http://localhost:3000.example.test",
            "http://127.0.0.11",
            "http://localhost:",
            "null",
            "",
        ] {
            assert!(!Origins::Localhost.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_compares_whole_origins_without_regard_to_case() {
        let list = Origins::List(vec!["https://App.example.test".into(), "http://localhost:3000/".into()]);
        assert!(list.allows("https://app.example.test"));
        assert!(list.allows("http://localhost:3000"));
        assert!(!list.allows("https://app.example.test.evil.test"));
        assert!(!list.allows("https://app.example.test:8443"));
        assert!(!Origins::None.allows("https://app.example.test"));
        assert!(Origins::Any.allows("null"));
    }
}
