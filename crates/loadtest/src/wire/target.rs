//! Where the service is: the URL read once, sockets opened to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use tokio::net::{TcpSocket, TcpStream};

/// A service's address. Plain HTTP only: TLS belongs to a proxy's measurement, not to this one.
#[derive(Debug, Clone)]
pub struct Target {
    /// As the `Host` header says it.
    pub authority: String,
    /// What precedes every path, without a slash at its end.
    pub prefix: String,
    addr: SocketAddr,
}

/// Sockets of one source address to one target share 28,000 ports, and closed ones keep theirs for a minute;
/// on the loopback network there are addresses to spare.
const LOOPBACK_SOURCES: u32 = 32;

impl Target {
    /// Reads `http://host:port/prefix`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "ws")) {
            return Err(format!("{url} does not begin with http://"));
        }
        let host = uri.host().ok_or_else(|| format!("{url} names no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addr = (bare, port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .ok_or_else(|| format!("{host} is not known"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { authority: format!("{host}:{port}"), prefix, addr })
    }

    /// Where to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens a socket; `index` spreads many of them over source addresses.
    pub async fn open(&self, index: u32) -> std::io::Result<TcpStream> {
        let socket = if self.addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let IpAddr::V4(ip) = self.addr.ip()
            && ip.is_loopback()
        {
            let last = u8::try_from(1 + index % LOOPBACK_SOURCES).expect("at most 32");
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
        }
        let stream = socket.connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_a_sentence() {
        let target = Target::parse("http://127.0.0.1:3001/chat/").unwrap();
        assert_eq!((&*target.authority, &*target.prefix), ("127.0.0.1:3001", "/chat"));
        assert_eq!(Target::parse("http://localhost").unwrap().authority, "localhost:80");
        for (url, reason) in [
            ("https://localhost", "https://localhost does not begin with http://"),
            ("localhost:3001", "localhost:3001 does not begin with http://"),
            ("http://", "http:// is not a URL"),
        ] {
            assert_eq!(Target::parse(url).unwrap_err(), reason);
        }
    }
}
