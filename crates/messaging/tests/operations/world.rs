//! `Chat` over a throw-away database, a main API that is away, and a clock that stands still.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edge::{CloseReason, Event};
use messaging::{
    chat::{Chat, PageRequest, SendMessage, Settings, Since, views::ConversationView},
    clock::Clock,
    config::Config,
    delivery::receiver::Receiver,
    errors::{Error, Result},
    files::{Files, FilesOptions, Signer},
    identity::{Caller, Directory, MainApi, Token, UserProfile},
    ids::{ConversationId, MessageId, UserId},
    limits::{self, Limits},
    storage::{Store, log::EventKind, messages::Window},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{START, TestDatabase};

pub(crate) const ANNA: UserId = UserId(1);
pub(crate) const BEN: UserId = UserId(2);
pub(crate) const CLEO: UserId = UserId(3);
/// How long a message may be edited here.
pub(crate) const EDIT_WINDOW: Duration = Duration::from_secs(900);

const NO_LIMITS: limits::Settings =
    limits::Settings { messages: 0, burst: 0, typing: 0, reads: 0, uploads: 0, conversations: 0 };

pub(crate) struct World {
    pub(crate) chat: Chat,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) database: TestDatabase,
    _uploads: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(database: TestDatabase) -> Self {
        let clock = Clock::manual(START);
        let store = database.store(&clock).await;
        // Nobody listens on the discard port: names stay unknown, nothing is waited for.
        let vars = HashMap::from([("MAIN_API_URL".to_owned(), "http://127.0.0.1:9".to_owned())]);
        let config = Config::from_env(vars).unwrap();
        let main_api = MainApi::new(config.main_api_url().unwrap(), &config.main_api, clock.clone()).unwrap();
        let directory = Directory::new(store.clone(), main_api, Duration::from_secs(3600), clock.clone());
        let settings = Settings {
            db_timeout: Duration::from_secs(20),
            max_connections_per_user: 20,
            event_retention: Duration::from_secs(86_400),
            edit_window: EDIT_WINDOW,
        };
        let limits = Limits::new(&NO_LIMITS, clock.clone());
        let uploads = tempfile::tempdir().unwrap();
        let options = FilesOptions {
            location: uploads.path().join("files").to_string_lossy().into_owned(),
            temporary_dir: uploads.path().join("incoming"),
            max_file_size: 1_000_000,
            quota: 0,
        };
        let signer = Signer::new(b"a key of the tests", None, Duration::from_secs(60));
        let files = Files::open(&options, signer, clock.clone()).unwrap();
        let chat = Chat::start(store.clone(), directory, limits, files, clock.clone(), settings);
        Self { chat, store, clock, database, _uploads: uploads }
    }

    /// Anna writes to Ben; answers the conversation and the message.
    pub(crate) async fn first_message(&self, words: &str) -> (ConversationId, MessageId) {
        let id = self.send(ANNA, json!({"receiver_id": BEN, "content": words})).await.unwrap();
        (self.store.message(id).await.unwrap().unwrap().conversation_id, id)
    }

    pub(crate) async fn send(&self, from: UserId, body: Value) -> Result<MessageId> {
        let request = SendMessage::parse(&body.to_string())?;
        Ok(self.chat.send_message(&caller(from), request).await?.stored().await?.id)
    }

    pub(crate) async fn say(&self, from: UserId, to: ConversationId, words: &str) -> MessageId {
        self.send(from, json!({"conversation_id": to, "content": words})).await.unwrap()
    }

    /// A message as the user sees it in the history.
    pub(crate) async fn seen(&self, user: UserId, conversation: ConversationId, id: MessageId) -> Value {
        let history = self.history(user, conversation).await;
        history.into_iter().find(|message| message["id"] == json!(id)).expect("the message is in the history")
    }

    pub(crate) async fn history(&self, user: UserId, conversation: ConversationId) -> Vec<Value> {
        let page =
            self.chat.list_messages(&caller(user), conversation, Window::After(0), 1000).await.unwrap();
        page.items.iter().map(|message| serde_json::to_value(message).unwrap()).collect()
    }

    pub(crate) async fn conversation(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<ConversationView> {
        self.chat.get_conversation(&caller(user), conversation).await
    }

    pub(crate) async fn list(&self, user: UserId, archived: bool) -> Vec<ConversationId> {
        let request = PageRequest { page: 1, limit: 100 };
        let page = self.chat.list_conversations(&caller(user), archived, request).await.unwrap();
        page.items.iter().map(|conversation| conversation.id).collect()
    }

    /// What the user's log has after `since`: event names and data. Without deliveries: looking at a
    /// history or a log delivers it, a moment later.
    pub(crate) async fn log(&self, user: UserId, since: i64) -> Vec<(&'static str, Value)> {
        let stretch = self.chat.sync(user, since, 10_000).await.unwrap();
        let events = stretch.events.iter();
        events
            .filter(|event| event.kind != EventKind::MessageDelivered)
            .map(|event| (event.kind.name(), serde_json::from_str(&event.data).unwrap()))
            .collect()
    }

    /// The newest place in each of the two logs.
    pub(crate) async fn heads(&self) -> [i64; 2] {
        let heads = self.store.log_heads(&[ANNA, BEN]).await.unwrap();
        [heads[&ANNA], heads[&BEN]]
    }

    /// Asserts that each of the two logs has grown by exactly these events.
    pub(crate) async fn assert_news(&self, heads: [i64; 2], expected: [&[&str]; 2]) {
        for (user, (head, expected)) in [ANNA, BEN].into_iter().zip(heads.into_iter().zip(expected)) {
            let names: Vec<_> = self.log(user, head).await.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, expected, "the log of user {user}");
        }
    }

    /// A live connection of the user that notes what it is sent.
    pub(crate) async fn connect(&self, user: UserId) -> Recorder {
        let recorder = Recorder::default();
        self.chat.subscribe(user, &recorder, Since::Now, || {}).await.unwrap();
        recorder
    }
}

/// The texts that a query past the store finds.
pub(crate) async fn texts(database: &TestDatabase, query: &'static str) -> Vec<String> {
    if database.url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
    }
}

pub(crate) fn caller(user_id: UserId) -> Caller {
    Caller {
        user_id,
        profile: Arc::new(UserProfile::unknown(user_id)),
        token: Token::parse("7|test").unwrap(),
        expires_at: START.plus(Duration::from_secs(86_400)),
    }
}

pub(crate) fn code<T>(outcome: Result<T>) -> &'static str {
    outcome.err().as_ref().map_or("no error", Error::code)
}

/// The field that a refusal is about.
pub(crate) fn refused_field<T>(outcome: Result<T>) -> String {
    match outcome {
        Err(Error::Validation(fields)) => fields.into_keys().next().unwrap_or_default().into_owned(),
        Err(other) => panic!("another refusal: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Notes the names of the events that a connection is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    names: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// How often an event came so far.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.names.lock().iter().filter(|one| *one == name).count()
    }

    /// The events with a place in the log, in the order they came; deliveries left out.
    pub(crate) fn stored(&self) -> Vec<String> {
        let is_stored = |name: &&String| {
            (name.starts_with("message_") && *name != "message_delivered") || *name == "conversation_updated"
        };
        self.names.lock().iter().filter(is_stored).cloned().collect()
    }

    /// Waits until an event has come so often.
    pub(crate) async fn wait_for(&self, name: &str, times: usize) {
        for _ in 0..500 {
            if self.count(name) >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} did not come {times} times within five seconds: {:?}", self.names.lock());
    }
}

impl Receiver for Recorder {
    fn id(&self) -> u64 {
        Arc::as_ptr(&self.names).addr() as u64
    }

    fn emit(&self, event: &Event) {
        self.names.lock().push(event.name().to_owned());
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn close(&self, _reason: CloseReason) {}
}
