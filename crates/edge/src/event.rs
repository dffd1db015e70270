//! What goes to clients: events, replies and bare Engine.IO messages.
//!
//! Owns their encodings, each made at most once per dialect and shared by every connection. Queues are in
//! `link`, WebSocket framing in `codec::frame`; what clients send is read in the other modules of `codec`.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::codec::frame::{self, Opcode};
use crate::handler::Dialect;

/// An event to clients, encoded at most once per dialect and shared by every connection that gets it. Cheap to
/// clone.
#[derive(Clone)]
pub struct Event(Arc<Encodings>);

struct Encodings {
    name: Cow<'static, str>,
    args: Args,
    attachments: Vec<Bytes>,
    /// Whole unmasked WebSocket frames of the Socket.IO packet in the namespace `/`.
    socket_io: OnceLock<Bytes>,
    /// One whole unmasked WebSocket frame.
    plain: OnceLock<Bytes>,
}

impl Event {
    /// An event with one argument, given as JSON text.
    pub fn new(name: impl Into<Cow<'static, str>>, data: impl Into<Bytes>) -> Self {
        Self::build(name.into(), Args::One(data.into()), Vec::new())
    }

    /// An event with any number of arguments, each JSON text, and the attachments they refer to as
    /// `{"_placeholder":true,"num":n}`. The plain dialect carries the first argument alone.
    pub fn with_args(
        name: impl Into<Cow<'static, str>>,
        args: impl IntoIterator<Item = Bytes>,
        attachments: Vec<Bytes>,
    ) -> Self {
        Self::build(name.into(), Args::Many(args.into_iter().collect()), attachments)
    }

    fn build(name: Cow<'static, str>, args: Args, attachments: Vec<Bytes>) -> Self {
        Self(Arc::new(Encodings {
            name,
            args,
            attachments,
            socket_io: OnceLock::new(),
            plain: OnceLock::new(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The whole WebSocket frames of this event in that dialect; Engine.IO alone has no events.
    pub(crate) fn frames(&self, dialect: Dialect) -> &Bytes {
        match dialect {
            Dialect::SocketIo | Dialect::EngineIo => self.0.socket_io.get_or_init(|| {
                let mut out = Vec::new();
                let text = self.packet("/", None);
                frame::put(&mut out, Opcode::Text, &[text.as_bytes()]);
                for attachment in &self.0.attachments {
                    frame::put(&mut out, Opcode::Binary, &[attachment]);
                }
                out.into()
            }),
            Dialect::Plain => self.0.plain.get_or_init(|| {
                let name = json_string(&self.0.name);
                let data = self.0.args.first().map_or(&b"{}"[..], |data| &data[..]);
                let mut out = Vec::new();
                let parts = [b"{\"event\":", name.as_bytes(), b",\"data\":", data, b"}"];
                frame::put(&mut out, Opcode::Text, &parts);
                out.into()
            }),
        }
    }

    /// The Engine.IO text message of this event in that namespace; the attachments follow it.
    pub(crate) fn packet(&self, namespace: &str, id: Option<u64>) -> String {
        let name = json_string(&self.0.name);
        let head = packet_head(['2', '5'], self.0.attachments.len(), namespace, id);
        let mut out = String::with_capacity(head.len() + name.len() + self.0.args.len() + 2);
        out.push_str(&head);
        out.push('[');
        out.push_str(&name);
        self.0.args.each(|arg| {
            out.push(',');
            out.push_str(&String::from_utf8_lossy(arg));
        });
        out.push(']');
        out
    }

    pub(crate) fn attachments(&self) -> &[Bytes] {
        &self.0.attachments
    }
}

impl std::fmt::Debug for Event {
    /// The name alone: what an event says belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Event").field(&self.0.name).finish()
    }
}

/// The answer to a client's event.
#[derive(Clone)]
pub struct Reply {
    args: Args,
    attachments: Vec<Bytes>,
}

impl Reply {
    /// One argument, given as JSON text.
    pub fn json(data: impl Into<Bytes>) -> Self {
        Self { args: Args::One(data.into()), attachments: Vec::new() }
    }

    /// Any number of arguments, each JSON text, and the attachments they refer to. The plain dialect carries the
    /// first argument alone.
    pub fn args(args: impl IntoIterator<Item = Bytes>, attachments: Vec<Bytes>) -> Self {
        Self { args: Args::Many(args.into_iter().collect()), attachments }
    }

    /// The Engine.IO text message of this ack; the attachments follow it.
    pub(crate) fn packet(&self, namespace: &str, id: u64) -> String {
        let mut out = packet_head(['3', '6'], self.attachments.len(), namespace, Some(id));
        out.reserve(self.args.len() + 2);
        out.push('[');
        let mut first = true;
        self.args.each(|arg| {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&String::from_utf8_lossy(arg));
        });
        out.push(']');
        out
    }

    pub(crate) fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// The whole WebSocket frame of this answer in the plain dialect; `reference` is the client's `ref`, JSON.
    pub(crate) fn plain_frame(&self, reference: &str) -> Bytes {
        let data = self.args.first().map_or(&b"{}"[..], |data| &data[..]);
        let mut out = Vec::new();
        let parts = [b"{\"event\":\"ack\",\"ref\":", reference.as_bytes(), b",\"data\":", data, b"}"];
        frame::put(&mut out, Opcode::Text, &parts);
        out.into()
    }
}

impl std::fmt::Debug for Reply {
    /// The shape alone: what a reply says belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("bytes", &self.args.len()).finish_non_exhaustive()
    }
}

/// One Engine.IO message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

#[derive(Clone)]
enum Args {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Args {
    fn first(&self) -> Option<&Bytes> {
        match self {
            Self::One(data) => Some(data),
            Self::Many(args) => args.first(),
        }
    }

    fn each(&self, mut visit: impl FnMut(&Bytes)) {
        match self {
            Self::One(data) => visit(data),
            Self::Many(args) => args.iter().for_each(visit),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(data) => data.len() + 1,
            Self::Many(args) => args.iter().map(|arg| arg.len() + 1).sum(),
        }
    }
}

/// `4` for an Engine.IO message, the packet type (without or with attachments), their number, namespace and id.
fn packet_head([bare, binary]: [char; 2], attachments: usize, namespace: &str, id: Option<u64>) -> String {
    let mut head = String::with_capacity(24);
    head.push('4');
    if attachments == 0 {
        head.push(bare);
    } else {
        head.push(binary);
        head.push_str(&attachments.to_string());
        head.push('-');
    }
    if namespace != "/" {
        head.push_str(namespace);
        head.push(',');
    }
    if let Some(id) = id {
        head.push_str(&id.to_string());
    }
    head
}

pub(crate) fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(frame: &[u8]) -> &str {
        assert!(frame[1] < 126, "a short frame");
        std::str::from_utf8(&frame[2..]).unwrap()
    }

    #[test]
    fn an_event_has_one_argument_on_socket_io_and_is_data_on_plain() {
        let event = Event::new("message_received", r#"{"id":1}"#);
        assert_eq!(payload(event.frames(Dialect::SocketIo)), r#"42["message_received",{"id":1}]"#);
        assert_eq!(payload(event.frames(Dialect::Plain)), r#"{"event":"message_received","data":{"id":1}}"#);
        assert_eq!(event.packet("/custom", None), r#"42/custom,["message_received",{"id":1}]"#);
    }

    #[test]
    fn an_event_is_encoded_once_for_all_who_get_it() {
        let event = Event::new("a", "1");
        let first = event.frames(Dialect::SocketIo).as_ptr();
        assert_eq!(first, event.clone().frames(Dialect::SocketIo).as_ptr());
    }

    #[test]
    fn attachments_are_counted_in_the_head_and_follow_as_binary_frames() {
        let placeholder = Bytes::from_static(br#"{"_placeholder":true,"num":0}"#);
        let event = Event::with_args("b", [placeholder.clone()], vec![Bytes::from_static(&[1, 2])]);
        assert_eq!(event.packet("/", None), r#"451-["b",{"_placeholder":true,"num":0}]"#);
        assert!(event.frames(Dialect::SocketIo).ends_with(&[0x82, 2, 1, 2]));
        let reply = Reply::args([placeholder], vec![Bytes::from_static(&[3])]);
        assert_eq!(reply.packet("/", 7), r#"461-7[{"_placeholder":true,"num":0}]"#);
    }

    #[test]
    fn replies_answer_an_id_or_a_ref() {
        let reply = Reply::json(r#"{"success":true}"#);
        assert_eq!(reply.packet("/", 12), r#"4312[{"success":true}]"#);
        assert_eq!(reply.packet("/admin", 0), r#"43/admin,0[{"success":true}]"#);
        assert_eq!(
            payload(&reply.plain_frame("\"x\"")),
            r#"{"event":"ack","ref":"x","data":{"success":true}}"#
        );
        assert_eq!(Reply::args([], vec![]).packet("/", 1), "431[]");
    }

    #[test]
    fn names_are_escaped() {
        let event = Event::new("a\"b\n", "1");
        assert_eq!(event.packet("/", None), r#"42["a\"b\n",1]"#);
    }
}
