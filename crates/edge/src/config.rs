//! Every limit and interval of the live connections, with the defaults of the service's contract.
//!
//! Owns the numbers and says where each comes from. The accept loop has its own in
//! [`crate::serve::ServeConfig`].

use std::time::Duration;

use crate::origins::Origins;
use crate::proxies::TrustedProxies;

/// The limits of an [`crate::Edge`]. Zero means "no limit" where a field says so.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Time between two pings of the server, on every dialect.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// The largest message or polling body of a client, in bytes. Refused before it is held in memory.
    pub max_payload: usize,
    /// How long a client that was let in may stay unauthenticated. Zero: for ever.
    pub auth_timeout: Duration,
    /// How long a Socket.IO connection may take to send its CONNECT.
    pub connect_timeout: Duration,
    /// How long the probe of a polling → WebSocket upgrade may take.
    pub upgrade_timeout: Duration,
    /// How long a message that was begun may take to arrive in full.
    pub frame_timeout: Duration,
    /// How long a closing connection may take to drain what was queued and to say goodbye.
    pub close_timeout: Duration,
    /// Which browser origins are let in, on every transport.
    pub origins: Origins,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// The Socket.IO namespaces served; any other gets CONNECT_ERROR `Invalid namespace`.
    pub namespaces: Vec<String>,
    /// Live connections in all. Zero: no limit.
    pub max_connections: usize,
    /// Live connections of one address. Zero: no limit, since carriers put thousands of phones behind one.
    pub max_connections_per_ip: usize,
    /// Unauthenticated live connections of one address. Zero: no limit.
    pub max_unauthenticated_per_ip: usize,
    /// Bytes queued for one client, beyond which it is closed as a slow consumer.
    pub queue_bytes: usize,
    /// How long a batch of at most 64 KB may wait for the client to read it, before it is closed likewise.
    pub slow_after: Duration,
    /// Events a second taken from one connection; beyond it, reading pauses. Zero: no limit.
    pub events_per_second: u32,
    /// How many events may come at once before `events_per_second` counts.
    pub events_burst: u32,
    /// Replies under way per connection ([`crate::Handled::Later`]), beyond which reading pauses.
    pub max_later: usize,
    /// Binary attachments of one Socket.IO packet.
    pub max_attachments: usize,
    /// Packets in one polling body.
    pub max_packets_per_poll: usize,
    /// Fragments of one WebSocket message.
    pub max_fragments: usize,
    /// Bare Engine.IO connections carry WebSocket messages as they are: no packets, no opening packet, no pings of
    /// its own. For suites that test WebSocket itself and know nothing above it.
    pub bare_messages: bool,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload: 100_000,
            auth_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            upgrade_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            origins: Origins::None,
            trusted_proxies: TrustedProxies::default(),
            namespaces: vec!["/".to_owned()],
            max_connections: 0,
            max_connections_per_ip: 0,
            max_unauthenticated_per_ip: 1000,
            queue_bytes: 1_000_000,
            slow_after: Duration::from_secs(10),
            // Far above what a person does and far below what costs a core: the service has its own limits per
            // user, this one only keeps a single socket from crowding out the others.
            events_per_second: 200,
            events_burst: 1000,
            max_later: 64,
            max_attachments: 10,
            max_packets_per_poll: 1000,
            // Autobahn-style clients send a fragment a byte; a legitimate one sends a handful.
            max_fragments: 100_000,
            bare_messages: false,
        }
    }
}
