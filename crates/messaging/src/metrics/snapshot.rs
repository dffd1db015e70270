//! How things stand at the moment of asking, as gauges and counts that others keep.

use std::{sync::atomic::AtomicU64, time::Duration};

use edge::Stats;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use crate::storage::webhooks::Depth;

/// What a dependency said when it was asked just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// `database`, `redis` or `main_api`.
    pub name: &'static str,
    /// Whether it answered.
    pub is_up: bool,
    /// How long it took to.
    pub latency: Duration,
}

/// What is read when metrics are asked for.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The live connections.
    pub live: Stats,
    /// Users with a live connection here.
    pub users: usize,
    /// Messages and marks that wait for a writer.
    pub queued: usize,
    /// Pushes that wait or are being sent, by push service.
    pub pushes: Vec<(&'static str, usize)>,
    /// Database connections in use and idle.
    pub pool: (u32, u32),
    /// Webhooks that wait, and those that were given up.
    pub webhooks: Depth,
    /// The dependencies that the service has.
    pub dependencies: Vec<Dependency>,
}

type Labels = Vec<(&'static str, &'static str)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counts = Family<Labels, Counter>;

impl Snapshot {
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("messaging_build", "The version that runs", version);
        self.put_live(&mut registry);
        let queued = Gauge::<f64, AtomicU64>::default();
        queued.set(to_f64(self.queued as u64));
        registry.register("messaging_queue_depth", "Messages and marks that wait for a writer", queued);
        let pushes = Gauges::default();
        for service in super::PUSH_SERVICES {
            let depth = self.pushes.iter().find(|(name, _)| *name == service).map_or(0, |(_, depth)| *depth);
            pushes.get_or_create(&vec![("provider", service)]).set(to_f64(depth as u64));
        }
        registry.register(
            "messaging_notification_queue_depth",
            "Pushes that wait for a push service or are being sent",
            pushes,
        );
        let pool = Gauges::default();
        for (state, count) in [("in_use", self.pool.0), ("idle", self.pool.1)] {
            pool.get_or_create(&vec![("state", state)]).set(f64::from(count));
        }
        registry.register("messaging_database_connections", "Connections to the database", pool);
        for (name, help, count) in [
            (
                "messaging_webhooks_pending",
                "Webhooks that wait to be delivered, as last counted",
                self.webhooks.pending,
            ),
            ("messaging_webhooks_dead", "Webhooks that were given up, as last counted", self.webhooks.dead),
        ] {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(to_f64(u64::try_from(count).unwrap_or_default()));
            registry.register(name, help, gauge);
        }
        let (up, latency) = (Gauges::default(), Gauges::default());
        for dependency in &self.dependencies {
            let labels = vec![("dependency", dependency.name)];
            up.get_or_create(&labels).set(f64::from(u8::from(dependency.is_up)));
            latency.get_or_create(&labels).set(dependency.latency.as_secs_f64());
        }
        registry.register("messaging_dependency_up", "Whether a dependency answered just now, 1 or 0", up);
        registry.register(
            "messaging_dependency_latency_seconds",
            "How long a dependency took to answer just now",
            latency,
        );
        registry
    }

    fn put_live(&self, registry: &mut Registry) {
        let live = &self.live;
        let connections = Gauges::default();
        // The plain dialect has one transport; bare Engine.IO is not served.
        for (dialect, transport, count) in [
            ("socket_io", "websocket", live.socket_io.saturating_sub(live.polling)),
            ("socket_io", "polling", live.polling),
            ("plain", "websocket", live.plain),
        ] {
            let labels = vec![("dialect", dialect), ("transport", transport)];
            connections.get_or_create(&labels).set(to_f64(count));
        }
        registry.register("messaging_live_connections", "Live connections", connections);
        for (name, help, value) in [
            ("messaging_live_users", "Users with a live connection to this node", self.users as u64),
            ("messaging_live_queued_bytes", "Bytes that wait for clients to read them", live.queued_bytes),
        ] {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(to_f64(value));
            registry.register(name, help, gauge);
        }
        let handshakes = Counts::default();
        for (outcome, count) in
            [("accepted", live.accepted), ("no_room", live.refused), ("origin_refused", live.forbidden)]
        {
            handshakes.get_or_create(&vec![("outcome", outcome)]).inc_by(count);
        }
        registry.register("messaging_live_handshakes", "Handshakes of live connections", handshakes);
        let closed = Counts::default();
        for (reason, count) in [
            ("slow_consumer", live.slow_consumers),
            ("protocol_error", live.protocol_errors),
            ("ping_timeout", live.ping_timeouts),
        ] {
            closed.get_or_create(&vec![("reason", reason)]).inc_by(count);
        }
        registry.register(
            "messaging_live_closed",
            "Live connections that the service closed for a fault of theirs",
            closed,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts past 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
