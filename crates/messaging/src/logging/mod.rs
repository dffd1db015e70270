//! Log lines: readable in development, JSON in production. Never a token, a message, an e-mail address.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging to stderr; stdout is for what a command was asked to print.
pub fn start(settings: &Log) {
    // Statements may carry values: sqlx stays quiet below warnings unless asked by name.
    let directives = format!("sqlx=warn,hyper=warn,h2=warn,{}", settings.level);
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (tests start several services) keeps the first.
    let _ = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.compact().try_init(),
    };
}
