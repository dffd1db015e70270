//! Webhooks out: tells the main API what happened, signed as Standard Webhooks describes.
//!
//! Events wait in the database (`storage::webhooks`), written by the transactions that caused them.
//! Here is what takes them out: a worker for each target, on every node, and a keeper that gives up
//! what is too old. What an event says is put together in `chat::webhooks`.

mod keeper;
mod schedule;
mod signature;
mod worker;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    chat::Chat,
    clock::Clock,
    config::{self, ConfigError},
    shared::outbound::{NoCertificates, Outbound, OutboundOptions},
    storage::webhooks::Outbox,
};

use self::{schedule::Schedule, signature::Signer, worker::Worker};

/// An answer's status and headers are what counts; more of its body than this is not waited for.
const MAX_ANSWER: usize = 64 * 1024;

/// What is to be written under this configuration; `None` where no webhooks are configured.
pub fn outbox(config: &config::Webhooks) -> Option<Arc<Outbox>> {
    let urls: Vec<String> = config.urls.iter().map(ToString::to_string).collect();
    (!urls.is_empty()).then(|| Arc::new(Outbox::new(config.events.clone(), urls)))
}

/// The workers of this node. They end with it.
#[derive(Debug)]
pub struct Webhooks {
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Webhooks {
    /// Starts to deliver what the outbox of the chat's store holds; nothing if there is none.
    pub fn start(chat: &Chat, config: &config::Webhooks, clock: &Clock) -> Result<Self, ConfigError> {
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(outbox) = chat.store().outbox() {
            let options = OutboundOptions {
                allow_private: config.allow_private,
                timeout: config.timeout,
                max_answer: MAX_ANSWER,
                needs_tls: config.urls.iter().any(|url| url.scheme() == "https"),
            };
            let outbound = Outbound::new(options).map_err(|NoCertificates| {
                ConfigError::new("WEBHOOK_URL", "is https, but this machine has no usable CA certificates.")
            })?;
            let signer = Arc::new(Signer::new(&config.keys));
            for (index, url) in config.urls.iter().enumerate() {
                outbound.check(url).map_err(|_| {
                    ConfigError::new(
                        "WEBHOOK_URL",
                        "names a private address: set WEBHOOK_ALLOW_PRIVATE=true to allow it.",
                    )
                })?;
                let worker = Worker {
                    chat: chat.clone(),
                    outbox: Arc::clone(outbox),
                    index,
                    url: url.clone(),
                    outbound: outbound.clone(),
                    signer: Arc::clone(&signer),
                    schedule: Schedule::new(config.retry_base, config.max_attempts),
                    include_text: config.include_text,
                    timeout: config.timeout,
                    clock: clock.clone(),
                    stopped: stopped.clone(),
                };
                tasks.spawn(worker.run());
            }
            tasks.spawn(keeper::run(chat.clone(), Arc::clone(outbox), clock.clone(), stopped));
        }
        Ok(Self { tasks, stopping })
    }

    /// Begins no more deliveries and waits for those under way, within `patience`. What is cut off is
    /// delivered once more, by whoever finds its lease over.
    pub async fn stop(mut self, patience: Duration) {
        self.stopping.send_replace(true);
        let ended = tokio::time::timeout(patience, async { while self.tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}
