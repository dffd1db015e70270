//! Configuration: what the environment and a `.env` file say, checked once at the start.
//!
//! `variables` is the one table of names, defaults and meanings; `values` parses what has a form of
//! its own. The rest of the service gets the groups of [`Config`] and never reads the environment.

mod advice;
mod example;
mod groups;
mod push;
mod reader;
mod secret;
mod values;
mod variables;
mod webhooks;

use std::{collections::HashMap, fmt, io, path::Path};

pub use example::example_file;
pub use groups::{
    Cors, Database, Email, Environment, Jwt, JwtVerification, Live, Log, LogFormat, MainApi, Messages,
    Metrics, Redis, Server, Service, Tls, Traces, Uploads,
};
pub use push::{ApnsAccount, FcmAccount, Push, VapidAccount, signing_key};
pub use reader::ConfigError;
pub use secret::Secret;
pub use values::{DatabaseUrl, Encryption, Origins, RedisTopology, RedisUrl, SmtpUrl, TrustedProxies};
pub use variables::{Section, VARIABLES, Variable, Visibility};
pub use webhooks::{WebhookKey, Webhooks};

use reader::Reader;

use crate::{limits, reports};

/// Everything that an operator can set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Production or development.
    pub environment: Environment,
    /// Where and as what the service runs.
    pub server: Server,
    /// The marketplace's main API.
    pub main_api: MainApi,
    /// Where messages are kept.
    pub database: Database,
    /// The accelerator shared by several nodes.
    pub redis: Redis,
    /// The local check of tokens that are JWTs.
    pub jwt: Jwt,
    /// The main API's own calls.
    pub service: Service,
    /// Which pages may call.
    pub cors: Cors,
    /// Files.
    pub uploads: Uploads,
    /// Rules about messages.
    pub messages: Messages,
    /// What one user may do in a minute.
    pub limits: limits::Settings,
    /// Events for the main API.
    pub webhooks: Webhooks,
    /// Live connections.
    pub live: Live,
    /// E-mail about unread messages, where it is configured.
    pub email: Option<Email>,
    /// Push notifications.
    pub push: Push,
    /// Logs.
    pub log: Log,
    /// Metrics.
    pub metrics: Metrics,
    /// Traces.
    pub traces: Traces,
    /// `SENTRY_DSN`.
    pub sentry_dsn: Option<sentry_types::Dsn>,
    settings: Vec<Setting>,
}

/// What one variable came to.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Which variable.
    pub variable: &'static Variable,
    /// Its value, masked where it must not be shown; `None` where it is not set.
    pub value: Option<String>,
    /// Whether nobody set it.
    pub is_default: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.variable.name;
        // A PEM text has line breaks; here a variable is a line.
        let value = self.value.as_ref().map(|value| value.replace('\n', "\\n"));
        match (value, self.is_default) {
            (Some(value), false) => write!(formatter, "{name}={value}"),
            (Some(value), true) => write!(formatter, "{name}={value}  (default)"),
            (None, _) => write!(formatter, "{name}  (not set)"),
        }
    }
}

impl Config {
    /// Reads the environment and, for what it leaves open, the file `.env` of the working folder.
    pub fn load() -> Result<Self, ConfigError> {
        Self::from_env(environment(Path::new(".env"))?)
    }

    /// Reads variables; a value that is empty counts as not set, but for a secret.
    pub fn from_env(vars: HashMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(vars);
        let environment = Environment::read(&mut reader)?;
        let server = Server::read(&mut reader)?;
        let config = Self {
            environment,
            email: Email::read(&mut reader, server.public_url.as_deref())?,
            server,
            main_api: MainApi::read(&mut reader)?,
            database: Database::read(&mut reader)?,
            redis: Redis::read(&mut reader)?,
            jwt: Jwt::read(&mut reader)?,
            service: Service::read(&mut reader)?,
            cors: Cors::read(&mut reader, environment)?,
            uploads: Uploads::read(&mut reader)?,
            messages: Messages::read(&mut reader)?,
            limits: groups::read_limits(&mut reader)?,
            webhooks: Webhooks::read(&mut reader, environment)?,
            live: Live::read(&mut reader)?,
            push: Push::read(&mut reader)?,
            log: Log::read(&mut reader, environment)?,
            metrics: Metrics::read(&mut reader)?,
            traces: Traces::read(&mut reader)?,
            sentry_dsn: reader.parse("SENTRY_DSN", reports::parse_dsn)?,
            settings: reader.into_settings(),
        };
        config.check()?;
        Ok(config)
    }

    /// The main API's base URL, which `serve` cannot do without.
    pub fn main_api_url(&self) -> Result<&str, ConfigError> {
        self.main_api.url.as_deref().ok_or_else(|| {
            ConfigError::new(
                "MAIN_API_URL",
                "is not set: set it to the marketplace's API, or run `rented-messaging demo`, which needs none.",
            )
        })
    }

    /// The effective value of every variable, a line each, with secrets and passwords masked.
    pub fn describe(&self) -> Vec<String> {
        self.settings.iter().map(ToString::to_string).collect()
    }

    /// What every variable came to, in the table's order.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Rules between variables.
    fn check(&self) -> Result<(), ConfigError> {
        if self.environment.is_production() {
            self.main_api_url()?;
            if self.cors.origins == Origins::Any {
                return Err(ConfigError::new(
                    "CORS_ORIGIN",
                    "must not be * in production: list the origins whose pages may call.",
                ));
            }
        }
        if self.server.port != 0 && self.metrics.port == Some(self.server.port) {
            return Err(ConfigError::new("METRICS_PORT", "must be another port than PORT."));
        }
        Ok(())
    }
}

/// The process's environment, and below it the variables of this file if it exists.
pub fn environment(file: &Path) -> Result<HashMap<String, String>, ConfigError> {
    let mut vars = read_file(file)?;
    for variable in VARIABLES {
        if let Some(value) = std::env::var_os(variable.name) {
            let value =
                value.into_string().map_err(|_| ConfigError::new(variable.name, "is not valid UTF-8."))?;
            vars.insert(variable.name.to_owned(), value);
        }
    }
    Ok(vars)
}

fn read_file(file: &Path) -> Result<HashMap<String, String>, ConfigError> {
    let name = file.display();
    let lines = match dotenvy::from_path_iter(file) {
        Ok(lines) => lines,
        Err(dotenvy::Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(HashMap::new());
        }
        Err(_) => return Err(ConfigError::sentence(format!("The file {name} cannot be read."))),
    };
    lines
        .collect::<Result<_, _>>()
        // dotenvy would quote the line, which may hold a secret.
        .map_err(|_| ConfigError::sentence(format!("The file {name} has a line that is not NAME=value.")))
}
