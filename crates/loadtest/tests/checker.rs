//! A load generator that overlooks faults is worse than none: here a stand-in service makes each of them on
//! purpose, in the dialect of plain WebSockets, and the report must say so.

#![expect(clippy::unwrap_used, reason = "a stand-in that fails fails its test")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use loadtest::{
    check::Faults,
    cli::{Cli, Command},
    modes,
    report::Report,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What the stand-in does wrong, once, with the tenth message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    None,
    /// Confirms it, and tells nobody else.
    Lose,
    /// Tells the receiver twice.
    Repeat,
    /// Tells the receiver after the next one.
    Swap,
    /// Tells a third user.
    Misdirect,
    /// Leaves a number of the receiver's log out.
    SkipEvent,
    /// Leaves a number of the conversation out.
    SkipSeq,
    /// Changes the words.
    Alter,
    /// Neither confirms nor refuses.
    Ignore,
    /// Confirms twice.
    ConfirmTwice,
    /// Refuses.
    Refuse,
    /// Closes the sender's connection.
    HangUp,
    /// Sends an event with two arguments' worth of nonsense.
    Babble,
}

#[derive(Default)]
struct World {
    connections: HashMap<u64, mpsc::UnboundedSender<Value>>,
    event_seqs: HashMap<u64, u64>,
    /// By its two users: messages so far, and what is held back for the receiver.
    conversations: HashMap<(u64, u64), (u64, Option<Value>)>,
}

impl World {
    fn tell(&mut self, user_id: u64, message: &Value) {
        let event_seq = self.event_seqs.entry(user_id).or_default();
        *event_seq += 1;
        let data = json!({"message": message, "conversation_id": message["conversation_id"], "event_seq": event_seq});
        self.send(user_id, "message_received", &data);
    }

    fn send(&self, user_id: u64, event: &str, data: &Value) {
        if let Some(connection) = self.connections.get(&user_id) {
            let _ = connection.send(json!({"event": event, "data": data}));
        }
    }

    /// Answers whether the connection goes on.
    fn take(&mut self, sender_id: u64, data: &Value, mischief: Mischief) -> bool {
        let other_id = match (data["receiver_id"].as_u64(), data["conversation_id"].as_u64()) {
            (Some(id), _) => id,
            (None, Some(id)) if id / 1000 == sender_id => id % 1000,
            (None, Some(id)) => id / 1000,
            (None, None) => panic!("a message without a target: {data}"),
        };
        let (first, second) = (sender_id.min(other_id), sender_id.max(other_id));
        let (count, held) = self.conversations.entry((first, second)).or_default();
        *count += 1;
        let (is_it, seq, held) = (*count == 10, *count, held.take());
        let does = |what| is_it && mischief == what;
        if does(Mischief::Refuse) {
            *self.conversations.get_mut(&(first, second)).map(|(count, _)| count).unwrap() -= 1;
            let error = json!({"code": "RATE_LIMITED", "message": "Slow down.",
                "client_message_id": data["client_message_id"]});
            self.send(sender_id, "error", &error);
            // The next one would be the tenth again.
            self.conversations.get_mut(&(first, second)).unwrap().0 += 100;
            return true;
        }
        let skipped = u64::from(mischief == Mischief::SkipSeq && seq >= 10);
        let mut message = json!({"id": first * 1_000_000 + seq, "conversation_id": first * 1000 + second,
            "seq": seq + skipped, "sender_id": sender_id, "content": data["content"]});
        if does(Mischief::Alter) {
            message["content"] = format!("{}!", data["content"].as_str().unwrap()).into();
        }
        if does(Mischief::SkipEvent) {
            *self.event_seqs.entry(other_id).or_default() += 1;
        }
        if does(Mischief::Swap) {
            self.conversations.get_mut(&(first, second)).unwrap().1 = Some(message.clone());
        } else if !does(Mischief::Lose) {
            self.tell(other_id, &message);
        }
        if let Some(held) = held {
            self.tell(if held["sender_id"] == first { second } else { first }, &held);
        }
        if does(Mischief::Repeat) {
            self.tell(other_id, &message);
        }
        if does(Mischief::Misdirect) {
            let stranger = self.connections.keys().copied().find(|id| *id != first && *id != second).unwrap();
            self.tell(stranger, &message);
        }
        if does(Mischief::Babble) {
            let _ = self.connections[&other_id]
                .send(json!({"event": "message_received", "data": {"message": 1}}));
        }
        self.tell(sender_id, &message);
        let sent = json!({"message": message, "message_id": message["id"], "client_message_id": null});
        if !does(Mischief::Ignore) {
            self.send(sender_id, "message_sent", &sent);
        }
        if does(Mischief::ConfirmTwice) {
            self.send(sender_id, "message_sent", &sent);
        }
        !does(Mischief::HangUp)
    }
}

async fn serve(listener: TcpListener, mischief: Mischief) {
    let world = Arc::new(Mutex::new(World::default()));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream, Arc::clone(&world), mischief));
    }
}

async fn connection(mut stream: TcpStream, world: Arc<Mutex<World>>, mischief: Mischief) {
    let mut input = Vec::new();
    while !input.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(std::mem::take(&mut input)).unwrap();
    let user_id: u64 = head.split("token=user-").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    stream
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await
        .unwrap();
    let (sender, mut outgoing) = mpsc::unbounded_channel();
    let _ = sender.send(json!({"event": "authenticated", "data": {"user_id": user_id, "user": {}}}));
    world.lock().unwrap().connections.insert(user_id, sender);
    loop {
        tokio::select! {
            Some(event) = outgoing.recv() => {
                let text = event.to_string();
                let mut frame = vec![0x81, 126];
                frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                frame.extend(text.as_bytes());
                if stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
            read = stream.read_buf(&mut input) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some(text) = next_frame(&mut input) {
                    let event: Value = serde_json::from_slice(&text).unwrap();
                    assert_eq!(event["event"], "send_message");
                    if !world.lock().unwrap().take(user_id, &event["data"], mischief) {
                        return;
                    }
                }
            }
        }
    }
}

fn next_frame(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (size, length) = match input.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().unwrap()))),
        short => (2, usize::from(short)),
    };
    if input.len() < size + 4 + length {
        return None;
    }
    let frame: Vec<u8> = input.drain(..size + 4 + length).collect();
    let mask = &frame[size..size + 4];
    Some(frame[size + 4..].iter().enumerate().map(|(index, byte)| byte ^ mask[index & 3]).collect())
}

/// Two pairs send for half a second to a stand-in that does one thing wrong.
async fn run(mischief: Mischief) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(listener, mischief));
    let cli = Cli::parse_from([
        "loadtest",
        "send",
        "--url",
        &url,
        "--transport",
        "plain",
        "-n",
        "4",
        "--rate",
        "200",
        "--warm-up",
        "0",
        "--duration",
        "0.5",
        "--drain",
        "1",
        "--quiet",
    ]);
    let Command::Send(options) = cli.command else { unreachable!("send was asked for") };
    let report = modes::send::run(&options).await.unwrap();
    serving.abort();
    report
}

async fn faults(mischief: Mischief) -> Faults {
    let report = run(mischief).await;
    assert!(!report.is_clean, "{mischief:?} was overlooked");
    report.faults
}

#[tokio::test]
async fn a_service_without_fault_is_found_without_fault() {
    let report = run(Mischief::None).await;
    assert!(report.is_clean, "{:?}", report.faults);
    assert!(report.total.sent > 40, "{:?}", report.total);
    assert_eq!(report.total.delivered, report.total.sent);
    assert_eq!(report.total.confirmed, report.total.sent);
}

#[tokio::test]
async fn lost_messages_are_counted() {
    // One in each of the two conversations.
    assert_eq!(faults(Mischief::Lose).await.lost, 2);
}

#[tokio::test]
async fn repeated_messages_are_counted() {
    let faults = faults(Mischief::Repeat).await;
    assert_eq!((faults.repeated, faults.lost), (2, 0));
}

#[tokio::test]
async fn messages_out_of_order_are_noticed() {
    let faults = faults(Mischief::Swap).await;
    assert!(faults.seq_broken >= 2, "{faults:?}");
    assert_eq!((faults.lost, faults.repeated), (0, 0));
}

#[tokio::test]
async fn messages_to_strangers_are_counted() {
    assert_eq!(faults(Mischief::Misdirect).await.wrong_recipient, 2);
}

#[tokio::test]
async fn gaps_in_a_log_and_in_a_conversation_are_noticed() {
    let skipped = faults(Mischief::SkipEvent).await;
    assert_eq!((skipped.event_seq_broken, skipped.seq_broken), (2, 0));
    let skipped = faults(Mischief::SkipSeq).await;
    // Both users of both conversations see it.
    assert_eq!((skipped.event_seq_broken, skipped.seq_broken), (0, 4));
}

#[tokio::test]
async fn changed_words_are_noticed() {
    assert_eq!(faults(Mischief::Alter).await.altered, 4);
}

#[tokio::test]
async fn unanswered_messages_are_counted() {
    assert_eq!(faults(Mischief::Ignore).await.unanswered, 2);
}

#[tokio::test]
async fn confirmations_that_come_twice_are_counted() {
    assert_eq!(faults(Mischief::ConfirmTwice).await.confirmed_wrong, 2);
}

#[tokio::test]
async fn refusals_are_told_by_code_and_are_not_losses() {
    let faults = faults(Mischief::Refuse).await;
    assert_eq!(faults.refused.get("RATE_LIMITED: Slow down."), Some(&2));
    assert_eq!((faults.lost, faults.unanswered), (0, 0));
}

#[tokio::test]
async fn ended_connections_and_nonsense_are_told() {
    let closed = faults(Mischief::HangUp).await;
    assert_eq!(closed.disconnected.values().sum::<u64>(), 2, "{closed:?}");
    let babble = faults(Mischief::Babble).await;
    assert!(babble.disconnected.keys().any(|reason| reason.contains("broke the protocol")), "{babble:?}");
}
