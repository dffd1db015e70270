//! A plain WebSocket client that keeps what it hears, in order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// A live connection.
pub(crate) struct Live {
    heard: Arc<Mutex<Heard>>,
    say: Option<mpsc::UnboundedSender<Message>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    events: Vec<(String, Value, Instant)>,
    close_code: Option<u16>,
    is_closed: bool,
}

impl Live {
    /// Connects and waits for `authenticated`.
    pub(crate) async fn connect(address: SocketAddr, user: i64, since: Option<i64>) -> Self {
        let since = since.map_or_else(String::new, |since| format!("&since={since}"));
        let url = format!("ws://{address}/ws?token={user}%7Csecret{since}");
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let (mut sink, mut stream) = socket.split();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let noted = Arc::clone(&heard);
        let (say, mut said) = mpsc::unbounded_channel::<Message>();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = stream.next() => match message {
                        Some(Ok(Message::Text(text))) => {
                            let frame: Value = serde_json::from_str(&text).unwrap();
                            let name = frame["event"].as_str().unwrap().to_owned();
                            noted.lock().events.push((name, frame["data"].clone(), Instant::now()));
                        }
                        Some(Ok(Message::Close(frame))) => {
                            noted.lock().close_code = frame.map(|frame| frame.code.into());
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => break,
                    },
                    message = said.recv() => match message {
                        Some(message) => if sink.send(message).await.is_err() { break },
                        None => { let _ = sink.close().await; break }
                    },
                }
            }
            noted.lock().is_closed = true;
        });
        let live = Self { heard, say: Some(say), task };
        live.wait_for("authenticated", |_| true).await;
        live
    }

    pub(crate) fn emit(&self, event: &str, data: &Value) {
        let frame = json!({"event": event, "data": data, "ref": 1}).to_string();
        let _ = self.say.as_ref().unwrap().send(Message::Text(frame.into()));
    }

    /// Leaves with a close frame.
    pub(crate) async fn close(mut self) {
        self.say = None;
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.task).await;
    }

    /// What was heard of this name so far.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        let heard = self.heard.lock();
        heard.events.iter().filter(|(name, ..)| name == event).map(|(_, data, _)| data.clone()).collect()
    }

    pub(crate) async fn wait_for(&self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_within(Duration::from_secs(10), event, fits).await
    }

    pub(crate) async fn wait_within(
        &self,
        patience: Duration,
        event: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(found) = self.all(event).into_iter().find(|data| fits(data)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let heard = self.heard.lock();
        let names: Vec<_> = heard.events.iter().map(|(name, ..)| name.as_str()).collect();
        panic!("no such {event} within {patience:?}: {names:?}, closed: {}", heard.is_closed);
    }

    /// Waits for the message with these words.
    pub(crate) async fn wait_for_words(&self, words: &str) -> Value {
        self.wait_for("message_received", |data| data["message"]["content"] == words).await
    }

    pub(crate) async fn wait_closed(&self) -> Option<u16> {
        for _ in 0..1000 {
            let (is_closed, close_code) = {
                let heard = self.heard.lock();
                (heard.is_closed, heard.close_code)
            };
            if is_closed {
                return close_code;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the connection was not closed within ten seconds");
    }

    /// The words of all messages, in the order they came.
    pub(crate) fn words(&self) -> Vec<String> {
        let messages = self.all("message_received");
        messages.iter().map(|data| data["message"]["content"].as_str().unwrap().to_owned()).collect()
    }

    /// The places of the stored events, in the order they came.
    pub(crate) fn places(&self) -> Vec<i64> {
        let heard = self.heard.lock();
        heard.events.iter().filter_map(|(_, data, _)| data["event_seq"].as_i64()).collect()
    }

    /// Asserts that every stored event came once and in its turn.
    pub(crate) fn assert_no_gap(&self) {
        let places = self.places();
        for pair in places.windows(2) {
            assert_eq!(pair[1], pair[0] + 1, "{places:?}");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}
