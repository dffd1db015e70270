//! From a message to what it asks for, in each dialect.
//!
//! Owns the reading of packets into [`Step`]s and the gathering of binary attachments; no I/O, no calls to the
//! service. What a step does is in the driver.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::client::Ack;
use crate::codec::frame::Incoming;
use crate::codec::packet::{self, Packet};
use crate::codec::plain;
use crate::config::EdgeConfig;
use crate::event::Message;
use crate::handler::{ClientEvent, CloseReason, Dialect, Malformed};
use crate::link::Ending;

/// What one message of a client asks for.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, or nothing yet.
    Nothing,
    /// Into a served namespace.
    Connect { namespace: u16, auth: Option<Box<RawValue>> },
    /// Into one that is not served.
    Unserved { namespace: String },
    /// Out of a namespace.
    Leave { namespace: u16 },
    /// An event for the service.
    Event { namespace: u16, event: ClientEvent, answer: Answer },
    /// The answer to an event of the server.
    Ack { namespace: u16, id: u64, ack: Ack },
    /// Something to complain about.
    Malformed { namespace: u16, problem: Malformed, answer: Answer },
    /// A bare Engine.IO message.
    Message(Message),
    /// A WebSocket ping, to be answered with the same payload.
    Ping(Vec<u8>),
    /// A sign of life in the dialect's own way.
    Pong,
    /// The client says goodbye, on WebSocket perhaps with a code.
    Goodbye(Option<u16>),
}

/// Where the reply to an event goes.
#[derive(Debug)]
pub(super) enum Answer {
    None,
    /// A Socket.IO ack id.
    Id(u64),
    /// A `ref` of the plain dialect, JSON.
    Ref(Box<str>),
}

/// A packet whose attachments are still coming.
#[derive(Debug)]
pub(super) struct Assembly {
    step: Step,
    missing: usize,
    bytes: usize,
    attachments: Vec<Bytes>,
}

const PROTOCOL: Ending = Ending { reason: CloseReason::Protocol, code: 1002 };
const TOO_BIG: Ending = Ending { reason: CloseReason::TooBig, code: 1009 };

/// Reads one WebSocket message.
pub(super) fn read(
    dialect: Dialect,
    config: &EdgeConfig,
    assembly: &mut Option<Box<Assembly>>,
    incoming: Incoming<'_>,
) -> Result<Step, Ending> {
    match incoming {
        Incoming::Text(text) if dialect == Dialect::Plain => Ok(read_plain(&text)),
        Incoming::Binary(_) if dialect == Dialect::Plain => {
            Ok(Step::Malformed { namespace: 0, problem: Malformed::Binary, answer: Answer::None })
        }
        Incoming::Text(text) if dialect == Dialect::EngineIo && config.bare_messages => {
            Ok(Step::Message(Message::Text(text.into_owned())))
        }
        Incoming::Text(text) => read_text(dialect, config, assembly, &text),
        Incoming::Binary(bytes) => read_binary(dialect, config, assembly, Bytes::from(bytes.into_owned())),
        Incoming::Ping(payload) => Ok(Step::Ping(payload)),
        Incoming::Pong if dialect == Dialect::Plain => Ok(Step::Pong),
        Incoming::Pong => Ok(Step::Nothing),
        Incoming::Close(code) => Ok(Step::Goodbye(code)),
    }
}

fn read_plain(text: &str) -> Step {
    let plain::Frame { name, data, reference } = match plain::parse(text) {
        Ok(frame) => frame,
        Err(problem) => return Step::Malformed { namespace: 0, problem, answer: Answer::None },
    };
    let wants_ack = reference.is_some();
    let answer = reference.map_or(Answer::None, Answer::Ref);
    match name {
        None => Step::Malformed { namespace: 0, problem: Malformed::NoName, answer },
        Some(name) => {
            let event = ClientEvent { name, args: vec![data], attachments: Vec::new(), wants_ack };
            Step::Event { namespace: 0, event, answer }
        }
    }
}

/// Reads one Engine.IO text packet.
pub(super) fn read_text(
    dialect: Dialect,
    config: &EdgeConfig,
    assembly: &mut Option<Box<Assembly>>,
    text: &str,
) -> Result<Step, Ending> {
    match (text.as_bytes().first(), text.get(1..)) {
        // The server pings, the client answers; any payload would be a probe, which has no place here.
        (Some(b'3'), Some("")) => Ok(Step::Pong),
        (Some(b'1'), Some("")) => Ok(Step::Goodbye(None)),
        (Some(b'6'), Some("")) => Ok(Step::Nothing),
        (Some(b'4'), Some(text)) if dialect == Dialect::EngineIo => {
            Ok(Step::Message(Message::Text(text.to_owned())))
        }
        (Some(b'4'), Some(text)) if assembly.is_none() => read_packet(config, assembly, text),
        _ => Err(PROTOCOL),
    }
}

/// Reads one Engine.IO binary message.
pub(super) fn read_binary(
    dialect: Dialect,
    config: &EdgeConfig,
    assembly: &mut Option<Box<Assembly>>,
    bytes: Bytes,
) -> Result<Step, Ending> {
    if dialect == Dialect::EngineIo {
        return Ok(Step::Message(Message::Binary(bytes)));
    }
    let Some(waiting) = assembly else { return Err(PROTOCOL) };
    // The attachments of one packet together are one message, and no larger than one.
    waiting.bytes += bytes.len();
    if waiting.bytes > config.max_payload {
        return Err(TOO_BIG);
    }
    waiting.attachments.push(bytes);
    waiting.missing -= 1;
    let Some(whole) = assembly.take_if(|waiting| waiting.missing == 0) else { return Ok(Step::Nothing) };
    let mut step = whole.step;
    match &mut step {
        Step::Event { event, .. } => event.attachments = whole.attachments,
        Step::Ack { ack, .. } => ack.attachments = whole.attachments,
        _ => {}
    }
    Ok(step)
}

fn read_packet(
    config: &EdgeConfig,
    assembly: &mut Option<Box<Assembly>>,
    text: &str,
) -> Result<Step, Ending> {
    let index = |namespace: &str| {
        let place = config.namespaces.iter().position(|served| served == namespace);
        place.and_then(|place| u16::try_from(place).ok())
    };
    let (step, attachments) = match packet::parse(text).map_err(|_| PROTOCOL)? {
        Packet::Connect { namespace, auth } => {
            return Ok(match index(namespace) {
                Some(namespace) => Step::Connect { namespace, auth: auth.map(RawValue::to_owned) },
                None => Step::Unserved { namespace: namespace.to_owned() },
            });
        }
        Packet::Disconnect { namespace } => {
            let namespace = index(namespace).ok_or(PROTOCOL)?;
            return Ok(Step::Leave { namespace });
        }
        Packet::Event { namespace, id, attachments, name, args } => {
            let namespace = index(namespace).ok_or(PROTOCOL)?;
            let problem = match name.as_deref() {
                None | Some("") => Some(Malformed::NoName),
                Some(name) if packet::is_reserved(name) => Some(Malformed::ReservedName),
                Some(_) => None,
            };
            let wants_ack = id.is_some();
            let answer = id.map_or(Answer::None, Answer::Id);
            let step = match problem {
                Some(problem) => Step::Malformed { namespace, problem, answer },
                None => {
                    let name = name.unwrap_or_default();
                    let event = ClientEvent { name, args, attachments: Vec::new(), wants_ack };
                    Step::Event { namespace, event, answer }
                }
            };
            (step, attachments)
        }
        Packet::Ack { namespace, id, attachments, args } => {
            let namespace = index(namespace).ok_or(PROTOCOL)?;
            (Step::Ack { namespace, id, ack: Ack { args, attachments: Vec::new() } }, attachments)
        }
    };
    if attachments == 0 {
        return Ok(step);
    }
    if attachments > config.max_attachments {
        return Err(PROTOCOL);
    }
    let waiting = Assembly { step, missing: attachments, bytes: text.len(), attachments: Vec::new() };
    *assembly = Some(Box::new(waiting));
    Ok(Step::Nothing)
}
