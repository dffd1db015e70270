//! `REDIS_URL`: one server, a cluster, or a group watched by sentinels.

use percent_encoding::percent_decode_str;

use crate::config::secret::Secret;

/// The parts of a Redis URL, for whichever client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// How the nodes belong together.
    pub topology: RedisTopology,
    /// Whether to speak TLS (`rediss…`).
    pub tls: bool,
    /// The nodes, or the sentinels: host and port.
    pub nodes: Vec<(String, u16)>,
    /// The user, where there is one.
    pub username: Option<String>,
    /// The password, where there is one.
    pub password: Option<Secret>,
    /// The number of the database, 0 unless the URL says otherwise.
    pub database: u16,
}

/// How Redis nodes belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    /// `redis://host:6379/0`.
    Single,
    /// `redis-cluster://host:6379,host:6379`.
    Cluster,
    /// `redis-sentinel://host:26379,host:26379/service-name/0`.
    Sentinel {
        /// The name under which the sentinels know the group.
        service: String,
    },
}

impl RedisUrl {
    /// Reads one of the forms that [`RedisTopology`] shows, with TLS where it starts with `rediss`.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let form = "must start with redis://, rediss://, redis-cluster:// or redis-sentinel://.";
        let (scheme, rest) = value.split_once("://").ok_or(form)?;
        let (tls, kind) = match scheme {
            "redis" | "redis-cluster" | "redis-sentinel" => (false, &scheme[5..]),
            "rediss" | "rediss-cluster" | "rediss-sentinel" => (true, &scheme[6..]),
            _ => return Err(form.to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "may have no parameters; special characters in a password are percent-encoded.".to_owned()
            );
        }
        let (credentials, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(credentials, rest)| (Some(credentials), rest));
        let (username, password) = parse_credentials(credentials)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let nodes = hosts
            .split(',')
            .map(|node| parse_node(node, if kind == "-sentinel" { 26379 } else { 6379 }))
            .collect::<Option<Vec<_>>>()
            .ok_or("must name hosts as host or host:port.")?;

        let (topology, database) = match kind {
            "-cluster" if path.is_empty() => (RedisTopology::Cluster, ""),
            "-cluster" => return Err("may have no database number: a cluster has one database.".to_owned()),
            "-sentinel" => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err("must name the service after the sentinels: redis-sentinel://host:26379/service-name.".to_owned());
                }
                (RedisTopology::Sentinel { service: service.to_owned() }, database)
            }
            _ if nodes.len() > 1 => {
                return Err("names several hosts: a cluster starts with redis-cluster://.".to_owned());
            }
            _ => (RedisTopology::Single, path),
        };
        let database = if database.is_empty() { Ok(0) } else { database.parse() };
        let database = database.map_err(|_| "must end in a database number, or in none.")?;
        Ok(Self { topology, tls, nodes, username, password, database })
    }
}

fn parse_credentials(credentials: Option<&str>) -> Result<(Option<String>, Option<Secret>), String> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text)
            .decode_utf8()
            .map_err(|_| "holds a user name or password that is not UTF-8.")?;
        Ok::<_, String>((!text.is_empty()).then(|| text.into_owned()))
    };
    let Some(credentials) = credentials else { return Ok((None, None)) };
    let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    Ok((decoded(username)?, decoded(password)?.map(Secret::new)))
}

fn parse_node(node: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => node.split_once(':').map_or((node, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
    let fits = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'));
    fits.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(nodes: &[(&str, u16)]) -> Vec<(String, u16)> {
        nodes.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    }

    #[test]
    fn one_server() {
        let url = RedisUrl::parse("rediss://app:p%40ss@cache.example.test/3").expect("a URL");
        assert_eq!(url.topology, RedisTopology::Single);
        assert!(url.tls);
        assert_eq!(url.nodes, nodes(&[("cache.example.test", 6379)]));
        assert_eq!(url.username.as_deref(), Some("app"));
        assert_eq!(url.password, Some(Secret::new("p@ss")));
        assert_eq!(url.database, 3);

        let url = RedisUrl::parse("redis://:secret@[::1]:6380").expect("a URL");
        assert_eq!((url.nodes, url.username), (nodes(&[("::1", 6380)]), None));
        assert!(!url.tls);
    }

    #[test]
    fn a_cluster_and_a_sentinel_group() {
        let url = RedisUrl::parse("redis-cluster://a:7000,b:7001,c").expect("a URL");
        assert_eq!(url.topology, RedisTopology::Cluster);
        assert_eq!(url.nodes, nodes(&[("a", 7000), ("b", 7001), ("c", 6379)]));

        let url = RedisUrl::parse("rediss-sentinel://:pw@a,b:26380/mymaster/2").expect("a URL");
        assert_eq!(url.topology, RedisTopology::Sentinel { service: "mymaster".to_owned() });
        assert_eq!(url.nodes, nodes(&[("a", 26379), ("b", 26380)]));
        assert_eq!((url.tls, url.database), (true, 2));
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_without_quoting_a_password() {
        for bad in [
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:hunter2@localhost:port",
            "redis://:hunter2@localhost/one",
            "redis://a,b",
            "redis-cluster://a,b/1",
            "redis-sentinel://a,b",
            "redis://:hunter2@localhost?x=1",
        ] {
            let rule = RedisUrl::parse(bad).expect_err(bad);
            assert!(!rule.contains("hunter2"), "{rule}");
        }
    }
}
