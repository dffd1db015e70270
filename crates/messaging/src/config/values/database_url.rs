//! `DATABASE_URL`: PostgreSQL or embedded SQLite.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sqlx::postgres::PgConnectOptions;

use crate::config::secret::Secret;

/// The file of the embedded database in `DATA_DIR`.
const FILE: &str = "messaging.db";

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The whole URL, which may hold a password.
    Postgres(Secret),
    /// The path of the file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The embedded database in this folder.
    pub(crate) fn embedded(data_dir: &Path) -> Self {
        Self::Sqlite(data_dir.join(FILE))
    }

    /// The URL to connect with: it may hold a password, and is not for show.
    pub fn to_url(&self) -> String {
        const SPECIAL: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');
        match self {
            Self::Postgres(url) => url.expose().to_owned(),
            Self::Sqlite(path) => format!("sqlite:{}", utf8_percent_encode(&path.to_string_lossy(), SPECIAL)),
        }
    }

    /// Reads `postgres://…`, `postgresql://…`, `sqlite:path` or `sqlite://path`.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        if value.starts_with("postgres://") || value.starts_with("postgresql://") {
            return match PgConnectOptions::from_str(value) {
                Ok(_) => Ok(Self::Postgres(Secret::new(value))),
                // What sqlx says could quote the URL and its password.
                Err(_) => Err("is not a valid PostgreSQL URL: postgresql://user:password@host:5432/database; special characters in the password are percent-encoded.".to_owned()),
            };
        }
        let Some(rest) = value.strip_prefix("sqlite:") else {
            return Err("must start with postgres://, postgresql:// or sqlite:.".to_owned());
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        if path == ":memory:" || parameters.contains("mode=memory") {
            return Err("must name a file: messages in memory alone would be lost.".to_owned());
        }
        if !matches!(parameters, "" | "mode=rwc" | "mode=rw") {
            return Err("may have no parameter after a SQLite file's path but mode=rwc.".to_owned());
        }
        match percent_decode_str(path).decode_utf8() {
            Ok(path) if !path.is_empty() && !path.contains('\0') => Ok(Self::Sqlite(PathBuf::from(&*path))),
            _ => Err("must name a file after sqlite:, such as sqlite:./data/messaging.db.".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgres_url_is_kept_whole() {
        for url in ["postgres://u:p@localhost/db", "postgresql://u:p@localhost:5432/db?sslmode=require"] {
            assert_eq!(DatabaseUrl::parse(url), Ok(DatabaseUrl::Postgres(Secret::new(url))));
        }
    }

    #[test]
    fn a_sqlite_url_is_a_path() {
        for (url, path) in [
            ("sqlite:./data/x.db", "./data/x.db"),
            ("sqlite://data/x.db", "data/x.db"),
            ("sqlite:///var/x.db", "/var/x.db"),
            ("sqlite:/var/my%20data/x.db?mode=rwc", "/var/my data/x.db"),
        ] {
            let parsed = DatabaseUrl::parse(url).expect("a URL");
            assert_eq!(parsed, DatabaseUrl::Sqlite(path.into()));
            let options = sqlx::sqlite::SqliteConnectOptions::from_str(&parsed.to_url()).expect("a URL");
            assert_eq!(options.get_filename(), Path::new(path));
        }
    }

    #[test]
    fn what_cannot_keep_messages_is_refused_without_quoting_a_password() {
        for bad in [
            "mysql://u:hunter2@localhost/db",
            "postgres://u:hunter2@localhost:port/db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite://x.db?mode=memory",
            "sqlite:x.db?immutable=1",
            "./data/x.db",
        ] {
            let rule = DatabaseUrl::parse(bad).expect_err(bad);
            assert!(!rule.contains("hunter2"), "{rule}");
        }
    }
}
