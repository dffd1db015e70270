//! What nodes tell each other: stored events as they were made, news that is not stored, and who may have missed something.
//!
//! A stored event from another node takes the same way as one of this node, so that what follows from
//! it (delivery marks, folded news, gaps filled from the log) follows here too. Nothing depends on
//! its arrival: whatever the bus may have lost is found by comparing the streams with their logs.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edge::{CloseReason, Event};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};

use super::{
    Chat,
    events::{StoredEvent, to_json},
    live::WeakChat,
};
use crate::{
    delivery::{
        bus::{Incoming, pointed_to, pointer},
        hub::Status,
    },
    errors::Result,
    ids::{ConversationId, UserId},
    storage::log::EventKind,
};

/// How often all streams are compared with their logs while the bus works: a last event that was lost
/// has no next one that would show the gap.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);
/// While it does not, the log is all there is between nodes.
const COMPARE_INTERVAL_ALONE: Duration = Duration::from_secs(3);
/// A tick this late means that the process stood still, and may have been cut off meanwhile.
const STOOD_STILL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_secs(1);
/// While the database is away.
const RETRY: Duration = Duration::from_millis(500);
/// Users whose log heads are read in one query.
const HEADS_AT_ONCE: usize = 1000;
/// Logs read at the same time, by fewer connections than the pool has.
const LOGS_AT_ONCE: usize = 4;

/// Whose streams are to be compared with their logs.
#[derive(Debug, Default)]
pub(super) struct Behind {
    users: Mutex<HashSet<UserId>>,
    any: AtomicBool,
    noted: Notify,
}

impl Behind {
    fn note(&self, users: impl IntoIterator<Item = UserId>) {
        self.users.lock().extend(users);
        self.noted.notify_one();
    }

    /// Any of them.
    pub(super) fn note_any(&self) {
        self.any.store(true, Ordering::Release);
        self.noted.notify_one();
    }
}

/// A line on the bus, in JSON: a stored event has `s`, news that is not stored `e`, a closing `x`.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "s")]
    event_seq: Option<i64>,
    #[serde(rename = "k")]
    kind: Option<i32>,
    #[serde(rename = "c")]
    conversation: Option<ConversationId>,
    /// Of a new message, its place in the conversation and its sender.
    #[serde(rename = "m")]
    message: Option<(i64, UserId)>,
    #[serde(rename = "e")]
    name: Option<&'a str>,
    #[serde(rename = "x")]
    close_code: Option<u16>,
    #[serde(rename = "d", borrow)]
    data: Option<&'a RawValue>,
}

/// What there is to know in a `user_presence` of another node.
#[derive(Deserialize)]
struct Heard {
    user_id: UserId,
    status: Status,
}

/// An event that is not stored, for connections here and elsewhere.
pub(super) struct News {
    event: Event,
    line: Arc<str>,
}

impl News {
    pub(super) fn new(name: &'static str, data: &impl Serialize) -> Self {
        let data = to_json(data);
        Self { line: told_line(name, &data).into(), event: Event::new(name, data) }
    }
}

// Put together by hand: the data is JSON text already, and looking through it again costs more than
// all the rest.

fn stored_line(stored: &StoredEvent, conversation: ConversationId) -> String {
    let StoredEvent { event_seq, kind, message, data } = stored;
    let kind = *kind as i32;
    match message {
        Some((seq, sender)) => {
            format!(r#"{{"s":{event_seq},"k":{kind},"c":{conversation},"m":[{seq},{sender}],"d":{data}}}"#)
        }
        None => format!(r#"{{"s":{event_seq},"k":{kind},"c":{conversation},"d":{data}}}"#),
    }
}

fn told_line(name: &str, data: &str) -> String {
    format!(r#"{{"e":"{name}","d":{data}}}"#)
}

fn close_line(code: u16) -> String {
    format!(r#"{{"x":{code}}}"#)
}

impl Chat {
    /// Hands a stored event to the user's connections, here and on other nodes.
    pub(super) fn deliver(&self, user: UserId, stored: &StoredEvent, conversation: ConversationId) {
        self.hand_on(user, stored, conversation);
        self.relay(user, stored, conversation);
    }

    /// Sends a stored event to the other nodes.
    fn relay(&self, user: UserId, stored: &StoredEvent, conversation: ConversationId) {
        if self.inner.bus.reaches(user, Some(stored.event_seq)) {
            self.inner.bus.publish(user, stored_line(stored, conversation));
        }
    }

    /// Tells the other nodes how far the user's log went, instead of the events themselves.
    pub(super) fn relay_place(&self, user: UserId, event_seq: i64) {
        if self.inner.bus.reaches(user, Some(event_seq)) {
            self.inner.bus.publish(user, pointer(event_seq));
        }
    }

    /// Sends an event that is not stored to all of the user's connections, wherever they are.
    pub(super) fn tell(&self, user: UserId, news: &News) {
        self.inner.hub.emit(user, &news.event);
        if self.inner.bus.reaches(user, None) {
            self.inner.bus.publish(user, Arc::clone(&news.line));
        }
    }

    /// Closes all of a user's connections, wherever they are; `code` is for the plain dialect.
    pub fn disconnect_user(&self, user: UserId, code: u16) {
        self.inner.hub.close(user, CloseReason::Kicked(code));
        if self.inner.bus.reaches(user, None) {
            self.inner.bus.publish(user, close_line(code));
        }
    }

    fn take_line(&self, user: UserId, line: &str) {
        let hub = &self.inner.hub;
        if let Some(event_seq) = pointed_to(line) {
            if hub.delivered(user).is_some_and(|delivered| delivered < event_seq) {
                self.inner.behind.note([user]);
            }
            return;
        }
        match serde_json::from_str(line) {
            Ok(Line {
                event_seq: Some(event_seq),
                kind: Some(kind),
                conversation: Some(conversation),
                message,
                data: Some(data),
                ..
            }) if let Some(kind) = EventKind::from_stored(kind) => {
                let stored = StoredEvent { event_seq, kind, message, data: data.get().to_owned() };
                self.hand_on(user, &stored, conversation);
            }
            Ok(Line { name: Some(name), data: Some(data), .. }) => {
                if name == "user_presence"
                    && let Ok(heard) = serde_json::from_str::<Heard>(data.get())
                {
                    self.inner.presence.heard(heard.user_id, heard.status);
                }
                hub.emit(user, &Event::new(name.to_owned(), data.get().to_owned()));
            }
            Ok(Line { close_code: Some(code), .. }) => hub.close(user, CloseReason::Kicked(code)),
            // A newer version may say what this one does not know; what is to be kept is in the log.
            Ok(_) | Err(_) => self.inner.behind.note([user]),
        }
    }

    /// Reads on in the log of every one of these users whose stream is behind it.
    async fn compare_streams(&self, users: &[UserId]) -> Result<()> {
        for chunk in users.chunks(HEADS_AT_ONCE) {
            let heads = self.inner.store.log_heads(chunk).await?;
            let behind = heads.into_iter().filter(|(user, head)| {
                self.inner.hub.delivered(*user).is_some_and(|delivered| delivered < *head)
            });
            let mut reading = futures_util::stream::iter(behind)
                .map(|(user, head)| self.read_up_to(user, head))
                .buffer_unordered(LOGS_AT_ONCE);
            while let Some(read) = reading.next().await {
                read?;
            }
        }
        Ok(())
    }

    async fn read_up_to(&self, user: UserId, head: i64) -> Result<()> {
        while let Some(delivered) = self.inner.hub.delivered(user)
            && delivered < head
        {
            if !self.read_on(user, delivered).await? {
                break;
            }
        }
        Ok(())
    }
}

/// Starts to listen to other nodes, and to look into the logs where something may have been missed.
pub(super) fn start(chat: &Chat) {
    tokio::spawn(catch_up(chat.downgrade(), Arc::clone(&chat.inner.behind)));
    if let Some(incoming) = chat.inner.bus.incoming() {
        tokio::spawn(listen(chat.downgrade(), incoming));
        tokio::spawn(compare_now_and_then(chat.downgrade()));
    }
}

async fn listen(weak: WeakChat, mut incoming: mpsc::Receiver<Incoming>) {
    while let Some(incoming) = incoming.recv().await {
        let Some(chat) = Chat::upgrade(&weak) else { return };
        match incoming {
            Incoming::News { user, lines } => lines.iter().for_each(|line| chat.take_line(user, line)),
            Incoming::Missed(users) => chat.inner.behind.note(users),
            Incoming::MissedAny => chat.inner.behind.note_any(),
        }
    }
}

async fn catch_up(weak: WeakChat, behind: Arc<Behind>) {
    loop {
        behind.noted.notified().await;
        let Some(chat) = Chat::upgrade(&weak) else { return };
        let any = behind.any.swap(false, Ordering::AcqRel);
        let users: Vec<UserId> = std::mem::take(&mut *behind.users.lock()).into_iter().collect();
        let users = if any { chat.inner.hub.users() } else { users };
        if chat.compare_streams(&users).await.is_err() {
            // The database is away; look again.
            behind.note(users);
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn compare_now_and_then(weak: WeakChat) {
    let mut compared = Instant::now();
    loop {
        let slept = Instant::now();
        tokio::time::sleep(TICK).await;
        let Some(chat) = Chat::upgrade(&weak) else { return };
        let stood_still = slept.elapsed() >= TICK + STOOD_STILL;
        if stood_still {
            tracing::warn!(
                duration_ms = u64::try_from(slept.elapsed().as_millis()).unwrap_or(u64::MAX),
                "the process stood still; what was missed is looked for"
            );
        }
        let interval = if chat.inner.bus.is_up() { COMPARE_INTERVAL } else { COMPARE_INTERVAL_ALONE };
        if stood_still || compared.elapsed() >= interval {
            compared = Instant::now();
            chat.inner.behind.note_any();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_what_they_were() {
        let (user, conversation) = (UserId(9), ConversationId(3));
        let data = r#"{"a":[1,"x\ny"]}"#.to_owned();
        let stored =
            StoredEvent { event_seq: 7, kind: EventKind::MessageReceived, message: Some((2, user)), data };
        let line = stored_line(&stored, conversation);
        assert!(!line.contains('\n'), "a line of the bus");
        let read: Line<'_> = serde_json::from_str(&line).expect("a line");
        assert_eq!((read.event_seq, read.kind, read.conversation), (Some(7), Some(1), Some(conversation)));
        assert_eq!(
            (read.message, read.data.map(RawValue::get)),
            (Some((2, user)), Some(stored.data.as_str()))
        );

        let receipt = StoredEvent { kind: EventKind::MessageRead, message: None, ..stored };
        let line = stored_line(&receipt, conversation);
        let read: Line<'_> = serde_json::from_str(&line).expect("a line");
        assert_eq!((read.kind, read.message), (Some(6), None));

        let line = told_line("user_typing", "{}");
        let read: Line<'_> = serde_json::from_str(&line).expect("a line");
        assert_eq!((read.name, read.data.map(RawValue::get)), (Some("user_typing"), Some("{}")));
        let line = close_line(4401);
        let read: Line<'_> = serde_json::from_str(&line).expect("a line");
        assert_eq!(read.close_code, Some(4401));
    }

    #[test]
    fn a_pointer_is_no_line_of_json() {
        assert_eq!(pointed_to(&pointer(12)), Some(12));
        assert_eq!(pointed_to(&close_line(4401)), None);
        assert_eq!(pointed_to("@x"), None);
    }
}
