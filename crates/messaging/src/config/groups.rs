//! The groups of the configuration: each reads its variables and checks what it can by itself.
//!
//! Fields have the variables' names; durations and limits have their types. Rules between groups
//! are in `mod.rs`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey};
use lettre::message::Mailbox;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    reader::{ConfigError, Reader, quoted},
    secret::Secret,
    values::{self, DatabaseUrl, Origins, RedisUrl, SmtpUrl, TrustedProxies},
};
use crate::limits;

/// `NODE_ENV`, or `APP_ENV`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Strict.
    Production,
    /// Convenient.
    Development,
}

impl Environment {
    /// Whether this is production.
    pub const fn is_production(self) -> bool {
        matches!(self, Self::Production)
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let parse = |value: &str| match value.to_ascii_lowercase().as_str() {
            "production" | "prod" | "staging" => Ok(Self::Production),
            "development" | "dev" | "local" | "test" | "testing" => Ok(Self::Development),
            _ => Err(format!("must be production or development, not {}.", quoted(value))),
        };
        match (reader.parse("NODE_ENV", parse)?, reader.parse("APP_ENV", parse)?) {
            (Some(node), Some(app)) if node != app => Err(ConfigError::new(
                "NODE_ENV",
                "and APP_ENV are one switch, but are set to different things.",
            )),
            (node, app) => Ok(node.or(app).unwrap_or(Self::Development)),
        }
    }
}

/// Where and as what the service runs.
#[derive(Debug, Clone)]
pub struct Server {
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `HOST`.
    pub host: IpAddr,
    /// `PUBLIC_URL`, without a slash at its end.
    pub public_url: Option<String>,
    /// `TRUSTED_PROXIES`.
    pub trusted_proxies: TrustedProxies,
    /// `TLS_CERT_PATH` and `TLS_KEY_PATH`.
    pub tls: Option<Tls>,
    /// `HANDSHAKE_TIMEOUT`.
    pub handshake_timeout: Duration,
    /// `BODY_TIMEOUT`.
    pub body_timeout: Duration,
    /// `SHUTDOWN_TIMEOUT`.
    pub shutdown_timeout: Duration,
}

/// The files to serve HTTPS and WSS with; both were readable PEM at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `TLS_CERT_PATH`.
    pub cert_path: PathBuf,
    /// `TLS_KEY_PATH`.
    pub key_path: PathBuf,
}

impl Server {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            port: reader.number("PORT", 0..=65_535)?,
            host: reader.parse("HOST", values::host)?.expect("the table has its default"),
            public_url: reader.parse("PUBLIC_URL", values::base_url)?,
            trusted_proxies: reader.parse("TRUSTED_PROXIES", TrustedProxies::parse)?.unwrap_or_default(),
            tls: Tls::read(reader)?,
            handshake_timeout: reader.millis("HANDSHAKE_TIMEOUT")?,
            body_timeout: reader.millis("BODY_TIMEOUT")?,
            shutdown_timeout: reader.seconds("SHUTDOWN_TIMEOUT", 0..=3600)?,
        })
    }
}

impl Tls {
    fn read(reader: &mut Reader) -> Result<Option<Self>, ConfigError> {
        let cert = reader.file("TLS_CERT_PATH")?;
        let key = reader.file("TLS_KEY_PATH")?;
        let ((cert_path, cert), (key_path, key)) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(ConfigError::new(
                    "TLS_KEY_PATH",
                    "is not set, but TLS_CERT_PATH is: they go together.",
                ));
            }
            (None, Some(_)) => {
                return Err(ConfigError::new(
                    "TLS_CERT_PATH",
                    "is not set, but TLS_KEY_PATH is: they go together.",
                ));
            }
        };
        if !matches!(CertificateDer::pem_slice_iter(&cert).next(), Some(Ok(_))) {
            return Err(ConfigError::new("TLS_CERT_PATH", "names a file without a PEM certificate."));
        }
        if PrivateKeyDer::from_pem_slice(&key).is_err() {
            return Err(ConfigError::new("TLS_KEY_PATH", "names a file without a PEM private key."));
        }
        Ok(Some(Self { cert_path, key_path }))
    }
}

/// The marketplace's main API.
#[derive(Debug, Clone)]
pub struct MainApi {
    /// `MAIN_API_URL`, without a slash at its end; see [`super::Config::main_api_url`].
    pub url: Option<String>,
    /// `MAIN_API_TIMEOUT`.
    pub timeout: Duration,
    /// `MAIN_API_USER_PATH`, with `{id}` in it.
    pub user_path: Option<String>,
    /// `MAIN_API_CONCURRENCY`.
    pub concurrency: usize,
}

impl MainApi {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            url: reader.parse("MAIN_API_URL", values::base_url)?,
            timeout: reader.millis("MAIN_API_TIMEOUT")?,
            user_path: reader.parse("MAIN_API_USER_PATH", values::user_path)?,
            concurrency: reader.number("MAIN_API_CONCURRENCY", 1..=10_000)?,
        })
    }
}

/// Where messages are kept.
#[derive(Debug, Clone)]
pub struct Database {
    /// `DATABASE_URL`, or the embedded database in `DATA_DIR`.
    pub url: DatabaseUrl,
    /// `DB_POOL_MIN`.
    pub pool_min: u32,
    /// `DB_POOL_MAX`.
    pub pool_max: u32,
    /// `DB_TIMEOUT`.
    pub timeout: Duration,
}

impl Database {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let data_dir = reader.path("DATA_DIR");
        let database = Self {
            url: reader
                .parse("DATABASE_URL", DatabaseUrl::parse)?
                .unwrap_or_else(|| DatabaseUrl::embedded(&data_dir)),
            pool_min: reader.number("DB_POOL_MIN", 0..=1000)?,
            pool_max: reader.number("DB_POOL_MAX", 1..=1000)?,
            timeout: reader.millis("DB_TIMEOUT")?,
        };
        if database.pool_min > database.pool_max {
            return Err(ConfigError::new("DB_POOL_MIN", "must not be greater than DB_POOL_MAX."));
        }
        Ok(database)
    }
}

/// The accelerator shared by several nodes.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `REDIS_URL`.
    pub url: Option<RedisUrl>,
    /// `REDIS_TTL`.
    pub ttl: Duration,
    /// `REDIS_PREFIX`: what every key and channel begins with.
    pub prefix: String,
}

impl Redis {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            url: reader.parse("REDIS_URL", RedisUrl::parse)?,
            ttl: reader.seconds("REDIS_TTL", 1..=31_536_000)?,
            prefix: reader.parse("REDIS_PREFIX", values::redis_prefix)?.expect("the table has its default"),
        })
    }
}

/// The local check of tokens that are JWTs.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// `JWT_SECRET`.
    pub secret: Option<Secret>,
    /// `JWT_ISSUER`: empty where any will do.
    pub issuers: Vec<String>,
    /// The pinned algorithm and its key, where there is one: without, JWTs are not checked here.
    pub verification: Option<JwtVerification>,
}

/// `JWT_ALGORITHM` with `JWT_SECRET` or `JWT_PUBLIC_KEY`.
#[derive(Debug, Clone)]
pub struct JwtVerification {
    /// The one algorithm that is accepted.
    pub algorithm: Algorithm,
    /// The key for it.
    pub key: DecodingKey,
}

impl Jwt {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let secret = reader.secret("JWT_SECRET")?;
        let algorithm = reader.parse("JWT_ALGORITHM", |value| match value {
            "HS256" => Ok(Algorithm::HS256),
            "RS256" => Ok(Algorithm::RS256),
            "ES256" => Ok(Algorithm::ES256),
            _ => Err(format!("must be HS256, RS256 or ES256, not {}.", quoted(value))),
        })?;
        let algorithm = algorithm.expect("the table has its default");
        let public_key = reader.parse("JWT_PUBLIC_KEY", |value| public_key(algorithm, value))?;
        let key = match (algorithm, public_key) {
            (Algorithm::HS256, _) => {
                secret.as_ref().map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()))
            }
            (_, Some(key)) => Some(key),
            (_, None) => {
                return Err(ConfigError::new(
                    "JWT_PUBLIC_KEY",
                    "is not set, but JWT_ALGORITHM asks for a public key.",
                ));
            }
        };
        Ok(Self {
            secret,
            issuers: reader.text("JWT_ISSUER").map_or_else(Vec::new, |list| {
                list.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(ToOwned::to_owned)
                    .collect()
            }),
            verification: key.map(|key| JwtVerification { algorithm, key }),
        })
    }
}

/// A public key as PEM text or as the path of a PEM file.
fn public_key(algorithm: Algorithm, value: &str) -> Result<DecodingKey, String> {
    let pem = if value.starts_with("-----BEGIN") {
        value.replace("\\n", "\n").into_bytes()
    } else {
        std::fs::read(value)
            .map_err(|error| format!("names a file that cannot be read: {}.", error.kind()))?
    };
    match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(&pem),
        Algorithm::ES256 => DecodingKey::from_ec_pem(&pem),
        // A public key taken for an HMAC secret would let anybody sign.
        _ => return Err("is set, but JWT_ALGORITHM is HS256: set it to RS256 or ES256.".to_owned()),
    }
    .map_err(|_| "is not a PEM public key for JWT_ALGORITHM.".to_owned())
}

/// The main API's own calls.
#[derive(Debug, Clone)]
pub struct Service {
    /// `SERVICE_API_KEY`, then `SERVICE_API_KEY_PREVIOUS`; empty where there are no such calls.
    pub keys: Vec<Secret>,
}

/// A key that opens everything must not be one that can be guessed.
const MIN_KEY_BYTES: usize = 32;
/// Random bytes in hexadecimal have more than these; a word written several times has not.
const MIN_KEY_DIFFERENT: usize = 8;

impl Service {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for name in ["SERVICE_API_KEY", "SERVICE_API_KEY_PREVIOUS"] {
            let Some(key) = reader.secret(name)? else { continue };
            let bytes = key.expose().trim().as_bytes();
            if bytes.len() < MIN_KEY_BYTES {
                return Err(ConfigError::new(name, "must have at least 32 bytes."));
            }
            if bytes.iter().collect::<std::collections::HashSet<_>>().len() < MIN_KEY_DIFFERENT {
                return Err(ConfigError::new(
                    name,
                    "can be guessed: set random bytes, such as 32 in hexadecimal.",
                ));
            }
            if !bytes.iter().all(u8::is_ascii_graphic) {
                return Err(ConfigError::new(
                    name,
                    "must be of visible ASCII characters, so that it fits a header.",
                ));
            }
            if name == "SERVICE_API_KEY_PREVIOUS" && keys.is_empty() {
                return Err(ConfigError::new(name, "is set without SERVICE_API_KEY, which comes after it."));
            }
            keys.push(Secret::new(key.expose().trim()));
        }
        Ok(Self { keys })
    }
}

/// Which pages may call.
#[derive(Debug, Clone)]
pub struct Cors {
    /// `CORS_ORIGIN`.
    pub origins: Origins,
}

impl Cors {
    pub(super) fn read(reader: &mut Reader, environment: Environment) -> Result<Self, ConfigError> {
        let origins = reader.parse("CORS_ORIGIN", Origins::parse)?;
        let default = if environment.is_production() {
            Origins::List(Vec::new())
        } else {
            reader.text_or("CORS_ORIGIN", "http://localhost:*,http://127.0.0.1:*");
            Origins::Localhost
        };
        Ok(Self { origins: origins.unwrap_or(default) })
    }
}

/// Files.
#[derive(Debug, Clone)]
pub struct Uploads {
    /// `MAX_FILE_SIZE`, in bytes.
    pub max_file_size: u64,
    /// `UPLOAD_DIR`: a folder, or the `s3:` URL of a bucket.
    pub dir: PathBuf,
    /// `UPLOAD_QUOTA`: bytes that one user may keep; 0 is no limit.
    pub quota: u64,
    /// `URL_SIGNING_KEY`.
    pub url_signing_key: Option<Secret>,
}

impl Uploads {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            max_file_size: reader.number("MAX_FILE_SIZE", 1..=1 << 40)?,
            dir: reader.path("UPLOAD_DIR"),
            quota: reader.number("UPLOAD_QUOTA", 0..=1 << 50)?,
            url_signing_key: reader.secret("URL_SIGNING_KEY")?,
        })
    }
}

/// Rules about messages.
#[derive(Debug, Clone)]
pub struct Messages {
    /// `MESSAGE_EDIT_WINDOW`.
    pub edit_window: Duration,
    /// `EVENT_RETENTION_DAYS`, as a duration.
    pub event_retention: Duration,
}

impl Messages {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let days: u64 = reader.number("EVENT_RETENTION_DAYS", 1..=36_500)?;
        Ok(Self {
            edit_window: reader.seconds("MESSAGE_EDIT_WINDOW", 0..=3_153_600_000)?,
            event_retention: Duration::from_secs(days * 86_400),
        })
    }
}

pub(super) fn read_limits(reader: &mut Reader) -> Result<limits::Settings, ConfigError> {
    let mut per_minute = |name| reader.number(name, 0..=u64::from(u32::MAX));
    Ok(limits::Settings {
        messages: per_minute("RATE_LIMIT_MESSAGES")?,
        typing: per_minute("RATE_LIMIT_TYPING")?,
        reads: per_minute("RATE_LIMIT_READS")?,
        uploads: per_minute("RATE_LIMIT_UPLOADS")?,
        conversations: per_minute("RATE_LIMIT_CONVERSATIONS")?,
        burst: reader.number("RATE_LIMIT_BURST", 1..=u64::from(u32::MAX))?,
    })
}

/// Live connections; a limit of `None` is none.
#[derive(Debug, Clone)]
pub struct Live {
    /// `MAX_PAYLOAD`, in bytes.
    pub max_payload: usize,
    /// `MAX_CONNECTIONS`.
    pub max_connections: Option<u32>,
    /// `MAX_CONNECTIONS_PER_USER`.
    pub max_connections_per_user: Option<u32>,
    /// `MAX_CONNECTIONS_PER_IP`.
    pub max_connections_per_ip: Option<u32>,
    /// `MAX_UNAUTHENTICATED_PER_IP`.
    pub max_unauthenticated_per_ip: Option<u32>,
    /// `AUTH_TIMEOUT`.
    pub auth_timeout: Duration,
    /// `PING_INTERVAL`.
    pub ping_interval: Duration,
    /// `PING_TIMEOUT`.
    pub ping_timeout: Duration,
    /// `MAX_EVENTS_PER_SECOND`.
    pub max_events_per_second: Option<u32>,
    /// `MAX_QUEUED_BYTES`.
    pub max_queued_bytes: usize,
    /// `SLOW_CLIENT_TIMEOUT`.
    pub slow_client_timeout: Duration,
}

impl Live {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            max_payload: reader.number("MAX_PAYLOAD", 1024..=1 << 30)?,
            max_connections: reader.limit("MAX_CONNECTIONS")?,
            max_connections_per_user: reader.limit("MAX_CONNECTIONS_PER_USER")?,
            max_connections_per_ip: reader.limit("MAX_CONNECTIONS_PER_IP")?,
            max_unauthenticated_per_ip: reader.limit("MAX_UNAUTHENTICATED_PER_IP")?,
            auth_timeout: reader.millis("AUTH_TIMEOUT")?,
            ping_interval: reader.millis("PING_INTERVAL")?,
            ping_timeout: reader.millis("PING_TIMEOUT")?,
            max_events_per_second: reader.limit("MAX_EVENTS_PER_SECOND")?,
            max_queued_bytes: reader.number("MAX_QUEUED_BYTES", 10_000..=1 << 30)?,
            slow_client_timeout: reader.millis("SLOW_CLIENT_TIMEOUT")?,
        })
    }
}

/// E-mail about unread messages.
#[derive(Debug, Clone)]
pub struct Email {
    /// `SMTP_URL`.
    pub smtp: SmtpUrl,
    /// `SMTP_TIMEOUT`.
    pub timeout: Duration,
    /// `EMAIL_FROM`.
    pub from: Mailbox,
    /// `EMAIL_DELAY`.
    pub delay: Duration,
    /// `EMAIL_LANGUAGE`, in lower case.
    pub language: String,
    /// `EMAIL_TEMPLATES`.
    pub templates: Option<PathBuf>,
    /// `APP_URL`, with `{conversation_id}` in it.
    pub app_url: String,
    /// `PUBLIC_URL`, without a slash at its end.
    pub public_url: String,
}

impl Email {
    /// `None` without `SMTP_URL`; what it needs besides must be there then.
    pub(super) fn read(reader: &mut Reader, public_url: Option<&str>) -> Result<Option<Self>, ConfigError> {
        let smtp = reader.parse("SMTP_URL", SmtpUrl::parse)?;
        let timeout = reader.millis("SMTP_TIMEOUT")?;
        let from = reader.parse("EMAIL_FROM", values::mailbox)?;
        let delay = reader.seconds("EMAIL_DELAY", 1..=2_592_000)?;
        let language = reader.parse("EMAIL_LANGUAGE", values::language)?.expect("the table has its default");
        let templates = reader.text("EMAIL_TEMPLATES").map(PathBuf::from);
        let app_url = reader.parse("APP_URL", values::app_url)?;
        let Some(smtp) = smtp else { return Ok(None) };
        let missing =
            |name| ConfigError::new(name, "is not set, but SMTP_URL is: mail cannot be sent without.");
        Ok(Some(Self {
            smtp,
            timeout,
            from: from.ok_or_else(|| missing("EMAIL_FROM"))?,
            delay,
            language,
            templates,
            app_url: app_url.ok_or_else(|| missing("APP_URL"))?,
            public_url: public_url
                .ok_or_else(|| {
                    ConfigError::new(
                        "PUBLIC_URL",
                        "is not set, but SMTP_URL is: mail without a link to unsubscribe must not be sent.",
                    )
                })?
                .to_owned(),
        }))
    }
}

/// Logs.
#[derive(Debug, Clone)]
pub struct Log {
    /// `LOG_FORMAT`.
    pub format: LogFormat,
    /// `LOG_LEVEL`: directives that `tracing_subscriber::EnvFilter` understands.
    pub level: String,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Log {
    pub(super) fn read(reader: &mut Reader, environment: Environment) -> Result<Self, ConfigError> {
        let format = reader.parse("LOG_FORMAT", |value| match value.to_ascii_lowercase().as_str() {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err(format!("must be json or text, not {}.", quoted(value))),
        })?;
        let (default, name) =
            if environment.is_production() { (LogFormat::Json, "json") } else { (LogFormat::Text, "text") };
        reader.text_or("LOG_FORMAT", name);
        Ok(Self {
            format: format.unwrap_or(default),
            level: reader.parse("LOG_LEVEL", values::log_level)?.expect("the table has its default"),
        })
    }
}

/// Metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `METRICS_TOKEN`.
    pub token: Option<Secret>,
    /// `METRICS_PORT`; 0 takes a free one.
    pub port: Option<u16>,
}

impl Metrics {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            token: reader.secret("METRICS_TOKEN")?,
            port: reader
                .maybe_number("METRICS_PORT", 0..=65_535)?
                .map(|port| u16::try_from(port).expect("the range is that of a port")),
        })
    }
}

/// Traces for an OpenTelemetry collector, under the names that OpenTelemetry gives its variables.
#[derive(Debug, Clone)]
pub struct Traces {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, without a slash at its end.
    pub endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Vec<(String, Secret)>,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// `OTEL_TRACES_SAMPLER_ARG`.
    pub share: f64,
}

impl Traces {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let headers = reader.secret("OTEL_EXPORTER_OTLP_HEADERS")?;
        let headers = headers.map_or_else(|| Ok(Vec::new()), |list| values::headers(list.expose()));
        let share = reader.parse("OTEL_TRACES_SAMPLER_ARG", |value| match value.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(format!("must be a number from 0 to 1, not {}.", quoted(value))),
        })?;
        Ok(Self {
            endpoint: reader.parse("OTEL_EXPORTER_OTLP_ENDPOINT", values::base_url)?,
            headers: headers.map_err(|rule| ConfigError::new("OTEL_EXPORTER_OTLP_HEADERS", rule))?,
            service_name: reader.text("OTEL_SERVICE_NAME").expect("the table has its default"),
            share: share.expect("the table has its default"),
        })
    }
}
