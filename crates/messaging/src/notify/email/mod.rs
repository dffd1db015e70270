//! E-mail about messages that stay unread: one mail a person, one conversation at most once until it is read.
//!
//! `sweep` finds who is to be mailed and claims it in the database, `sender` writes the claimed mails
//! (`templates`, `compose`) and hands them over (`smtp`), `unsubscribe` is the way out. Nothing here is on
//! the way of a message; docs/email.md says when a mail is sent. The SQL is in `storage::emails`.

mod compose;
mod sender;
mod smtp;
mod sweep;
mod templates;
mod text;
mod unsubscribe;

use std::{sync::Arc, time::Duration};

use lettre::message::Mailbox;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

pub use templates::Templates;
pub use unsubscribe::Unsubscriptions;

use self::{smtp::Smtp, unsubscribe::Links};
use crate::{
    clock::Clock,
    config::{self, ConfigError},
    identity::Directory,
    storage::{Store, StoreError, sweeps::Sweep},
};

/// Between two looks for something to do: a thirtieth of the delay, within these.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Why mails cannot be sent from the start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The database does not answer.
    Database(StoreError),
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Database(error)
    }
}

/// Mails about unread messages, going on in the background.
#[derive(Debug)]
pub struct Emails {
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What both tasks need.
#[derive(Debug)]
struct Inner {
    store: Store,
    directory: Directory,
    clock: Clock,
    /// What this process calls itself in claims.
    node: i64,
    delay: Duration,
    interval: Duration,
    from: Mailbox,
    app_url: String,
    public_url: String,
    templates: Arc<Templates>,
    links: Links,
    smtp: Smtp,
    smtp_timeout: Duration,
    /// There may be mails to send.
    claimed: Notify,
}

impl Emails {
    /// Starts to look for unread messages, of all that are sent from the first start on. `key` is the one
    /// that all nodes sign links with.
    pub async fn start(
        config: &config::Email,
        templates: Arc<Templates>,
        key: &[u8],
        store: Store,
        directory: Directory,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let inner = Arc::new(Inner {
            store,
            directory,
            clock,
            node: rand::random(),
            delay: config.delay,
            interval: (config.delay / 30).clamp(INTERVAL_MIN, INTERVAL_MAX),
            from: config.from.clone(),
            app_url: config.app_url.clone(),
            public_url: config.public_url.clone(),
            templates,
            links: Links::new(key),
            smtp: Smtp::new(&config.smtp, config.timeout, config.from.email.domain())?,
            smtp_timeout: config.timeout,
            claimed: Notify::new(),
        });
        inner.store.begin_sweep(Sweep::Email).await?;
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(sweep::run(Arc::clone(&inner), stopped.clone()));
        tasks.spawn(sender::run(inner, stopped));
        Ok(Self { stopping, tasks })
    }

    /// Begins nothing new and waits for what is under way, though not for longer than `patience`: a mail
    /// that is cut off then is another node's when its lease is over.
    pub async fn stop(mut self, patience: Duration) {
        let _ = self.stopping.send(true);
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, ending).await.is_err() {
            tracing::warn!("mails that were being sent are cut off; they are tried again");
        }
    }
}

/// A random name for a mail.
fn new_claim() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
