//! Puts the service together from its configuration, serves it, and takes it apart again.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use edge::{Edge, EdgeConfig, ServeConfig, Tls};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    chat::{self, Chat},
    clock::Clock,
    config::{Config, ConfigError, Origins},
    delivery::bus::Bus,
    documents,
    files::{Files, FilesOptions, Signer, signing_key},
    http::{self, AppState, MetricsAccess, RequestLimits, ServiceKeys},
    identity::{Contacts, Directory, Identity, MainApi, cache_key, shared_cache_key},
    limits::Limits,
    notify::{
        Notifier, Parts,
        email::{self, Emails, Unsubscriptions},
    },
    shared::Redis,
    socket::Socket,
    storage::{OpenError, Store, StoreOptions},
    webhooks::{self, Webhooks},
};

/// How long the address of a file holds: a conversation that was opened in the morning still shows its
/// pictures in the evening.
const LINK_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the service could not start, or ended; each is a sentence for the operator.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The database cannot be used.
    Database(OpenError),
    /// The address cannot be listened on.
    Listen {
        /// The variable that says so.
        variable: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The listener failed.
    Io(std::io::Error),
    /// An import did not come to its end, or does not agree with its source.
    Import(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(formatter),
            Self::Database(error) => error.fmt(formatter),
            Self::Listen { variable, address, source } => {
                write!(formatter, "{variable}: {address} cannot be listened on: {source}.")
            }
            Self::Io(error) => write!(formatter, "the service ended: {error}"),
            Self::Import(error) => write!(formatter, "{error}."),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<OpenError> for ServeError {
    fn from(error: OpenError) -> Self {
        Self::Database(error)
    }
}

/// How the store is opened under this configuration.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        url: config.database.url.to_url(),
        pool_min: config.database.pool_min,
        pool_max: config.database.pool_max,
        timeout: config.database.timeout,
    }
}

/// Listens where the configuration says.
pub async fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    bind("PORT", SocketAddr::new(config.server.host, config.server.port)).await
}

async fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { variable, address, source })
}

/// Serves metrics on their own port, if they have one, until the answer is dropped.
async fn serve_metrics(config: &Config, state: &AppState) -> Result<JoinSet<()>, ServeError> {
    let mut serving = JoinSet::new();
    if let Some(port) = config.metrics.port {
        let listener = bind("METRICS_PORT", SocketAddr::new(config.server.host, port)).await?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "metrics are served on a port of their own");
        }
        let router = http::metrics_router(state.clone());
        serving.spawn(async move {
            let served = edge::serve(listener, ServeConfig::default(), router, std::future::pending());
            if let Err(error) = served.await {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    }
    Ok(serving)
}

/// Serves until `shutdown` is done, then leaves: no new connections, what is under way is answered,
/// live clients are closed so that they come back elsewhere. `page` has routes for a browser.
pub async fn run(
    config: Config,
    listener: TcpListener,
    page: Router,
    clock: Clock,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let main_api = MainApi::new(config.main_api_url()?, &config.main_api, clock.clone())?;
    let templates = Arc::new(email_templates(&config)?);
    let mut store = Store::open(&store_options(&config), clock.clone()).await?;
    if let Some(outbox) = webhooks::outbox(&config.webhooks) {
        store = store.with_outbox(outbox);
    }
    let ttl = config.redis.ttl;
    let redis = open_redis(&config).await?;
    let bus = redis.as_ref().map_or(Bus::InProcess, Bus::shared);
    let directory =
        Directory::new_shared(store.clone(), main_api.clone(), ttl, clock.clone(), redis.as_ref());
    let secret = config.jwt.secret.as_ref();
    let key = match &redis {
        Some(_) => shared_cache_key(secret, &store).await.map_err(failed)?,
        None => cache_key(secret),
    };
    let shared = redis.clone().map(|redis| (redis, bus.clone(), store.clone()));
    let jwt = &config.jwt;
    let identity =
        Identity::new_shared(main_api.clone(), directory.clone(), jwt, key, ttl, clock.clone(), shared);
    let mut limits = Limits::new(&config.limits, clock.clone());
    if let Some(redis) = &redis {
        limits = limits.shared(redis.clone());
    }
    let own = config.uploads.url_signing_key.as_ref();
    let link_key = signing_key(own, config.jwt.secret.as_ref(), &store).await.map_err(failed)?;
    let files = open_files(&config, &link_key, &clock)?;
    let unsubscriptions =
        Unsubscriptions::new(&link_key, Arc::clone(&templates), store.clone(), clock.clone());
    let emails = match &config.email {
        Some(email) => {
            identity.keep_contacts(Contacts::start(store.clone()));
            let (store, directory) = (store.clone(), directory.clone());
            let starting = Emails::start(email, templates, &link_key, store, directory, clock.clone());
            Some(starting.await.map_err(|error| match error {
                email::StartError::Config(error) => ServeError::Config(error),
                email::StartError::Database(error) => failed(error),
            })?)
        }
        None => None,
    };
    let settings = chat_settings(&config);
    let chat = Chat::start_shared(
        redis.clone(),
        bus,
        store.clone(),
        directory,
        limits,
        files,
        clock.clone(),
        settings,
    );
    let webhooks = Webhooks::start(&chat, &config.webhooks, &clock)?;
    let notifier = start_notifier(&config, &chat, redis.as_ref(), &clock).await?;
    let socket = Socket::start(chat.clone(), identity.clone(), clock.clone());
    let edge = Edge::new(edge_config(&config)?, socket);
    let is_leaving = Arc::new(AtomicBool::new(false));
    let state = AppState {
        chat,
        identity,
        main_api,
        redis: redis.clone(),
        edge: edge.clone(),
        clock,
        limits: RequestLimits { max_body: config.live.max_payload, body_timeout: config.server.body_timeout },
        is_leaving: Arc::clone(&is_leaving),
        service_keys: ServiceKeys::new(&config.service.keys),
        metrics_access: MetricsAccess::of(&config),
        documents: documents::all(config.server.public_url.as_deref()),
        unsubscriptions,
    };
    let _metrics = serve_metrics(&config, &state).await?;
    let router = http::router(state, origins(&config), page);

    announce(&config, &store, redis.as_ref(), &listener);
    let grace = config.server.shutdown_timeout;
    let tls = config.server.tls.as_ref().map(|tls| Tls::from_files(&tls.cert_path, &tls.key_path));
    let tls = tls
        .transpose()
        .map_err(|error| ConfigError::new("TLS_CERT_PATH", format!("cannot be used: {error}.")))?;
    let serve_config = ServeConfig {
        tls,
        header_timeout: config.server.handshake_timeout,
        body_timeout: config.server.body_timeout,
        drain_timeout: grace / 2,
        ..ServeConfig::default()
    };
    let leave = async {
        shutdown.await;
        tracing::info!("leaving: no new connections, what is under way is answered");
        is_leaving.store(true, Ordering::Relaxed);
        // Spread out, so that the other nodes do not get everybody at once.
        edge.shutdown(grace / 4).await;
    };
    edge::serve(listener, serve_config, router, leave).await.map_err(ServeError::Io)?;
    webhooks.stop(grace / 4).await;
    if let Some(notifier) = notifier {
        notifier.drain(grace / 8).await;
    }
    if let Some(emails) = emails {
        emails.stop(grace / 4).await;
    }
    store.close().await;
    tracing::info!("gone");
    Ok(())
}

async fn start_notifier(
    config: &Config,
    chat: &Chat,
    redis: Option<&Redis>,
    clock: &Clock,
) -> Result<Option<Notifier>, ServeError> {
    let parts = Parts {
        store: chat.store().clone(),
        directory: chat.directory().clone(),
        hub: Arc::clone(chat.hub()),
        redis: redis.cloned(),
        clock: clock.clone(),
    };
    let notifier = Notifier::start(&config.push, parts).await.map_err(ServeError::Io)?;
    if let Some(notifier) = &notifier {
        chat.notify_through(notifier.clone());
    }
    Ok(notifier)
}

/// How long the start waits for Redis: the service starts without it too, and then says so.
const REDIS_PATIENCE: Duration = Duration::from_millis(500);

async fn open_redis(config: &Config) -> Result<Option<Redis>, ServeError> {
    let Some(url) = &config.redis.url else { return Ok(None) };
    let redis = Redis::start(url, &config.redis.prefix)?;
    redis.wait_up(REDIS_PATIENCE).await;
    Ok(Some(redis))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ServeError {
    ServeError::Io(std::io::Error::other(error))
}

/// The texts of mails and of the page that stops them, tried out.
pub fn email_templates(config: &Config) -> Result<email::Templates, ConfigError> {
    match &config.email {
        Some(email) => email::Templates::load(email.templates.as_deref(), &email.language),
        // Links of mails that were sent are still followed.
        None => email::Templates::load(None, "en"),
    }
}

fn open_files(config: &Config, key: &[u8], clock: &Clock) -> Result<Files, ServeError> {
    let uploads = &config.uploads;
    let signer = Signer::new(key, config.server.public_url.as_deref(), LINK_LIFETIME);
    let location = uploads.dir.to_string_lossy().into_owned();
    let options = FilesOptions {
        // Beside the files, where there is room for them; a bucket has no such place.
        temporary_dir: if location.contains("://") {
            std::env::temp_dir()
        } else {
            uploads.dir.join(".incoming")
        },
        location,
        max_file_size: uploads.max_file_size,
        quota: uploads.quota,
    };
    Files::open(&options, signer, clock.clone()).map_err(|rule| ConfigError::new("UPLOAD_DIR", rule).into())
}

fn chat_settings(config: &Config) -> chat::Settings {
    chat::Settings {
        db_timeout: config.database.timeout,
        max_connections_per_user: config
            .live
            .max_connections_per_user
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(usize::MAX),
        event_retention: config.messages.event_retention,
        edit_window: config.messages.edit_window,
    }
}

fn origins(config: &Config) -> edge::Origins {
    match &config.cors.origins {
        Origins::Any => edge::Origins::Any,
        Origins::Localhost => edge::Origins::Localhost,
        Origins::List(list) => edge::Origins::List(list.clone()),
    }
}

fn edge_config(config: &Config) -> Result<EdgeConfig, ServeError> {
    let limit = |limit: Option<u32>| limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let networks: Vec<String> =
        config.server.trusted_proxies.networks().iter().map(ToString::to_string).collect();
    Ok(EdgeConfig {
        ping_interval: config.live.ping_interval,
        ping_timeout: config.live.ping_timeout,
        max_payload: config.live.max_payload,
        auth_timeout: config.live.auth_timeout,
        connect_timeout: config.server.handshake_timeout,
        upgrade_timeout: config.server.handshake_timeout,
        frame_timeout: config.server.body_timeout,
        events_per_second: config.live.max_events_per_second.unwrap_or(0),
        events_burst: config.live.max_events_per_second.unwrap_or(0).saturating_mul(2),
        queue_bytes: config.live.max_queued_bytes,
        slow_after: config.live.slow_client_timeout,
        origins: origins(config),
        trusted_proxies: networks.join(",").parse().unwrap_or_default(),
        max_connections: limit(config.live.max_connections),
        max_connections_per_ip: limit(config.live.max_connections_per_ip),
        max_unauthenticated_per_ip: limit(config.live.max_unauthenticated_per_ip),
        ..EdgeConfig::default()
    })
}

/// The banner: what runs, on what, with which parts, and what should be known of it.
fn announce(config: &Config, store: &Store, redis: Option<&Redis>, listener: &TcpListener) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let named = |is_on: bool| {
        let names = config.features().into_iter().filter(|(_, on)| *on == is_on).map(|(name, _)| name);
        names.collect::<Vec<_>>().join(",")
    };
    tracing::info!(on = named(true), off = named(false), "parts of the service");
    let address = listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        environment = if config.environment.is_production() { "production" } else { "development" },
        address,
        database = store.backend(),
        redis = redis.map_or("none, one node", |redis| if redis.is_up() { "up" } else { "away for now" }),
        "rented-messaging serves"
    );
}

/// Done at the first SIGTERM or SIGINT.
pub async fn stop_signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let mut terminated = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be listened for");
                let _ = interrupted.await;
                return;
            }
        };
        tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = interrupted.await;
}
