//! One live connection: the upgrade, then frames both ways.
//!
//! Owns the socket and what could not be written yet. Holds no read buffer while idle, so that ten thousand of
//! these fit beside the service. What is said over it is up to `crate::user`.

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

use super::{
    frame::{self, Broken, Decoder, Opcode},
    packet::{self, Dialect, Incoming},
    target::Target,
};

/// RFC 6455's own example of a key and its answer: the pair is all that the handshake needs.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How long a connection may take from the first packet to the answer of the upgrade.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 128 * 1024].into());
}

/// A connection. Frames may be sent from any thread.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    dialect: Dialect,
    /// What the kernel did not take yet.
    unwritten: Mutex<Vec<u8>>,
    /// Tells the reading task that something is unwritten.
    wake: Notify,
}

/// The reading end of a [`Link`].
#[derive(Debug, Default)]
pub struct Reader {
    decoder: Decoder,
    early: Vec<u8>,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// Our side was done with it.
    Done,
    /// The service refused the token, by this code.
    Refused(String),
    /// The service closed it, with a close frame's code or without.
    ByService(Option<u16>),
    /// The socket failed.
    Socket(io::ErrorKind),
    /// The service broke the protocol.
    Protocol(String),
}

impl std::fmt::Display for Closed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => formatter.write_str("done"),
            Self::Refused(code) => write!(formatter, "refused with {code}"),
            Self::ByService(Some(code)) => write!(formatter, "closed by the service with code {code}"),
            Self::ByService(None) => formatter.write_str("closed by the service without a close frame"),
            Self::Socket(kind) => write!(formatter, "the socket failed: {kind}"),
            Self::Protocol(reason) => write!(formatter, "the service broke the protocol: {reason}"),
        }
    }
}

impl Link {
    /// Opens a socket and upgrades it. The plain dialect authenticates in the URL; Socket.IO does later.
    pub async fn open(
        target: &Target,
        index: u32,
        dialect: Dialect,
        token: &str,
        since: Option<u64>,
    ) -> Result<(Self, Reader), String> {
        let opening = async {
            let stream = target.open(index).await.map_err(|error| format!("connecting failed: {error}"))?;
            upgrade(stream, target, &path(dialect, token, since)).await
        };
        let (stream, early) = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| "the upgrade took longer than 30 s".to_owned())??;
        let link = Self { stream, dialect, unwritten: Mutex::default(), wake: Notify::new() };
        Ok((link, Reader { decoder: Decoder::default(), early }))
    }

    /// How it speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Sends whole frames, now as far as the kernel takes them.
    pub fn send(&self, frames: &[u8]) {
        let mut unwritten = self.unwritten.lock();
        let written = if unwritten.is_empty() { self.stream.try_write(frames).unwrap_or(0) } else { 0 };
        if written < frames.len() {
            // A socket that failed is noticed by the reading task.
            unwritten.extend_from_slice(&frames[written..]);
            self.wake.notify_one();
        }
    }

    /// Queues whole frames, to go out once the bytes being read are through: for use inside `take` alone.
    pub fn send_soon(&self, frames: &[u8]) {
        self.unwritten.lock().extend_from_slice(frames);
    }

    /// Sends one text frame.
    pub fn send_text(&self, text: &str) {
        let mut out = Vec::with_capacity(text.len() + 14);
        frame::encode(&mut out, Opcode::Text, &[text.as_bytes()]);
        self.send(&out);
    }

    /// Lets the socket's end be a reset, as when a phone loses its network; leaves no port waiting.
    pub fn abort_on_close(&self) {
        // Only a convenience for the kernel's tables: without it the socket closes in the ordinary way.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads until the connection ends. `take` gets each message with the time its bytes arrived.
    pub async fn read(
        &self,
        reader: &mut Reader,
        mut take: impl FnMut(&Self, Incoming<'_>, Instant) -> Result<(), Closed>,
    ) -> Closed {
        let early = std::mem::take(&mut reader.early);
        if let Err(closed) = self.feed(&mut reader.decoder, &early, Instant::now(), &mut take) {
            return closed;
        }
        loop {
            let is_unwritten = !self.unwritten.lock().is_empty();
            tokio::select! {
                ready = self.stream.readable() => {
                    let read = ready.map_err(|error| Closed::Socket(error.kind()))
                        .and_then(|()| self.read_ready(&mut reader.decoder, &mut take));
                    if let Err(closed) = read {
                        return closed;
                    }
                }
                ready = self.stream.writable(), if is_unwritten => {
                    if let Err(error) = ready.and_then(|()| self.write_rest()) {
                        return Closed::Socket(error.kind());
                    }
                }
                () = self.wake.notified(), if !is_unwritten => {}
            }
        }
    }

    fn read_ready(
        &self,
        decoder: &mut Decoder,
        take: &mut impl FnMut(&Self, Incoming<'_>, Instant) -> Result<(), Closed>,
    ) -> Result<(), Closed> {
        SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
            Ok(0) => Err(Closed::ByService(None)),
            Ok(read) => self.feed(decoder, &scratch[..read], Instant::now(), take),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Closed::Socket(error.kind())),
        })
    }

    fn feed(
        &self,
        decoder: &mut Decoder,
        bytes: &[u8],
        at: Instant,
        take: &mut impl FnMut(&Self, Incoming<'_>, Instant) -> Result<(), Closed>,
    ) -> Result<(), Closed> {
        let mut end = None;
        let fed = decoder.feed(bytes, |opcode, payload| {
            if end.is_some() {
                return Ok(());
            }
            end = match opcode {
                Opcode::Text => match packet::parse(self.dialect, payload) {
                    Ok(Incoming::Ping) => {
                        self.send_frame(Opcode::Text, packet::PONG);
                        None
                    }
                    Ok(incoming) => take(self, incoming, at).err(),
                    Err(reason) => Some(Closed::Protocol(reason)),
                },
                Opcode::Binary => Some(Closed::Protocol("a binary frame came unasked".into())),
                Opcode::Close => {
                    let code = payload.get(..2).and_then(|code| code.try_into().ok()).map(u16::from_be_bytes);
                    self.send_frame(Opcode::Close, payload);
                    Some(Closed::ByService(code))
                }
                Opcode::Ping => {
                    self.send_frame(Opcode::Pong, payload);
                    None
                }
                Opcode::Pong => None,
            };
            Ok(())
        });
        if let Err(error) = self.write_rest() {
            return Err(Closed::Socket(error.kind()));
        }
        match (end, fed) {
            (Some(closed), _) => Err(closed),
            (None, Err(Broken(reason))) => Err(Closed::Protocol(reason.into())),
            (None, Ok(())) => Ok(()),
        }
    }

    fn send_frame(&self, opcode: Opcode, payload: &[u8]) {
        frame::encode(&mut self.unwritten.lock(), opcode, &[payload]);
    }

    fn write_rest(&self) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock();
        if unwritten.is_empty() {
            return Ok(());
        }
        match self.stream.try_write(&unwritten) {
            Ok(written) if written == unwritten.len() => *unwritten = Vec::new(),
            Ok(written) => drop(unwritten.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn path(dialect: Dialect, token: &str, since: Option<u64>) -> String {
    match dialect {
        Dialect::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
        Dialect::Plain => {
            let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
            format!("/ws?token={}{since}", percent_encoded(token))
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Answers the stream and what came behind the response's head.
async fn upgrade(mut stream: TcpStream, target: &Target, path: &str) -> Result<(TcpStream, Vec<u8>), String> {
    let request = format!(
        "GET {}{path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        target.prefix, target.authority
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("the upgrade failed: {error}"))?;
    let mut head = Vec::with_capacity(256);
    let end = loop {
        if let Some(place) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break place;
        }
        if head.len() > 16 * 1024 {
            return Err("the answer to the upgrade has no end".into());
        }
        let read =
            stream.read_buf(&mut head).await.map_err(|error| format!("the upgrade failed: {error}"))?;
        if read == 0 {
            return Err("the service closed the socket during the upgrade".into());
        }
    };
    let early = head.split_off(end + 4);
    check_upgrade(&String::from_utf8_lossy(&head))?;
    Ok((stream, early))
}

/// Whether an answer's head is what an upgrade's must be.
fn check_upgrade(head: &str) -> Result<(), String> {
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(format!("the upgrade was answered with {status}"));
    }
    let accept = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim()));
    match accept {
        Some(ACCEPT) => Ok(()),
        Some(other) => Err(format!("the upgrade's answer has the wrong Sec-WebSocket-Accept, {other}")),
        None => Err("the upgrade's answer has no Sec-WebSocket-Accept".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_that_was_agreed_on_goes_on() {
        let head =
            |status: &str, accept: &str| format!("HTTP/1.1 {status}\r\nupgrade: websocket\r\n{accept}\r\n");
        let good =
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\ndate: Wed, 25 Nov 2026 14:40:40 GMT\r\n";
        assert_eq!(check_upgrade(&head("101 Switching Protocols", good)), Ok(()));
        assert!(check_upgrade(&head("503 Service Unavailable", good)).unwrap_err().contains("503"));
        assert!(check_upgrade(&head("101 Switching Protocols", "")).unwrap_err().contains("no Sec-"));
        let bad = "Sec-WebSocket-Accept: x\r\n";
        assert!(check_upgrade(&head("101 Switching Protocols", bad)).unwrap_err().ends_with("Accept, x"));
    }

    #[test]
    fn tokens_of_any_kind_fit_into_the_url() {
        let path = path(Dialect::Plain, "7|AbC +/", Some(4));
        assert_eq!(path, "/ws?token=7%7CAbC%20%2B%2F&since=4");
    }
}
