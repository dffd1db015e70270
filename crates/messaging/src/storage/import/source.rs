//! The main API's own tables, as Laravel made them: read only, by id, a page at a time.
//!
//! Columns that a table lacks are read as null, those beyond are not looked at. Times without a zone are
//! UTC, as Laravel writes them unless told otherwise.

use std::{collections::HashSet, str::FromStr, time::Duration};

use serde_json::json;
use sqlx::{
    AssertSqlSafe, FromRow, MySqlPool, PgPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::storage::{OpenError, Result};

/// A conversation there.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct SourceConversation {
    /// Its id.
    pub id: i64,
    /// One of the two.
    pub user_one_id: Option<i64>,
    /// The other one.
    pub user_two_id: Option<i64>,
    /// What it is about.
    pub product_id: Option<i64>,
    /// When the newest message came; milliseconds, as all times here.
    pub last_message_at: Option<i64>,
    /// When it began.
    pub created_at: Option<i64>,
    /// When it last changed.
    pub updated_at: Option<i64>,
}

impl SourceConversation {
    /// Both users, the smaller id first; `None` if they are not two.
    pub fn pair(&self) -> Option<[i64; 2]> {
        match (self.user_one_id, self.user_two_id) {
            (Some(one), Some(other)) if one != other && one > 0 && other > 0 => {
                Some([one.min(other), one.max(other)])
            }
            _ => None,
        }
    }
}

/// A message there.
#[derive(Debug, Clone, Default, PartialEq, FromRow)]
pub struct SourceMessage {
    /// Its id.
    pub id: i64,
    /// Where it is.
    pub conversation_id: Option<i64>,
    /// Who wrote it.
    pub sender_id: Option<i64>,
    /// The words.
    pub content: Option<String>,
    /// 1 if the other one read it.
    pub is_read: i64,
    /// When; milliseconds, as all times here.
    pub read_at: Option<i64>,
    /// The offer that it shows.
    pub offer_id: Option<i64>,
    /// When it was sent.
    pub created_at: Option<i64>,
    /// When it last changed.
    pub updated_at: Option<i64>,
    /// When it was deleted, where there is such a column.
    pub deleted_at: Option<i64>,
    offer_type: Option<String>,
    offer_amount: Option<f64>,
    offer_start_date: Option<String>,
    offer_end_date: Option<String>,
    offer_status: Option<String>,
    offer_message: Option<String>,
}

impl SourceMessage {
    /// The offer as messages show it, JSON text. Of an offer that is not there only the id is known.
    pub fn offer(&self) -> Option<String> {
        let id = self.offer_id.filter(|id| *id > 0)?;
        let offer = json!({
            "id": id,
            "offer_type": self.offer_type,
            "amount": self.offer_amount,
            "start_date": self.offer_start_date,
            "end_date": self.offer_end_date,
            "status": self.offer_status,
            "message": self.offer_message,
        });
        Some(offer.to_string().replace("\\u0000", ""))
    }
}

/// The main API's database.
#[derive(Debug, Clone)]
pub struct Source {
    database: SourceDatabase,
    conversations: HashSet<String>,
    messages: HashSet<String>,
    offers: HashSet<String>,
}

#[derive(Debug, Clone)]
enum SourceDatabase {
    Postgres(PgPool),
    Mysql(MySqlPool),
}

/// Runs the same body against whichever pool the source has.
macro_rules! on_source {
    ($source:expr, $pool:ident => $body:expr) => {
        match &$source.database {
            SourceDatabase::Postgres($pool) => $body,
            SourceDatabase::Mysql($pool) => $body,
        }
    };
}

/// What a column is read as.
#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Number,
    Text,
    /// 0 or 1, whatever the database has for it.
    Flag,
    /// Milliseconds since the Unix epoch.
    Time,
}

impl Source {
    /// Opens `postgres://…` or `mysql://…` and looks at its tables.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let bad = |error: sqlx::Error| OpenError::BadUrl(error.to_string());
        let away = |error: sqlx::Error| OpenError::Unreachable(error.to_string());
        let patience = Duration::from_secs(10);
        let database = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = PgConnectOptions::from_str(url).map_err(bad)?;
            let options = options.options([("timezone", "UTC"), ("default_transaction_read_only", "on")]);
            let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(patience);
            SourceDatabase::Postgres(pool.connect_with(options).await.map_err(away)?)
        } else if url.starts_with("mysql://") || url.starts_with("mariadb://") {
            let url = url.replacen("mariadb://", "mysql://", 1);
            let options = MySqlConnectOptions::from_str(&url).map_err(bad)?;
            let pool = MySqlPoolOptions::new().max_connections(2).acquire_timeout(patience);
            SourceDatabase::Mysql(pool.connect_with(options).await.map_err(away)?)
        } else {
            return Err(OpenError::BadUrl("it must begin with postgres:// or mysql://.".into()));
        };
        let mut source = Self {
            database,
            conversations: HashSet::new(),
            messages: HashSet::new(),
            offers: HashSet::new(),
        };
        source.conversations = source.columns("conversations").await.map_err(away)?;
        source.messages = source.columns("messages").await.map_err(away)?;
        source.offers = source.columns("offers").await.map_err(away)?;
        source.check()?;
        Ok(source)
    }

    async fn columns(&self, table: &str) -> Result<HashSet<String>, sqlx::Error> {
        let names: Vec<String> = match &self.database {
            SourceDatabase::Postgres(pool) => {
                sqlx::query_scalar(
                    "select column_name::text from information_schema.columns
                     where table_schema = current_schema() and table_name = $1",
                )
                .bind(table)
                .fetch_all(pool)
                .await?
            }
            SourceDatabase::Mysql(pool) => {
                sqlx::query_scalar(
                    "select cast(column_name as char) from information_schema.columns
                     where table_schema = database() and table_name = ?",
                )
                .bind(table)
                .fetch_all(pool)
                .await?
            }
        };
        Ok(names.into_iter().map(|name| name.to_lowercase()).collect())
    }

    /// What the import cannot do without.
    fn check(&self) -> Result<(), OpenError> {
        for (table, columns, needed) in [
            ("conversations", &self.conversations, &["id", "user_one_id", "user_two_id"][..]),
            (
                "messages",
                &self.messages,
                &["id", "conversation_id", "sender_id", "content", "created_at"][..],
            ),
        ] {
            if let Some(missing) = needed.iter().find(|name| !columns.contains(**name)) {
                return Err(OpenError::Unreachable(format!(
                    "the table {table} has no column {missing}: it is not the main API's"
                )));
            }
        }
        Ok(())
    }

    /// Whether changed messages can be told by their time.
    pub fn knows_changes(&self) -> bool {
        self.messages.contains("updated_at")
    }

    /// Whether there is more to know of an offer than its id.
    pub fn knows_offers(&self) -> bool {
        self.offers.contains("id") && self.messages.contains("offer_id")
    }

    /// How many rows a table has up to its newest id, and that id.
    pub async fn size(&self, table: &'static str) -> Result<(i64, i64)> {
        let id = self.read(Kind::Integer, "max(id)");
        let statement = format!("select count(*), coalesce({id}, 0) from {table}");
        Ok(on_source!(self, pool => sqlx::query_as(AssertSqlSafe(statement)).fetch_one(pool).await?))
    }

    /// Conversations after an id, by id.
    pub async fn conversations(&self, after: i64, limit: i64) -> Result<Vec<SourceConversation>> {
        let column = |kind, name| self.column(&self.conversations, kind, "", name, name);
        let columns = [
            column(Kind::Integer, "id"),
            column(Kind::Integer, "user_one_id"),
            column(Kind::Integer, "user_two_id"),
            column(Kind::Integer, "product_id"),
            column(Kind::Time, "last_message_at"),
            column(Kind::Time, "created_at"),
            column(Kind::Time, "updated_at"),
        ];
        let [first, second] = self.placeholders();
        let statement = format!(
            "select {} from conversations where id > {first} order by conversations.id limit {second}",
            columns.join(", ")
        );
        Ok(on_source!(self, pool => sqlx::query_as(AssertSqlSafe(statement))
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await?))
    }

    /// Messages after an id, by id; only those that changed at or after a time, if there is one.
    pub async fn messages(&self, after: i64, limit: i64, since: Option<i64>) -> Result<Vec<SourceMessage>> {
        let column = |kind, name| self.column(&self.messages, kind, "m.", name, name);
        let joins_offers = self.knows_offers();
        let nothing = HashSet::new();
        let offers = if joins_offers { &self.offers } else { &nothing };
        let offer = |kind, name: &str| self.column(offers, kind, "o.", name, &format!("offer_{name}"));
        let columns = [
            column(Kind::Integer, "id"),
            column(Kind::Integer, "conversation_id"),
            column(Kind::Integer, "sender_id"),
            column(Kind::Text, "content"),
            column(Kind::Flag, "is_read"),
            column(Kind::Time, "read_at"),
            column(Kind::Integer, "offer_id"),
            column(Kind::Time, "created_at"),
            column(Kind::Time, "updated_at"),
            column(Kind::Time, "deleted_at"),
            self.column(offers, Kind::Text, "o.", "offer_type", "offer_type"),
            offer(Kind::Number, "amount"),
            offer(Kind::Text, "start_date"),
            offer(Kind::Text, "end_date"),
            offer(Kind::Text, "status"),
            offer(Kind::Text, "message"),
        ];
        let [first, second] = self.placeholders();
        let changed = match since {
            // A number of ours: nothing of anybody's is in the statement.
            Some(since) if self.knows_changes() => {
                format!("and {} >= {since}", self.read(Kind::Time, "m.updated_at"))
            }
            _ => String::new(),
        };
        let join = if joins_offers { "left join offers o on o.id = m.offer_id" } else { "" };
        let statement = format!(
            "select {} from messages m {join} where m.id > {first} {changed} order by m.id limit {second}",
            columns.join(", ")
        );
        Ok(on_source!(self, pool => sqlx::query_as(AssertSqlSafe(statement))
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await?))
    }

    const fn placeholders(&self) -> [&'static str; 2] {
        match self.database {
            SourceDatabase::Postgres(_) => ["$1", "$2"],
            SourceDatabase::Mysql(_) => ["?", "?"],
        }
    }

    /// A column under a name, or nothing of its kind where the table lacks it.
    fn column(&self, known: &HashSet<String>, kind: Kind, prefix: &str, name: &str, shown: &str) -> String {
        let read = match (known.contains(name), kind) {
            (true, _) => self.read(kind, &format!("{prefix}{name}")),
            (false, Kind::Flag) => self.read(Kind::Integer, "0"),
            (false, kind) => self.read(kind, "null"),
        };
        format!("{read} as {shown}")
    }

    fn read(&self, kind: Kind, column: &str) -> String {
        match (&self.database, kind) {
            (SourceDatabase::Postgres(_), Kind::Integer) => format!("({column})::bigint"),
            (SourceDatabase::Postgres(_), Kind::Number) => format!("({column})::double precision"),
            (SourceDatabase::Postgres(_), Kind::Text) => format!("({column})::text"),
            (SourceDatabase::Postgres(_), Kind::Flag) => {
                format!("(case when ({column})::text in ('true', 't', '1') then 1 else 0 end)::bigint")
            }
            (SourceDatabase::Postgres(_), Kind::Time) if column == "null" => "null::bigint".into(),
            (SourceDatabase::Postgres(_), Kind::Time) => {
                format!("floor(extract(epoch from {column}) * 1000)::bigint")
            }
            (SourceDatabase::Mysql(_), Kind::Integer) => format!("cast({column} as signed)"),
            (SourceDatabase::Mysql(_), Kind::Number) => format!("({column} + 0e0)"),
            (SourceDatabase::Mysql(_), Kind::Text) => format!("cast({column} as char)"),
            (SourceDatabase::Mysql(_), Kind::Flag) => format!("cast(coalesce({column}, 0) <> 0 as signed)"),
            // From the calendar, not through the session's zone.
            (SourceDatabase::Mysql(_), Kind::Time) => format!(
                "cast(floor(timestampdiff(microsecond, '1970-01-01 00:00:00', {column}) / 1000) as signed)"
            ),
        }
    }
}
