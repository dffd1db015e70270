//! Handing mail over to the mail server: a few connections, kept for a while, each attempt with an end.
//!
//! lettre speaks the protocol. Its own pool is not used: an attempt that is given up in the middle would
//! go back there, and the next mail would be written into the last one. Nothing that a server says is
//! logged but its code: its words repeat addresses. Whether to try again is decided in `sender`.

use std::{
    fmt,
    time::{Duration, Instant},
};

use lettre::{
    Address,
    transport::smtp::{
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
        response::{Category, Code},
    },
};
use parking_lot::Mutex;

use crate::{
    config::{ConfigError, Encryption, SmtpUrl},
    identity::main_api::install_crypto_provider,
};

/// A connection that was not used for so long is not used again; servers close theirs after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// Where in the conversation with the server something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Sender,
    Recipient,
    Content,
}

/// A mail that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no such mailbox, says the server (5xx to the recipient).
    NoMailbox(Code),
    /// The server wants no such mail, whenever it comes (5xx to the content).
    Refused(Code),
    /// The server cannot just now, or does not want us: another time.
    Later(Phase, Option<Code>),
    /// No answer in time.
    TimedOut,
}

impl Failure {
    /// Whether the server itself is away, so that other mails would fare no better.
    pub(super) const fn is_server_away(self) -> bool {
        matches!(self, Self::TimedOut | Self::Later(Phase::Connect, _))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMailbox(code) => write!(formatter, "the recipient was refused with {code}"),
            Self::Refused(code) => write!(formatter, "the content was refused with {code}"),
            Self::TimedOut => formatter.write_str("the mail server did not answer in time"),
            Self::Later(phase, code) => {
                formatter.write_str(match phase {
                    Phase::Connect => "no connection to the mail server",
                    Phase::Sender => "the sender was not taken",
                    Phase::Recipient => "the recipient was not taken for now",
                    Phase::Content => "the content was not taken for now",
                })?;
                code.map_or(Ok(()), |code| write!(formatter, " ({code})"))
            }
        }
    }
}

/// The way to the mail server.
pub(super) struct Smtp {
    server: SmtpUrl,
    tls: Option<TlsParameters>,
    timeout: Duration,
    hello: ClientId,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl Smtp {
    /// Nothing is sent yet. `domain` is what the service calls itself.
    pub(super) fn new(server: &SmtpUrl, timeout: Duration, domain: &str) -> Result<Self, ConfigError> {
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::Tls | Encryption::StartTls | Encryption::Opportunistic => {
                install_crypto_provider();
                let parameters = TlsParameters::new(server.host.clone());
                Some(parameters.map_err(|_| {
                    ConfigError::new(
                        "SMTP_URL",
                        "asks for TLS, but this machine has no usable CA certificates.",
                    )
                })?)
            }
        };
        let hello = ClientId::Domain(domain.to_owned());
        Ok(Self { server: server.clone(), tls, timeout, hello, idle: Mutex::default() })
    }

    /// Hands a mail over; `Ok` once the server has said that it is its own now.
    pub(super) async fn send(&self, from: &Address, to: &Address, mail: &[u8]) -> Result<(), Failure> {
        // Dropped at the time-out, the connection is closed and never seen again.
        tokio::time::timeout(self.timeout, self.attempt(from, to, mail))
            .await
            .unwrap_or(Err(Failure::TimedOut))
    }

    async fn attempt(&self, from: &Address, to: &Address, mail: &[u8]) -> Result<(), Failure> {
        let mut connection = match self.reuse().await {
            Some(connection) => connection,
            None => self.connect().await.map_err(|error| Failure::Later(Phase::Connect, error.status()))?,
        };
        let later =
            |phase| move |error: lettre::transport::smtp::Error| Failure::Later(phase, error.status());
        connection.command(Mail::new(Some(from.clone()), Vec::new())).await.map_err(later(Phase::Sender))?;
        connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|error| {
            match error.status() {
                // 55x is about the mailbox; 50x, 53x and the like are about us.
                Some(code) if error.is_permanent() && code.category == Category::MailSystem => {
                    Failure::NoMailbox(code)
                }
                code => Failure::Later(Phase::Recipient, code),
            }
        })?;
        connection.command(Data).await.map_err(later(Phase::Content))?;
        connection.message(mail).await.map_err(|error| match error.status() {
            Some(code) if error.is_permanent() => Failure::Refused(code),
            code => Failure::Later(Phase::Content, code),
        })?;
        self.idle.lock().push((connection, Instant::now()));
        Ok(())
    }

    async fn reuse(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut connection, since) = self.idle.lock().pop()?;
            if since.elapsed() < IDLE && connection.test_connected().await {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let SmtpUrl { host, port, encryption, credentials, .. } = &self.server;
        let wrapper = self.tls.clone().filter(|_| *encryption == Encryption::Tls);
        let address = (host.as_str(), *port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, wrapper, None);
        let mut connection = connecting.await?;
        let starts_tls = match encryption {
            Encryption::StartTls => true,
            Encryption::Opportunistic => connection.can_starttls(),
            Encryption::Tls | Encryption::None => false,
        };
        if let Some(tls) = self.tls.clone().filter(|_| starts_tls) {
            connection.starttls(tls, &self.hello).await?;
        }
        if let Some((user, password)) = credentials {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }

    /// Closes what was not used for a while.
    pub(super) fn prune(&self) {
        self.idle.lock().retain(|(_, since)| since.elapsed() < IDLE);
    }

    /// Says goodbye on the connections that are kept.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        for (mut connection, _) in idle {
            connection.abort().await;
        }
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Smtp").field("server", &self.server).finish_non_exhaustive()
    }
}
