//! Every rule, once: what a user may do and see, on whichever transport.
//!
//! The only caller of `storage`; publishes after the commit. `http` and `socket` decode, call one
//! method here and encode. Each file is one capability; background work is in `tasks`.

mod blocks;
mod changes;
mod conversations;
mod devices;
mod edit;
mod erase;
pub mod events;
mod export;
mod files;
mod fold;
mod indexing;
mod input;
mod jobs;
mod live;
mod pages;
mod preferences;
mod presence;
mod reactions;
mod reading;
mod receipts;
mod reconcile;
mod relay;
mod search;
mod send;
mod service_calls;
mod tasks;
mod typing;
pub mod views;
mod webhooks;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Clock,
    delivery::{bus::Bus, hub::Hub, leases::Leases},
    files::Files,
    identity::Directory,
    ids::{ConversationId, UserId},
    limits::Limits,
    notify::Notifier,
    shared::Redis,
    storage::Store,
};

pub use blocks::{BlockAnswer, BlockView};
pub use conversations::MuteConversation;
pub use devices::{DeviceView, ForgetDevice, RegisterDevice};
pub use edit::{EditMessage, parse_message};
pub use erase::EraseAnswer;
pub use export::Export;
pub use files::UploadPermit;
pub use input::{Fields, MAX_IDS, MarkRead, SendMessage};
pub use live::{Since, Subscribed, parse_conversation, parse_status};
pub use pages::RenderedPage;
pub use preferences::{PreferencesView, PutPreferences};
pub use presence::PresenceView;
pub use reactions::{ReactionAction, ReactionAnswer, parse_emoji, parse_reaction};
pub use reading::{Page, PageRequest};
pub use receipts::ReadAnswer;
pub use reconcile::Reconciled;
pub use search::{SearchHit, SearchMessages};
pub use send::{MessageSent, PendingSend, SentMessage};
pub use service_calls::PostMessage;
pub use typing::parse_typing;
pub use webhooks::{DeadWebhook, ReplayAnswer, WebhookBody};
use writer::Writers;

/// What the rules need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a statement or a batch may take.
    pub db_timeout: Duration,
    /// `MAX_CONNECTIONS_PER_USER`.
    pub max_connections_per_user: usize,
    /// How long the users' logs are kept.
    pub event_retention: Duration,
    /// How long a message may be edited.
    pub edit_window: Duration,
}

/// The service's rules and state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chat {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    hub: Arc<Hub>,
    bus: Bus,
    redis: Option<Redis>,
    directory: Directory,
    limits: Limits,
    files: Files,
    clock: Clock,
    settings: Settings,
    /// Set once, right after the rest: the writers publish through what they are part of.
    writers: OnceLock<Writers>,
    /// Users whose stream is being mended from the log.
    mending: Mutex<HashSet<UserId>>,
    /// Told when the log may have gone further than was published.
    uncertain: Arc<Notify>,
    /// Told whose streams may be behind their logs.
    behind: Arc<relay::Behind>,
    fold: fold::Fold,
    indexing: Arc<indexing::Indexing>,
    heads: live::Heads,
    pages: pages::Pages,
    /// Messages that reached a live connection and are not yet marked as delivered.
    reached: Mutex<HashMap<(ConversationId, UserId), i64>>,
    presence: presence::Presence,
    typing: typing::Typing,
    /// Told that there is work for `jobs`.
    has_jobs: Arc<Notify>,
    /// Set where somebody is to be notified at all.
    notifier: OnceLock<Notifier>,
}

impl Chat {
    /// Starts the rules of a node that is alone, with their writers and background tasks, which end
    /// when the last clone is gone.
    pub fn start(
        store: Store,
        directory: Directory,
        limits: Limits,
        files: Files,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        Self::start_shared(None, Bus::InProcess, store, directory, limits, files, clock, settings)
    }

    /// The same beside other nodes: `bus` leads to them over `redis`.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the service, named at the one call")]
    pub fn start_shared(
        redis: Option<Redis>,
        bus: Bus,
        store: Store,
        directory: Directory,
        limits: Limits,
        files: Files,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let chat = Self {
            inner: Arc::new(Inner {
                bus,
                behind: Arc::default(),
                heads: live::Heads::start(store.clone()),
                pages: pages::Pages::default(),
                hub: Arc::default(),
                directory,
                limits,
                files,
                clock,
                writers: OnceLock::new(),
                mending: Mutex::default(),
                uncertain: Arc::default(),
                fold: fold::Fold::default(),
                indexing: Arc::default(),
                reached: Mutex::default(),
                presence: presence::Presence::new(redis.as_ref().map(Leases::new)),
                redis,
                typing: typing::Typing::default(),
                has_jobs: Arc::default(),
                notifier: OnceLock::new(),
                store,
                settings,
            }),
        };
        let weak = chat.downgrade();
        let publish = move |committed: writer::Committed| {
            let weak = weak.clone();
            async move {
                match Self::upgrade(&weak) {
                    Some(chat) => chat.publish(committed).await,
                    None => committed.answer(&writer::Rendered::new()),
                }
            }
        };
        let inner = &chat.inner;
        let writers = Writers::start(&inner.store, inner.settings.db_timeout, publish, &inner.uncertain);
        inner.writers.set(writers).expect("set once");
        tasks::start(&chat);
        relay::start(&chat);
        jobs::start(&chat);
        chat
    }

    fn writers(&self) -> &Writers {
        self.inner.writers.get().expect("set in `start`")
    }

    /// Messages and marks that wait for a writer.
    pub fn queued(&self) -> usize {
        self.writers().queued()
    }

    /// The database, for health checks and settings.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What is known of users and products.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// The local connections.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// Tells this notifier from now on what is stored and read; only the first one counts.
    pub fn notify_through(&self, notifier: Notifier) {
        let _ = self.inner.notifier.set(notifier);
    }

    /// Who notifies people, if anybody does.
    pub fn notifier(&self) -> Option<&Notifier> {
        self.inner.notifier.get()
    }
}
