//! The one table of variables: name, default, meaning, and whether the value may be shown.
//!
//! Reading (`reader`), `.env.example` (`example`) and the output of `check-config` all come from
//! it, so that none of them can say something else than the others.

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// The group it is shown in.
    pub section: Section,
    /// The value without which it is not left; `None` where absence means something of its own.
    pub default: Option<&'static str>,
    /// A value to show where there is no default.
    pub example: &'static str,
    /// What it does, with its unit and what absence means.
    pub meaning: &'static str,
    /// Whether its value may be shown.
    pub visibility: Visibility,
}

/// What may be shown of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// All of it.
    Open,
    /// All of it but a password.
    Url,
    /// Only that it is set.
    Secret,
}

/// The groups of the table, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Where and as what the service runs.
    Server,
    /// The marketplace's main API.
    MainApi,
    /// Where messages are kept.
    Database,
    /// The accelerator shared by several nodes.
    Redis,
    /// The local check of tokens that are JWTs.
    Jwt,
    /// The main API's own calls.
    Service,
    /// Which pages may call.
    Cors,
    /// Files.
    Uploads,
    /// Rules about messages.
    Messages,
    /// What one user may do in a minute.
    Limits,
    /// Events for the main API.
    Webhooks,
    /// Live connections.
    Live,
    /// E-mail about unread messages.
    Email,
    /// Push notifications.
    Push,
    /// Logs, metrics, traces and reports.
    Watching,
}

impl Section {
    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::MainApi => "Main API",
            Self::Database => "Database",
            Self::Redis => "Redis",
            Self::Jwt => "JWT",
            Self::Service => "Server to server",
            Self::Cors => "CORS",
            Self::Uploads => "File upload",
            Self::Messages => "Messages",
            Self::Limits => "Limits per user, on all transports together",
            Self::Webhooks => "Webhooks: signed events for the main API",
            Self::Live => "Live connections",
            Self::Email => "E-mail about unread messages (docs/email.md)",
            Self::Push => "Push notifications",
            Self::Watching => "Logs, metrics, traces and reports",
        }
    }
}

/// A variable with a default.
const fn preset(
    section: Section,
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        section,
        default: Some(default),
        example: default,
        meaning,
        visibility: Visibility::Open,
    }
}

/// A variable whose absence means something of its own.
const fn optional(
    section: Section,
    name: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, section, default: None, example, meaning, visibility: Visibility::Open }
}

/// A variable whose value is never shown.
const fn secret(
    section: Section,
    name: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, section, default: None, example, meaning, visibility: Visibility::Secret }
}

/// A variable whose value may hold a password.
const fn url(section: Section, name: &'static str, example: &'static str, meaning: &'static str) -> Variable {
    Variable { name, section, default: None, example, meaning, visibility: Visibility::Url }
}

/// Every variable that the service reads.
pub static VARIABLES: &[Variable] = &[
    preset(Section::Server, "PORT", "3001", "The port to listen on; 0 takes a free one."),
    preset(Section::Server, "HOST", "0.0.0.0", "The address to listen on."),
    optional(
        Section::Server,
        "NODE_ENV",
        "production",
        "production or development (the default). Production is stricter: it needs MAIN_API_URL, refuses CORS_ORIGIN=* and closes /metrics to strangers.",
    ),
    optional(Section::Server, "APP_ENV", "production", "The same switch under Laravel's name."),
    optional(
        Section::Server,
        "PUBLIC_URL",
        "https://chat.example.test",
        "Where clients reach the service; makes the addresses of files absolute (without it they are paths), and links in e-mail possible.",
    ),
    optional(
        Section::Server,
        "TRUSTED_PROXIES",
        "127.0.0.1,10.0.0.0/8",
        "Addresses and networks, comma-separated, whose X-Forwarded-For and X-Forwarded-Proto are believed. Without it, nobody's.",
    ),
    optional(
        Section::Server,
        "TLS_CERT_PATH",
        "/etc/rented-messaging/tls.crt",
        "The certificate chain (PEM) to serve HTTPS and WSS with; goes with TLS_KEY_PATH. Without both, plain HTTP.",
    ),
    optional(
        Section::Server,
        "TLS_KEY_PATH",
        "/etc/rented-messaging/tls.key",
        "The private key (PEM) of TLS_CERT_PATH.",
    ),
    preset(
        Section::Server,
        "HANDSHAKE_TIMEOUT",
        "10000",
        "Milliseconds in which TLS handshakes, headers and upgrades must finish.",
    ),
    preset(Section::Server, "BODY_TIMEOUT", "30000", "Milliseconds in which a request's body must arrive."),
    preset(
        Section::Server,
        "SHUTDOWN_TIMEOUT",
        "10",
        "Seconds in which the service leaves after SIGTERM, work in flight answered.",
    ),
    url(
        Section::MainApi,
        "MAIN_API_URL",
        "http://main-api:8000/api/v1",
        "The base of the marketplace's API, which says whose a token is. `serve` needs it; `rented-messaging demo` brings its own.",
    ),
    preset(
        Section::MainApi,
        "MAIN_API_TIMEOUT",
        "5000",
        "Milliseconds after which the main API counts as away.",
    ),
    optional(
        Section::MainApi,
        "MAIN_API_USER_PATH",
        "/users/{id}",
        "The path of other people's profiles, if the main API has one. Without it, profiles come from their own tokens and from products.",
    ),
    preset(
        Section::MainApi,
        "MAIN_API_CONCURRENCY",
        "64",
        "Requests to the main API that may be under way at once; more of them wait.",
    ),
    url(
        Section::Database,
        "DATABASE_URL",
        "postgresql://user:password@localhost:5432/messaging_db",
        "postgres://, postgresql:// or sqlite:. Without it, an embedded SQLite file in DATA_DIR.",
    ),
    preset(Section::Database, "DATA_DIR", "./data", "The folder of the embedded database."),
    preset(Section::Database, "DB_POOL_MIN", "2", "Database connections that are kept open."),
    preset(Section::Database, "DB_POOL_MAX", "10", "Database connections that may be open at once."),
    preset(
        Section::Database,
        "DB_TIMEOUT",
        "5000",
        "Milliseconds after which a request to the database is given up.",
    ),
    url(
        Section::Redis,
        "REDIS_URL",
        "redis://localhost:6379",
        "redis:// or rediss:// (TLS); a cluster is redis-cluster://host:6379,host:6379, a sentinel group redis-sentinel://host:26379,host:26379/service-name (rediss-cluster://, rediss-sentinel:// with TLS). Without it, one node works in full by itself.",
    ),
    preset(
        Section::Redis,
        "REDIS_TTL",
        "3600",
        "Seconds for which checked tokens, users and products are remembered, in Redis or in the process.",
    ),
    preset(
        Section::Redis,
        "REDIS_PREFIX",
        "rented:",
        "What every key and channel in Redis begins with: nodes with the same one belong together, and several services may share a server.",
    ),
    secret(
        Section::Jwt,
        "JWT_SECRET",
        "",
        "The main API's signing secret. With it, tokens that are JWTs are checked here before the main API is asked. It also protects the addresses of files if URL_SIGNING_KEY is not set.",
    ),
    optional(
        Section::Jwt,
        "JWT_ISSUER",
        "rented-marketplace",
        "The issuers that a JWT may name, comma-separated; a JWT without `iss` is then refused. Without it, any.",
    ),
    preset(
        Section::Jwt,
        "JWT_ALGORITHM",
        "HS256",
        "HS256 (with JWT_SECRET), RS256 or ES256 (with JWT_PUBLIC_KEY). JWTs signed in another way are refused.",
    ),
    optional(
        Section::Jwt,
        "JWT_PUBLIC_KEY",
        "/etc/rented-messaging/jwt.pem",
        "The public key for RS256 and ES256: PEM text (line breaks may be written \\n) or the path of a PEM file.",
    ),
    secret(
        Section::Service,
        "SERVICE_API_KEY",
        "",
        "The key of the main API's own calls under /internal: at least 32 bytes. Without it there is nothing at those addresses.",
    ),
    secret(
        Section::Service,
        "SERVICE_API_KEY_PREVIOUS",
        "",
        "The key before SERVICE_API_KEY, accepted as well while the main API changes over.",
    ),
    optional(
        Section::Cors,
        "CORS_ORIGIN",
        "http://localhost:3000,https://yourdomain.com",
        "The origins, comma-separated, whose pages may call; * is all (not in production). Without it, any port of http://localhost and http://127.0.0.1 in development and none in production.",
    ),
    preset(Section::Uploads, "MAX_FILE_SIZE", "10485760", "Bytes that an uploaded file may have."),
    preset(
        Section::Uploads,
        "UPLOAD_DIR",
        "./uploads",
        "The folder of uploaded files, or s3://bucket/prefix with the usual AWS_… variables (AWS_ENDPOINT for a bucket elsewhere).",
    ),
    preset(
        Section::Uploads,
        "UPLOAD_QUOTA",
        "1073741824",
        "Bytes that the files of one user may have together; 0 is no limit.",
    ),
    secret(
        Section::Uploads,
        "URL_SIGNING_KEY",
        "",
        "Signs the expiring addresses of files. Without it, the key is derived from JWT_SECRET, or else made once and kept in the database.",
    ),
    preset(
        Section::Messages,
        "MESSAGE_EDIT_WINDOW",
        "900",
        "Seconds in which a message can be edited by its sender.",
    ),
    preset(
        Section::Messages,
        "EVENT_RETENTION_DAYS",
        "30",
        "Days for which clients that were away can catch up event by event.",
    ),
    preset(Section::Limits, "RATE_LIMIT_MESSAGES", "60", "Messages a minute; 0 is no limit."),
    preset(Section::Limits, "RATE_LIMIT_BURST", "20", "Messages that may be sent at once."),
    preset(Section::Limits, "RATE_LIMIT_TYPING", "120", "Typing signals a minute; 0 is no limit."),
    preset(Section::Limits, "RATE_LIMIT_READS", "120", "Markings as read a minute; 0 is no limit."),
    preset(Section::Limits, "RATE_LIMIT_UPLOADS", "20", "Uploads a minute; 0 is no limit."),
    preset(Section::Limits, "RATE_LIMIT_CONVERSATIONS", "10", "New conversations a minute; 0 is no limit."),
    optional(
        Section::Webhooks,
        "WEBHOOK_URL",
        "https://shop.example.test/webhooks/messaging",
        "Where events go (Standard Webhooks), one address or several, comma-separated. Without it, none are kept or sent.",
    ),
    secret(
        Section::Webhooks,
        "WEBHOOK_SECRET",
        "",
        "Signs the events: whsec_ followed by the base64 of 24 to 64 random bytes. WEBHOOK_URL needs it.",
    ),
    secret(
        Section::Webhooks,
        "WEBHOOK_SECRET_PREVIOUS",
        "",
        "The secret before, while receivers still check by it: events then carry both signatures.",
    ),
    preset(
        Section::Webhooks,
        "WEBHOOK_EVENTS",
        "*",
        "Which events, comma-separated: message.created, conversation.created, message.read, user.blocked, user.unblocked; * is all.",
    ),
    preset(
        Section::Webhooks,
        "WEBHOOK_INCLUDE_TEXT",
        "true",
        "Whether message.created has what people wrote; false leaves out content, metadata, links and names of files.",
    ),
    optional(
        Section::Webhooks,
        "WEBHOOK_ALLOW_PRIVATE",
        "true",
        "Whether WEBHOOK_URL may lead to private, loopback and link-local addresses. Without it, only in development.",
    ),
    preset(Section::Webhooks, "WEBHOOK_TIMEOUT", "15000", "Milliseconds in which a receiver must answer."),
    preset(
        Section::Webhooks,
        "WEBHOOK_RETRY_BASE",
        "5000",
        "Milliseconds until the second attempt; the others follow in proportion, up to a day.",
    ),
    preset(
        Section::Webhooks,
        "WEBHOOK_MAX_ATTEMPTS",
        "10",
        "Attempts, at most 10, after which an event is a dead letter.",
    ),
    preset(
        Section::Live,
        "MAX_PAYLOAD",
        "100000",
        "Bytes that one live message or one polling body may have.",
    ),
    preset(Section::Live, "MAX_CONNECTIONS", "100000", "Live connections of one node; 0 is no limit."),
    preset(
        Section::Live,
        "MAX_CONNECTIONS_PER_USER",
        "20",
        "Live connections of one user on one node, so that many on each of them; 0 is no limit.",
    ),
    preset(
        Section::Live,
        "MAX_CONNECTIONS_PER_IP",
        "0",
        "Live connections from one address; 0 is no limit: carriers put thousands of phones behind one.",
    ),
    preset(
        Section::Live,
        "MAX_UNAUTHENTICATED_PER_IP",
        "1000",
        "Live connections from one address that have not authenticated yet; 0 is no limit.",
    ),
    preset(
        Section::Live,
        "AUTH_TIMEOUT",
        "10000",
        "Milliseconds in which a live connection must authenticate.",
    ),
    preset(Section::Live, "PING_INTERVAL", "25000", "Milliseconds between two pings of the service."),
    preset(
        Section::Live,
        "PING_TIMEOUT",
        "20000",
        "Milliseconds in which a client must answer a ping before it counts as gone.",
    ),
    preset(
        Section::Live,
        "MAX_EVENTS_PER_SECOND",
        "1000",
        "Events a second taken from one live connection; past it, reading pauses. 0 is no limit.",
    ),
    preset(
        Section::Live,
        "MAX_QUEUED_BYTES",
        "1000000",
        "Bytes that may wait for one client to read them before it is closed as too slow.",
    ),
    preset(
        Section::Live,
        "SLOW_CLIENT_TIMEOUT",
        "10000",
        "Milliseconds for which a client may read nothing of what waits before it is closed as too slow.",
    ),
    url(
        Section::Email,
        "SMTP_URL",
        "smtps://user:password@mail.example.test",
        "The mail server: smtps:// for TLS, smtp:// with ?tls=required for STARTTLS, smtp:// alone for a relay on this machine. Without it, no e-mail; with it, EMAIL_FROM, APP_URL and PUBLIC_URL are needed.",
    ),
    preset(Section::Email, "SMTP_TIMEOUT", "30000", "Milliseconds that handing over one mail may take."),
    optional(
        Section::Email,
        "EMAIL_FROM",
        "'Rented <no-reply@example.test>'",
        "Whom mail comes from: an address, with or without a name.",
    ),
    preset(
        Section::Email,
        "EMAIL_DELAY",
        "900",
        "Seconds for which a message must be unread before its recipient gets a mail.",
    ),
    preset(
        Section::Email,
        "EMAIL_LANGUAGE",
        "en",
        "The language of those whose own is not known or has no file: en, fr, de, ar, or one of EMAIL_TEMPLATES.",
    ),
    optional(
        Section::Email,
        "EMAIL_TEMPLATES",
        "/etc/rented-messaging/email",
        "A folder whose files replace the built-in ones of the same name, and may add languages.",
    ),
    optional(
        Section::Email,
        "APP_URL",
        "'https://app.example.test/conversations/{conversation_id}'",
        "Where the app shows a conversation, for the links in mails.",
    ),
    secret(
        Section::Push,
        "FCM_SERVICE_ACCOUNT",
        "/etc/rented-messaging/firebase.json",
        "The service account of Firebase: its JSON or the path of its file. With it, Android, iOS and web devices are pushed through FCM.",
    ),
    preset(
        Section::Push,
        "FCM_BASE_URL",
        "https://fcm.googleapis.com",
        "Where FCM is; where its access tokens come from is in the service account.",
    ),
    secret(
        Section::Push,
        "APNS_KEY",
        "/etc/rented-messaging/apns.p8",
        "The key of Apple's push service: PEM text (line breaks may be written \\n) or the path of the .p8 file. With it, iOS devices that FCM does not serve are pushed directly.",
    ),
    optional(Section::Push, "APNS_KEY_ID", "ABC123DEFG", "The id of APNS_KEY."),
    optional(Section::Push, "APNS_TEAM_ID", "DEF123GHIJ", "The team that APNS_KEY belongs to."),
    optional(Section::Push, "APNS_TOPIC", "test.example.app", "The bundle id of the iOS app."),
    preset(
        Section::Push,
        "APNS_BASE_URL",
        "https://api.push.apple.com",
        "Where Apple's push service is; HTTP/2, also where it is http:.",
    ),
    optional(
        Section::Push,
        "VAPID_SUBJECT",
        "mailto:operator@example.test",
        "Whom a browser's push service may write to, mailto: or https:. With it, browsers are pushed by Web Push.",
    ),
    secret(
        Section::Push,
        "VAPID_PRIVATE_KEY",
        "",
        "The P-256 private key of Web Push, 32 bytes in base64url. Without it, one is made once and kept in the database.",
    ),
    preset(
        Section::Push,
        "WEB_PUSH_ALLOW_PRIVATE",
        "false",
        "Whether the addresses that browsers name may be private ones, and http: for trials. They come from users: false wherever others can reach the service.",
    ),
    preset(
        Section::Push,
        "PUSH_FOLD",
        "3",
        "Seconds in which further messages of a conversation become one update of its notification.",
    ),
    preset(
        Section::Push,
        "PUSH_SWEEP_AFTER",
        "15",
        "Seconds after which a message whose node died before it was pushed is pushed by another; more than DB_TIMEOUT.",
    ),
    optional(
        Section::Watching,
        "LOG_FORMAT",
        "json",
        "json or text. Without it, json in production and text in development.",
    ),
    preset(
        Section::Watching,
        "LOG_LEVEL",
        "info",
        "error, warn, info, debug, trace or off; also by module: info,messaging=debug.",
    ),
    secret(
        Section::Watching,
        "METRICS_TOKEN",
        "",
        "The bearer token that /metrics on PORT asks for. In production /metrics needs it or METRICS_PORT.",
    ),
    optional(
        Section::Watching,
        "METRICS_PORT",
        "9464",
        "A port of its own for /metrics, which asks for no token: not to be opened to the world.",
    ),
    url(
        Section::Watching,
        "SENTRY_DSN",
        "https://key@sentry.example.test/1",
        "Where panics and internal errors are reported: Sentry's address for a project. Without it, nowhere.",
    ),
    url(
        Section::Watching,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://localhost:4318",
        "An OpenTelemetry collector that takes traces by OTLP over HTTP (Protobuf, at /v1/traces). Without it, none are made.",
    ),
    secret(
        Section::Watching,
        "OTEL_EXPORTER_OTLP_HEADERS",
        "",
        "Headers for the collector: name=value, comma-separated, values percent-encoded.",
    ),
    preset(
        Section::Watching,
        "OTEL_SERVICE_NAME",
        "rented-messaging",
        "What the service is called in traces.",
    ),
    preset(
        Section::Watching,
        "OTEL_TRACES_SAMPLER_ARG",
        "1",
        "The share of traces that are kept, from 0 to 1; those begun elsewhere are kept as whoever began them says.",
    ),
];

/// The variable of this name.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}
