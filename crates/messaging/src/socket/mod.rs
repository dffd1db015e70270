//! The live door: client events in, one call to `chat` each, acks and errors out.
//!
//! Both dialects come through here (contract section 4); how they look on the wire is the edge's.

mod commands;
mod hello;
mod revalidation;
mod session;

use std::sync::Arc;

use edge::{
    BoxFuture, Client, ClientEvent, CloseReason, Event, Handled, Handler, Hello, Malformed, Refusal, Reply,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    chat::{
        Chat, EditMessage, Fields, MarkRead, PendingSend, SendMessage, Since,
        events::{event, raw, to_json},
        parse_conversation, parse_message, parse_reaction, parse_status, parse_typing,
    },
    clock::Clock,
    context::Context,
    errors::{Error, Result},
    identity::{Caller, Cut, Identity, Reason},
    ids::UserId,
    metrics,
    traces::{Parent, Side, Span},
};
pub use commands::Command;
use hello::Introduction;
use revalidation::Revalidation;
pub use session::Session;
use session::Turn;

/// Close codes of the plain dialect, in the range left to applications.
const CLOSE_UNAUTHENTICATED: u16 = 4401;
const CLOSE_FORBIDDEN: u16 = 4403;
const CLOSE_TOO_MANY: u16 = 4429;
/// RFC 6455: try again later.
const CLOSE_TRY_AGAIN: u16 = 1013;
/// Entries a `sync` event answers with, unless it asks for fewer or more.
const SYNC_LIMIT: i64 = 100;
const SYNC_MAX: i64 = 500;

/// The handler of all live connections.
pub struct Socket {
    chat: Chat,
    identity: Identity,
    revalidation: Revalidation,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    /// A handler whose connections are validated again when their tokens' time is over.
    pub fn start(chat: Chat, identity: Identity, clock: Clock) -> Arc<Self> {
        let socket = Arc::new(Self { chat, identity, revalidation: Revalidation::new(clock) });
        revalidation::start(&socket);
        let weak = Arc::downgrade(&socket);
        socket.identity.on_cut(move |cut| {
            if let Some(socket) = weak.upgrade() {
                socket.cut(cut);
            }
        });
        socket
    }

    /// Closes connections whose tokens are no longer to be trusted.
    fn cut(self: Arc<Self>, cut: Cut) {
        match cut {
            Cut::User(user, reason) => {
                let (error, code) = match reason {
                    Reason::Ban => {
                        (Error::Forbidden("This account may not be used.".into()), CLOSE_FORBIDDEN)
                    }
                    Reason::Logout | Reason::Refresh => (Error::Unauthenticated, CLOSE_UNAUTHENTICATED),
                };
                let told = json!({"message": error.message(), "code": error.code()});
                self.chat.hub().emit(user, &event("error", &told));
                self.chat.hub().close(user, CloseReason::Kicked(code));
            }
            // Whose it is may not be known; then every connection here is asked, off the async threads.
            Cut::Token(forgotten, user) => drop(tokio::task::spawn_blocking(move || {
                let cut = self.revalidation.find(|client| {
                    client.session().caller().is_some_and(|caller| {
                        user.is_none_or(|user| caller.user_id == user)
                            && self.identity.is_forgotten(&caller.token, forgotten)
                    })
                });
                for client in cut {
                    refuse(&client, &Error::Unauthenticated, None, "");
                    client.close(CloseReason::Kicked(CLOSE_UNAUTHENTICATED));
                }
            })),
        }
    }

    /// Authenticates a connection and lets it take part.
    async fn admit(&self, client: &Client<Self>, token: &str, since: Since) -> Result<()> {
        let forgettings = self.identity.forgettings();
        let caller = self.identity.authenticate(token).await?;
        if !client.session().claim(&caller) {
            return Self::admit_again(client, &caller);
        }
        let subscribed = self
            .chat
            .subscribe(caller.user_id, client, since, || {
                client.set_authenticated();
                client.emit(&greeting(&caller));
            })
            .await;
        if let Err(error) = subscribed {
            client.session().release();
            return Err(error);
        }
        self.revalidation.watch(client, caller.expires_at);
        if self.identity.forgettings() != forgettings {
            // Somebody was cut while this one came in, and it may have been meant.
            self.admit_still(client, token, &caller).await?;
        }
        Ok(())
    }

    async fn admit_still(&self, client: &Client<Self>, token: &str, caller: &Caller) -> Result<()> {
        let error = match self.identity.authenticate(token).await {
            Ok(again) if again.user_id == caller.user_id => return Ok(()),
            Ok(_) => Error::Unauthenticated,
            Err(error) => error,
        };
        self.revalidation.forget(client.id());
        self.chat.unsubscribe(caller.user_id, client.id());
        client.session().release();
        Err(error)
    }

    /// The same user again is answered; another user is refused (contract 4.2).
    fn admit_again(client: &Client<Self>, caller: &Caller) -> Result<()> {
        if client.session().user_id() == Some(caller.user_id) {
            client.emit(&greeting(caller));
            return Ok(());
        }
        Err(Error::Forbidden("This connection belongs to another user.".into()))
    }

    async fn take(&self, client: &Client<Self>, command: Option<Command>, data: &str) -> Result<Value> {
        if command == Some(Command::Authenticate) {
            let Introduction { token, since } = Introduction::parse(data)?;
            self.admit(client, &token.ok_or(Error::Unauthenticated)?, since).await?;
            let caller = client.session().caller().ok_or(Error::Unauthenticated)?;
            return Ok(json!({"user_id": caller.user_id, "user": caller.profile}));
        }
        let caller = client.session().caller().ok_or(Error::Unauthenticated)?;
        let (user, connection) = (caller.user_id, client.id());
        let command = command.ok_or(Error::BadRequest("There is no such event.".into()))?;
        match command {
            Command::JoinConversation => {
                self.chat.join_conversation(user, connection, parse_conversation(data)?).await?;
            }
            Command::LeaveConversation => {
                self.chat.leave_conversation(user, connection, parse_conversation(data)?);
            }
            Command::Typing => {
                let (conversation, is_typing) = parse_typing(data)?;
                self.chat.set_typing(user, connection, conversation, is_typing).await?;
            }
            Command::MarkRead => return Ok(json!(self.chat.mark_read(user, MarkRead::parse(data)?).await?)),
            Command::MarkDelivered => {
                let message_ids = self.chat.mark_delivered(user, MarkRead::parse(data)?).await?;
                return Ok(json!({"message_ids": message_ids}));
            }
            Command::EditMessage => {
                let (id, request) = EditMessage::parse_event(data)?;
                return Ok(json!(self.chat.edit_message(&caller, id, request).await?));
            }
            Command::DeleteMessage => self.chat.delete_message(&caller, parse_message(data)?).await?,
            Command::AddReaction => {
                let (id, emoji) = parse_reaction(data)?;
                return Ok(json!(self.chat.add_reaction(&caller, id, emoji).await?));
            }
            Command::RemoveReaction => {
                let (id, emoji) = parse_reaction(data)?;
                self.chat.remove_reaction(&caller, id, emoji).await?;
            }
            Command::PresenceUpdate => self.chat.update_presence(user, connection, parse_status(data)?),
            Command::Sync => return self.sync(client, user, data).await,
            // Taken before they come here: one needs no caller, the other goes its own way.
            Command::Authenticate | Command::SendMessage => {}
        }
        Ok(json!({}))
    }

    /// What was missed comes as events before the ack (contract section 7).
    async fn sync(&self, client: &Client<Self>, user: UserId, data: &str) -> Result<Value> {
        let mut fields = Fields::parse(data)?;
        let limit = fields.id("limit").unwrap_or(SYNC_LIMIT).min(SYNC_MAX);
        let since = hello::since_of(&mut fields);
        match fields.finish(Some(since))? {
            Since::Now => {
                let last_event_seq = self.chat.last_event_seq(user).await?;
                Ok(json!({"last_event_seq": last_event_seq, "has_more": false}))
            }
            Since::Seq(since) => {
                let part = self.chat.sync(user, since, limit).await?;
                for stored in part.events {
                    client.emit(&Event::new(stored.kind.name(), stored.data));
                }
                Ok(json!({"last_event_seq": part.last_event_seq, "has_more": part.has_more}))
            }
        }
    }

    /// A message is queued here and now, in the order sent; its confirmation comes after the commit.
    async fn send(&self, client: &Client<Self>, taken: &ClientEvent) -> Result<(PendingSend, Turn)> {
        let caller = client.session().caller().ok_or(Error::Unauthenticated)?;
        let pending = self.chat.send_message(&caller, SendMessage::parse(taken.data())?).await?;
        Ok((pending, client.session().take_turn()))
    }
}

/// The confirmation of a message, once it is stored and those before it are confirmed.
fn confirm(
    client: &Client<Socket>,
    taken: ClientEvent,
    (pending, turn): (PendingSend, Turn),
    span: Span,
) -> BoxFuture<'static, Option<Reply>> {
    let client = client.clone();
    let data = taken.data().to_owned();
    Box::pin(context(&client, span.place(None)).scope(async move {
        let outcome = pending.stored().await;
        // Two writers may commit in another order than this connection sent.
        let _turn = turn.come().await;
        metrics::get().live_event(Command::SendMessage.name(), &outcome);
        finish(span, &client, &outcome);
        Some(match outcome {
            Ok(sent) => {
                client.emit(&event("message_sent", &sent.to_message_sent()));
                accepted(&raw(&*sent.json))
            }
            Err(error) => refuse(&client, &error, Some("send_message"), &data),
        })
    }))
}

/// Work for this connection.
fn context(client: &Client<Socket>, trace: Option<Parent>) -> Context {
    Context { request_id: None, connection_id: Some(client.id()), trace }
}

/// Says in its span what an event came to.
fn finish<T>(mut span: Span, client: &Client<Socket>, outcome: &Result<T>) {
    span.set_number("connection.id", client.id());
    span.set("outcome", outcome.as_ref().map_or_else(Error::code, |_| "ok"));
    if matches!(outcome, Err(Error::Internal(_))) {
        span.fail();
    }
}

impl Handler for Socket {
    type Session = Session;

    fn connect<'a>(&'a self, client: &'a Client<Self>, hello: Hello) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(context(client, None).scope(async move {
            let introduction = Introduction::of(&hello).map_err(|error| refusal(&error))?;
            // Without a token the client has some time to `authenticate`.
            let Some(token) = introduction.token else { return Ok(()) };
            self.admit(client, &token, introduction.since).await.map_err(|error| {
                log_internal(&error);
                refusal(&error)
            })
        }))
    }

    fn event<'a>(&'a self, client: &'a Client<Self>, taken: ClientEvent) -> BoxFuture<'a, Handled> {
        let command = Command::parse(&taken.name);
        let name = command.map_or("unknown", Command::name);
        let span = Span::start(Side::Server, None, || format!("event {name}").into());
        Box::pin(context(client, span.place(None)).scope(async move {
            let outcome = match command {
                Some(Command::SendMessage) => match self.send(client, &taken).await {
                    Ok(pending) => return Handled::Later(confirm(client, taken, pending, span)),
                    Err(error) => Err(error),
                },
                command => self.take(client, command, taken.data()).await,
            };
            metrics::get().live_event(name, &outcome);
            finish(span, client, &outcome);
            Handled::Done(Some(match outcome {
                Ok(data) => accepted(&data),
                Err(error) => refuse(client, &error, Some(&taken.name), taken.data()),
            }))
        }))
    }

    fn may_overlap(&self, name: &str) -> bool {
        name == Command::SendMessage.name()
    }

    fn malformed(&self, client: &Client<Self>, problem: Malformed) {
        refuse(client, &Error::BadRequest(problem.to_string().into()), None, "");
    }

    fn unauthenticated(&self, client: &Client<Self>) {
        refuse(client, &Error::Unauthenticated, None, "");
    }

    fn disconnected(&self, client: &Client<Self>, _reason: CloseReason) {
        self.revalidation.forget(client.id());
        if let Some(user) = client.session().user_id() {
            self.chat.unsubscribe(user, client.id());
        }
    }
}

fn greeting(caller: &Caller) -> Event {
    event("authenticated", &json!({"user_id": caller.user_id, "user": caller.profile}))
}

/// Every ack is exactly one object (contract 4.1).
fn accepted(data: &impl Serialize) -> Reply {
    #[derive(Serialize)]
    struct Accepted<'a, T> {
        success: bool,
        data: &'a T,
    }
    Reply::json(to_json(&Accepted { success: true, data }))
}

/// A refusal is told by an `error` event in every case, and by the ack where one was asked for.
fn refuse(client: &Client<Socket>, error: &Error, name: Option<&str>, data: &str) -> Reply {
    log_internal(error);
    let message = error.message();
    let mut told = json!({"message": message, "code": error.code()});
    if let Some(name) = name {
        told["event"] = json!(name);
    }
    // What the client said it was about, so that it can find the message that failed.
    if let Ok(Value::Object(asked)) = serde_json::from_str(data) {
        if let Some(id) = asked.get("client_message_id").filter(|id| is_short(id)) {
            told["client_message_id"] = id.clone();
        }
        if let Some(id) = asked.get("conversation_id").filter(|id| id.is_number()) {
            told["conversation_id"] = id.clone();
        }
    }
    client.emit(&event("error", &told));
    let refused = json!({
        "success": false,
        "error": {"code": error.code(), "message": message, "retryable": error.retryable()},
    });
    Reply::json(refused.to_string())
}

fn is_short(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() <= 256)
}

fn refusal(error: &Error) -> Refusal {
    let close_code = match error {
        Error::Unauthenticated => CLOSE_UNAUTHENTICATED,
        Error::RateLimited(_) => CLOSE_TOO_MANY,
        Error::Validation(_) | Error::BadRequest(_) | Error::Forbidden(_) => CLOSE_FORBIDDEN,
        _ => CLOSE_TRY_AGAIN,
    };
    Refusal { close_code, ..Refusal::new(error.code(), error.message().into_owned()) }
}

fn log_internal(error: &Error) {
    if let Error::Internal(source) = error {
        tracing::error!(error = %source, "a live request failed");
    }
}
