//! A mail server: as much of RFC 5321 as a client meets, and every way in which one can fail.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mail_parser::{Message, MessageParser};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

/// How it behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Accept,
    /// Connections are closed at once.
    Down,
    /// Nothing is ever said.
    Mute,
    /// This is answered to `MAIL FROM`,
    Sender(&'static str),
    /// to `RCPT TO`,
    Recipient(&'static str),
    /// to the content, which is thrown away.
    Content(&'static str),
    /// The content is never answered, and thrown away,
    Swallow,
    /// or kept.
    KeepAndHang,
}

/// A mail that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
}

impl Mail {
    pub(crate) fn parse(&self) -> Message<'_> {
        MessageParser::default().parse(&self.content).expect("a mail")
    }

    pub(crate) fn subject(&self) -> String {
        self.parse().subject().unwrap().to_owned()
    }

    pub(crate) fn message_id(&self) -> String {
        self.parse().message_id().unwrap().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        self.parse().body_text(0).unwrap().into_owned()
    }

    pub(crate) fn html(&self) -> String {
        self.parse().body_html(0).unwrap().into_owned()
    }

    /// A header as it was sent.
    pub(crate) fn header(&self, name: &str) -> String {
        let raw =
            self.parse().header_raw(name).unwrap_or_else(|| panic!("{name} is missing")).trim().to_owned();
        raw.replace("\r\n", "")
    }
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    mails: Vec<Mail>,
    /// Commands in the order of arrival.
    commands: Vec<String>,
}

pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    _running: JoinSet<()>,
}

impl SmtpServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { behaviour: Behaviour::Accept, mails: Vec::new(), commands: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (change, changed) = watch::channel(());
        let shared = Arc::clone(&state);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let session = Session { state: Arc::clone(&shared), change: change.clone() };
                connections.spawn(async move { session.serve(stream).await.unwrap_or_default() });
            }
        });
        Self { address, state, changed, _running: running }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.state.lock().behaviour = behaviour;
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.state.lock().mails.clone()
    }

    pub(crate) fn mails_to(&self, address: &str) -> Vec<Mail> {
        self.mails().into_iter().filter(|mail| mail.to == [address]).collect()
    }

    /// How often a command that begins so was said.
    pub(crate) fn heard(&self, command: &str) -> usize {
        self.state.lock().commands.iter().filter(|said| said.starts_with(command)).count()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.clone();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if is_so(self) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.state.lock());
    }
}

struct Session {
    state: Arc<Mutex<State>>,
    change: watch::Sender<()>,
}

impl Session {
    fn behaviour(&self) -> Behaviour {
        self.state.lock().behaviour
    }

    fn note(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.state.lock());
        let _ = self.change.send(());
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        match self.behaviour() {
            Behaviour::Down => {
                self.note(|state| state.commands.push("(closed)".to_owned()));
                return Ok(());
            }
            Behaviour::Mute => {
                self.note(|state| state.commands.push("(connected)".to_owned()));
                return std::future::pending().await;
            }
            _ => {}
        }
        stream.write_all(b"220 mail.example.test\r\n").await?;
        let mut mail = Mail { from: String::new(), to: Vec::new(), content: Vec::new() };
        loop {
            let mut command = String::new();
            if stream.read_line(&mut command).await? == 0 {
                return Ok(());
            }
            let command = command.trim_end().to_owned();
            self.note(|state| state.commands.push(command.clone()));
            let address = || command.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            let answer = match (command.get(..4).unwrap_or_default(), self.behaviour()) {
                ("EHLO", _) => "250-mail.example.test\r\n250 PIPELINING",
                ("MAIL", Behaviour::Sender(answer)) | ("RCPT", Behaviour::Recipient(answer)) => answer,
                ("MAIL", _) => {
                    mail = Mail { from: address(), to: Vec::new(), content: Vec::new() };
                    "250 fine"
                }
                ("RCPT", _) => {
                    mail.to.push(address());
                    "250 fine"
                }
                ("DATA", _) => {
                    stream.write_all(b"354 go on\r\n").await?;
                    mail.content = content(&mut stream).await?;
                    match self.behaviour() {
                        Behaviour::Content(answer) => answer,
                        Behaviour::Swallow => {
                            self.note(|state| state.commands.push("(swallowed)".to_owned()));
                            return std::future::pending().await;
                        }
                        Behaviour::KeepAndHang => {
                            self.note(|state| state.mails.push(mail.clone()));
                            return std::future::pending().await;
                        }
                        _ => {
                            self.note(|state| state.mails.push(mail.clone()));
                            "250 it is ours now"
                        }
                    }
                }
                ("NOOP" | "RSET", _) => "250 fine",
                ("QUIT", _) => "221 bye",
                _ => "500 what?",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

/// Up to the line with a dot alone; a dot that was put before another is taken away.
async fn content(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
