//! Random sequences of operations by two users, each on two devices, against a simple model: at the end
//! histories, counters, flags and logs say the same, and so does a client that replays its log.

use std::{collections::BTreeMap, time::Duration};

use messaging::{
    chat::{EditMessage, MarkRead, MuteConversation},
    content::Emoji,
    errors::{Error, Result},
    ids::{ConversationId, MessageId, UserId},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    support::{Backend, TestDatabase},
    world::{ANNA, BEN, EDIT_WINDOW, Recorder, World, caller},
};

const WORDS: [&str; 4] = ["yes", "no", "perhaps", "Straße"];
const EMOJI: [&str; 3] = ["👍", "❤️", "👩🏽‍🚀"];

/// Something that one of the two does; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Operation {
    Send { words: usize, replies_to: Option<usize> },
    Edit { message: usize, words: usize },
    Delete { message: usize },
    React { message: usize, emoji: usize, add: bool },
    ReadAll,
    ReadUpTo { message: usize },
    ReadSome { messages: Vec<usize> },
    Archive { archived: bool },
    Mute { muted: bool },
    DeleteConversation,
    Block { blocks: bool },
    Wait { seconds: u64 },
}

fn operations() -> impl Strategy<Value = Vec<(bool, Operation)>> {
    let place = 0..64_usize;
    let operation = prop_oneof![
        6 => (0..WORDS.len(), proptest::option::weighted(0.2, place.clone()))
            .prop_map(|(words, replies_to)| Operation::Send { words, replies_to }),
        3 => (place.clone(), 0..WORDS.len()).prop_map(|(message, words)| Operation::Edit { message, words }),
        2 => place.clone().prop_map(|message| Operation::Delete { message }),
        3 => (place.clone(), 0..EMOJI.len(), any::<bool>())
            .prop_map(|(message, emoji, add)| Operation::React { message, emoji, add }),
        1 => Just(Operation::ReadAll),
        2 => place.clone().prop_map(|message| Operation::ReadUpTo { message }),
        2 => proptest::collection::vec(place, 0..4).prop_map(|messages| Operation::ReadSome { messages }),
        1 => any::<bool>().prop_map(|archived| Operation::Archive { archived }),
        1 => any::<bool>().prop_map(|muted| Operation::Mute { muted }),
        1 => Just(Operation::DeleteConversation),
        1 => proptest::bool::weighted(0.3).prop_map(|blocks| Operation::Block { blocks }),
        1 => (1..EDIT_WINDOW.as_secs()).prop_map(|seconds| Operation::Wait { seconds }),
    ];
    proptest::collection::vec((any::<bool>(), operation), 1..50)
}

#[derive(Debug, Clone)]
struct Message {
    id: MessageId,
    sender: usize,
    content: &'static str,
    age: Duration,
    is_edited: bool,
    is_deleted: bool,
    is_read: bool,
    replies_to: Option<usize>,
    reactions: Vec<(usize, &'static str)>,
}

#[derive(Debug, Clone, Default)]
struct Person {
    /// So many messages, the first ones, are gone for them.
    cleared: usize,
    /// So many, the first ones, need not be marked as read any more.
    read: usize,
    is_hidden: bool,
    is_archived: bool,
    is_muted: bool,
    blocks: bool,
    log: Vec<&'static str>,
}

/// What the two should see.
#[derive(Debug, Default)]
struct Model {
    messages: Vec<Message>,
    people: [Person; 2],
}

const USERS: [UserId; 2] = [ANNA, BEN];

impl Model {
    fn is_blocked(&self) -> bool {
        self.people.iter().any(|person| person.blocks)
    }

    fn unread(&self, who: usize) -> usize {
        let counts = |message: &&Message| message.sender != who && !message.is_read && !message.is_deleted;
        self.messages.iter().skip(self.people[who].cleared).filter(counts).count()
    }

    fn note(&mut self, who: usize, event: &'static str) {
        self.people[who].log.push(event);
    }

    /// To those whose history the message is part of.
    fn note_of(&mut self, message: usize, event: &'static str) {
        for who in 0..2 {
            if message >= self.people[who].cleared {
                self.note(who, event);
            }
        }
    }

    fn sent(
        &mut self,
        who: usize,
        words: &'static str,
        replies_to: Option<usize>,
    ) -> Result<(), &'static str> {
        if self.is_blocked() {
            return Err("BLOCKED");
        }
        self.messages.push(Message {
            id: MessageId(0),
            sender: who,
            content: words,
            age: Duration::ZERO,
            is_edited: false,
            is_deleted: false,
            is_read: false,
            replies_to,
            reactions: vec![],
        });
        for person in &mut self.people {
            person.is_hidden = false;
            person.is_archived = false;
            person.log.push("message_received");
        }
        Ok(())
    }

    fn edited(&mut self, who: usize, at: usize, words: &'static str) -> Result<(), &'static str> {
        let is_blocked = self.is_blocked();
        let message = &mut self.messages[at];
        if at < self.people[who].cleared {
            return Err("MESSAGE_NOT_FOUND");
        }
        if message.sender != who {
            return Err("FORBIDDEN");
        }
        if message.is_deleted {
            return Err("MESSAGE_NOT_FOUND");
        }
        if message.content == words {
            return Ok(());
        }
        if message.age > EDIT_WINDOW {
            return Err("EDIT_WINDOW_CLOSED");
        }
        if is_blocked {
            return Err("BLOCKED");
        }
        message.content = words;
        message.is_edited = true;
        self.note_of(at, "message_updated");
        Ok(())
    }

    fn deleted(&mut self, who: usize, at: usize) -> Result<(), &'static str> {
        let message = &mut self.messages[at];
        if at < self.people[who].cleared {
            return Err("MESSAGE_NOT_FOUND");
        }
        if message.sender != who {
            return Err("FORBIDDEN");
        }
        if !message.is_deleted {
            message.is_deleted = true;
            message.content = "";
            message.reactions.clear();
            self.note_of(at, "message_deleted");
        }
        Ok(())
    }

    fn reacted(&mut self, who: usize, at: usize, emoji: &'static str, add: bool) -> Result<(), &'static str> {
        let is_blocked = self.is_blocked();
        let message = &mut self.messages[at];
        if at < self.people[who].cleared || message.is_deleted {
            return Err("MESSAGE_NOT_FOUND");
        }
        let given = message.reactions.contains(&(who, emoji));
        if given != add && !is_blocked {
            if add {
                message.reactions.push((who, emoji));
            } else {
                message.reactions.retain(|reaction| *reaction != (who, emoji));
            }
            self.note_of(at, "message_reaction");
        }
        Ok(())
    }

    /// `by_name`: also what lies before the mark of what is read.
    fn read(
        &mut self,
        who: usize,
        by_name: bool,
        which: impl Fn(usize) -> bool,
    ) -> Result<Vec<MessageId>, &'static str> {
        let person = &self.people[who];
        if person.is_hidden {
            return Err("CONVERSATION_NOT_FOUND");
        }
        let from = if by_name { person.cleared } else { person.cleared.max(person.read) };
        let mut moved = vec![];
        for (at, message) in self.messages.iter_mut().enumerate().skip(from) {
            if message.sender != who && !message.is_read && which(at) {
                message.is_read = true;
                moved.push(message.id);
            }
        }
        if !moved.is_empty() {
            if self.unread(who) == 0 {
                self.people[who].read = self.messages.len();
            }
            self.note(0, "message_read");
            self.note(1, "message_read");
        }
        Ok(moved)
    }

    fn flagged(&mut self, who: usize, change: impl Fn(&mut Person)) -> Result<(), &'static str> {
        let count = self.messages.len();
        let person = &mut self.people[who];
        if person.is_hidden {
            return Err("CONVERSATION_NOT_FOUND");
        }
        let before = (person.is_archived, person.is_muted, person.is_hidden);
        change(person);
        if person.is_hidden {
            person.is_archived = false;
            person.cleared = count;
            person.read = count;
        }
        if before != (person.is_archived, person.is_muted, person.is_hidden) {
            self.note(who, "conversation_updated");
        }
        Ok(())
    }

    fn blocked(&mut self, who: usize, blocks: bool) {
        let person = &mut self.people[who];
        if person.blocks != blocks {
            person.blocks = blocks;
            if !person.is_hidden {
                self.note(who, "conversation_updated");
            }
        }
    }

    /// What a client of `who` keeps of a message.
    fn kept(&self, at: usize) -> Value {
        let message = &self.messages[at];
        let mut reactions: Vec<Value> = vec![];
        for (_, emoji) in &message.reactions {
            let users: Vec<_> = message
                .reactions
                .iter()
                .filter(|(_, other)| other == emoji)
                .map(|(who, _)| USERS[*who])
                .collect();
            let one = json!({"emoji": emoji, "count": users.len(), "user_ids": users});
            if !reactions.contains(&one) {
                reactions.push(one);
            }
        }
        let reply = message.replies_to.filter(|_| !message.is_deleted).map(|at| {
            let quoted = &self.messages[at];
            json!({"id": quoted.id, "sender_id": USERS[quoted.sender], "type": "text", "content": quoted.content})
        });
        json!({
            "id": message.id, "seq": at + 1, "sender_id": USERS[message.sender], "content": message.content,
            "is_deleted": message.is_deleted, "is_edited": message.is_edited, "is_read": message.is_read,
            "reactions": reactions, "reply_to": reply,
        })
    }

    fn history(&self, who: usize) -> Vec<Value> {
        (self.people[who].cleared..self.messages.len()).map(|at| self.kept(at)).collect()
    }
}

/// The same of a message on the wire.
fn kept(message: &Value) -> Value {
    json!({
        "id": message["id"], "seq": message["seq"], "sender_id": message["sender_id"],
        "content": message["content"], "is_deleted": !message["deleted_at"].is_null(),
        "is_edited": !message["edited_at"].is_null(), "is_read": message["is_read"],
        "reactions": message["reactions"], "reply_to": message["reply_to"],
    })
}

/// A client that keeps what its log tells.
fn replay(log: &[(&'static str, Value)]) -> Vec<Value> {
    let mut messages: BTreeMap<i64, Value> = BTreeMap::new();
    for (name, data) in log {
        let of_id = |id: &Value| id.as_i64().unwrap();
        match *name {
            "message_received" | "message_updated" => {
                messages.insert(of_id(&data["message"]["id"]), kept(&data["message"]));
            }
            "message_deleted" => {
                if let Some(message) = messages.get_mut(&of_id(&data["message_id"])) {
                    message["is_deleted"] = json!(true);
                    message["content"] = json!("");
                    message["reactions"] = json!([]);
                    message["reply_to"] = Value::Null;
                }
            }
            "message_reaction" => {
                if let Some(message) = messages.get_mut(&of_id(&data["message_id"])) {
                    message["reactions"] = data["reactions"].clone();
                }
            }
            "message_read" => {
                for id in data["message_ids"].as_array().unwrap() {
                    if let Some(message) = messages.get_mut(&of_id(id)) {
                        message["is_read"] = json!(true);
                    }
                }
            }
            "conversation_updated" => {
                if let Some(cleared) = data["cleared_seq"].as_i64() {
                    messages.retain(|_, message| message["seq"].as_i64().unwrap() > cleared);
                }
            }
            other => panic!("an unknown event: {other}"),
        }
    }
    messages.into_values().collect()
}

fn outcome<T>(outcome: Result<T, Error>) -> Result<T, &'static str> {
    outcome.map_err(|error| error.code())
}

async fn run(world: &World, id: ConversationId, who: usize, operation: &Operation, model: &mut Model) {
    let (user, chat) = (caller(USERS[who]), &world.chat);
    let at = |number: &usize| number % model.messages.len();
    let id_of = |number: &usize| model.messages[at(number)].id;
    match operation {
        Operation::Send { words, replies_to } => {
            let quoted = replies_to.as_ref().map(at);
            let body = json!({"conversation_id": id, "content": WORDS[*words],
                "reply_to_id": replies_to.as_ref().map(id_of)});
            let sent = outcome(world.send(user.user_id, body).await);
            let expected = model.sent(who, WORDS[*words], quoted);
            assert_eq!(sent.map(drop), expected);
            if let (Ok(id), Some(message)) = (sent, model.messages.last_mut()) {
                message.id = id;
            }
        }
        Operation::Edit { message, words } => {
            let (at, id) = (at(message), id_of(message));
            let edit = EditMessage::parse(&json!({"content": WORDS[*words]}).to_string()).unwrap();
            let edited = outcome(chat.edit_message(&user, id, edit).await);
            assert_eq!(edited.map(drop), model.edited(who, at, WORDS[*words]));
        }
        Operation::Delete { message } => {
            let (at, id) = (at(message), id_of(message));
            assert_eq!(outcome(chat.delete_message(&user, id).await), model.deleted(who, at));
        }
        Operation::React { message, emoji, add } => {
            let (at, id, emoji) = (at(message), id_of(message), EMOJI[*emoji]);
            let parsed = Emoji::parse(emoji).unwrap();
            let reacted = if *add {
                chat.add_reaction(&user, id, parsed).await
            } else {
                chat.remove_reaction(&user, id, parsed).await
            };
            assert_eq!(outcome(reacted).map(drop), model.reacted(who, at, emoji, *add));
        }
        Operation::ReadAll | Operation::ReadUpTo { .. } | Operation::ReadSome { .. } => {
            let last = model.messages.len() - 1;
            let (mark, by_name, places) = match operation {
                Operation::ReadUpTo { message } => {
                    let mark = json!({"conversation_id": id, "up_to_id": id_of(message)});
                    (mark, false, (0..=at(message)).collect())
                }
                Operation::ReadSome { messages } => {
                    let ids: Vec<_> = messages.iter().map(id_of).collect();
                    let places: Vec<_> = messages.iter().map(at).collect();
                    (json!({"conversation_id": id, "message_ids": ids}), true, places)
                }
                _ => (json!({"conversation_id": id, "up_to_id": i64::MAX}), false, (0..=last).collect()),
            };
            let read = chat.mark_read(user.user_id, MarkRead::parse(&mark.to_string()).unwrap()).await;
            let expected = model.read(who, by_name, |at| places.contains(&at));
            assert_eq!(outcome(read).map(|answer| answer.message_ids), expected);
        }
        Operation::Archive { archived } => {
            let view = if *archived {
                chat.archive_conversation(&user, id).await
            } else {
                chat.unarchive_conversation(&user, id).await
            };
            assert_eq!(outcome(view).map(drop), model.flagged(who, |person| person.is_archived = *archived));
        }
        Operation::Mute { muted } => {
            let view = if *muted {
                chat.mute_conversation(&user, id, MuteConversation::default()).await
            } else {
                chat.unmute_conversation(&user, id).await
            };
            assert_eq!(outcome(view).map(drop), model.flagged(who, |person| person.is_muted = *muted));
        }
        Operation::DeleteConversation => {
            let deleted = outcome(chat.delete_conversation(&user, id).await);
            assert_eq!(deleted, model.flagged(who, |person| person.is_hidden = true));
        }
        Operation::Block { blocks } => {
            let other = USERS[1 - who];
            let answer = if *blocks {
                chat.block_user(&user, other).await
            } else {
                chat.unblock_user(&user, other).await
            };
            assert_eq!(answer.unwrap().is_blocked, *blocks);
            model.blocked(who, *blocks);
        }
        Operation::Wait { seconds } => {
            let time = Duration::from_secs(*seconds);
            world.clock.advance(time);
            model.messages.iter_mut().for_each(|message| message.age += time);
        }
    }
}

async fn check(database: TestDatabase, operations: &[(bool, Operation)]) {
    let world = World::new(database).await;
    let mut devices: Vec<[Recorder; 2]> = vec![];
    for user in USERS {
        devices.push([world.connect(user).await, world.connect(user).await]);
    }
    let (id, first) = world.first_message(WORDS[0]).await;
    let mut model = Model::default();
    model.sent(0, WORDS[0], None).unwrap();
    model.messages[0].id = first;

    for (is_anna, operation) in operations {
        run(&world, id, usize::from(!is_anna), operation, &mut model).await;
        for (who, user) in USERS.into_iter().enumerate() {
            let unread = world.chat.unread_count(user).await.unwrap();
            assert_eq!(
                usize::try_from(unread),
                Ok(model.unread(who)),
                "unread of {user} after {operation:?}"
            );
        }
    }

    for (who, user) in USERS.into_iter().enumerate() {
        let person = &model.people[who];
        let log = world.log(user, 0).await;
        let names: Vec<_> = log.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, person.log, "the log of {user}");
        assert_eq!(replay(&log), model.history(who), "a client of {user} that replays its log");
        for device in &devices[who] {
            let stored: Vec<_> =
                device.stored().into_iter().filter(|name| name != "conversation_updated").collect();
            let expected: Vec<_> =
                person.log.iter().filter(|name| **name != "conversation_updated").collect();
            assert_eq!(stored.iter().collect::<Vec<_>>(), expected, "a device of {user}");
        }
        match world.conversation(user, id).await {
            Ok(view) => {
                assert!(!person.is_hidden);
                assert_eq!(
                    (view.is_archived, view.is_muted, view.is_blocked),
                    (person.is_archived, person.is_muted, person.blocks)
                );
                assert_eq!(usize::try_from(view.unread_count), Ok(model.unread(who)));
                let history: Vec<_> = world.history(user, id).await.iter().map(kept).collect();
                assert_eq!(history, model.history(who), "the history of {user}");
                let last = history.last().map(|message| &message["content"]);
                assert_eq!(view.last_message.map(|message| json!(message.content)).as_ref(), last);
            }
            Err(Error::ConversationNotFound) => assert!(person.is_hidden),
            Err(other) => panic!("{other}"),
        }
        let is_listed = world.list(user, person.is_archived).await == [id];
        assert_eq!(is_listed, !person.is_hidden);
    }
    assert_eq!(world.chat.reconcile_unread(0).await.unwrap().repaired, 0, "counters equal a recount");
}

fn agree_on(backend: Backend, cases: u32) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&operations(), |operations| {
        runtime.block_on(async {
            if let Some(database) = TestDatabase::new(backend).await {
                check(database, &operations).await;
            }
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn whatever_two_users_do_all_views_agree_on_sqlite() {
    agree_on(Backend::Sqlite, 40);
}

#[test]
fn whatever_two_users_do_all_views_agree_on_postgres() {
    agree_on(Backend::Postgres, 12);
}
