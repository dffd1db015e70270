//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{pace::Arrivals, usage::Watched, wire::packet::Dialect};

/// Drives a running messaging service over the wire as its clients do, checks every answer and measures.
///
/// Exit code 0: all went well; 1: something was lost, repeated, out of order, refused or otherwise wrong;
/// 2: it could not be run.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Idle authenticated connections: memory, CPU and connects a second
    Connect(Connect),
    /// Messages at a steady rate, whoever is slow: latency from the time each was due
    Send(Send),
    /// As many messages as the service takes
    Flood(Flood),
    /// Everybody loses the connection and comes back at once
    Reconnect(Reconnect),
    /// Conversation list, history page, search and sync
    Rest(Rest),
    /// Messages at a steady rate for long, while clients come and go and catch up
    Soak(Soak),
    /// A bare WebSocket echo on this machine: what connections alone cost
    Echo(Echo),
    /// Start a service again and again until it is ready
    Start(Start),
    /// A stand-in main API that knows any user and product
    MainApi(MainApi),
    /// Print one number of a run's JSON
    Figure(OneFigure),
    /// The echo's server
    #[command(hide = true)]
    EchoServer(EchoServer),
}

/// Where the service is and what to write.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The service
    #[arg(long, default_value = "http://127.0.0.1:3001")]
    pub url: String,
    /// The service's process, to read its memory and CPU
    #[arg(long)]
    pub pid: Option<u32>,
    /// Another process whose CPU counts, with its children
    #[arg(long, value_name = "NAME=PID")]
    pub watch: Vec<Watched>,
    /// How connections speak; `mixed`: every other one
    #[arg(long, value_enum, default_value_t = Transport::SocketIo)]
    pub transport: Transport,
    /// What tokens look like
    #[arg(long, default_value = "user-{id}")]
    pub token: String,
    /// The first user's id
    #[arg(long, default_value_t = 1)]
    pub first_user: u64,
    /// Write all figures as JSON; `-` is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Threads for the connections
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Sockets that may be connecting at once; 0 is all
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Seconds to wait at the end for what is still on its way
    #[arg(long, default_value_t = 20.0)]
    pub drain: f64,
    /// Repeats the same choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// No progress line
    #[arg(long)]
    pub quiet: bool,
}

/// How connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Socket.IO over WebSocket
    #[value(name = "socketio")]
    SocketIo,
    /// Plain WebSocket
    Plain,
    /// Every other one
    Mixed,
}

impl Transport {
    /// The dialect of a user.
    pub fn of(self, index: u32) -> Dialect {
        match self {
            Self::SocketIo => Dialect::SocketIo,
            Self::Plain => Dialect::Plain,
            // By pairs, so that each dialect both sends to and receives from the other.
            Self::Mixed if index.is_multiple_of(2) => Dialect::SocketIo,
            Self::Mixed => Dialect::Plain,
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::SocketIo => "Socket.IO over WebSocket",
            Self::Plain => "plain WebSocket",
            Self::Mixed => "Socket.IO and plain WebSocket by turns",
        })
    }
}

/// How messages are made.
#[derive(Debug, Clone, Args)]
pub struct Messages {
    /// Bytes of a message's words
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..=4900))]
    pub size: u64,
    /// Send without `client_message_id`
    #[arg(long)]
    pub no_client_ids: bool,
    /// Take the ack for the confirmation, instead of `message_sent`
    #[arg(long)]
    pub ack: bool,
    /// Seconds before the measured stretch
    #[arg(long, default_value_t = 3.0)]
    pub warm_up: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 20.0)]
    pub duration: f64,
}

/// `connect`
#[derive(Debug, Args)]
pub struct Connect {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub common: Common,
    /// How many
    #[arg(short = 'n', long, default_value_t = 10_000)]
    pub connections: u32,
    /// Seconds for which they are held
    #[arg(long, default_value_t = 60.0)]
    pub hold: f64,
}

/// `send`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Send {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub messages: Messages,
    /// How many users, in pairs
    #[arg(short = 'n', long, default_value_t = 1000)]
    pub connections: u32,
    /// Messages a second
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// How they are spread over time
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
}

/// `flood`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Flood {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub messages: Messages,
    /// How many users, in pairs
    #[arg(short = 'n', long, default_value_t = 200)]
    pub connections: u32,
    /// How many of them send; all by default
    #[arg(long)]
    pub senders: Option<u32>,
    /// Messages that each sender has on the way
    #[arg(long, default_value_t = 8)]
    pub depth: u32,
}

/// `reconnect`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Reconnect {
    #[command(flatten)]
    pub common: Common,
    /// How many
    #[arg(short = 'n', long, default_value_t = 10_000)]
    pub connections: u32,
    /// How often
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// The stand-in main API, to count its calls per token
    #[arg(long)]
    pub main_api: Option<String>,
}

/// `rest`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Rest {
    #[command(flatten)]
    pub common: Common,
    /// Users that ask
    #[arg(long, default_value_t = 60)]
    pub users: u32,
    /// Conversations each user has
    #[arg(long, default_value_t = 20)]
    pub conversations: u32,
    /// Messages each conversation has
    #[arg(long, default_value_t = 60)]
    pub messages: u32,
    /// Keep-alive connections, each with one request at a time
    #[arg(long, default_value_t = 16)]
    pub workers: u32,
    /// Seconds before each measured stretch
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Seconds that each call is measured
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    /// Only these calls
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Call>,
}

/// A REST call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// GET /api/conversations
    List,
    /// GET /api/conversations/:id/messages, the newest 50
    History,
    /// GET /api/messages/search in one conversation
    Search,
    /// GET /api/sync, the last 100 events
    Sync,
}

/// `soak`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Soak {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub messages: Messages,
    /// How many users, in pairs
    #[arg(short = 'n', long, default_value_t = 500)]
    pub connections: u32,
    /// Messages a second
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// Connections lost a second; each comes back by itself
    #[arg(long, default_value_t = 5.0)]
    pub churn: f64,
}

/// `echo`
#[derive(Debug, Args)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Echo {
    #[command(flatten)]
    pub common: Common,
    /// How many connections
    #[arg(short = 'n', long, default_value_t = 200)]
    pub connections: u32,
    /// Frames that each has on the way
    #[arg(long, default_value_t = 8)]
    pub depth: u32,
    /// Bytes of a frame
    #[arg(long, default_value_t = 80)]
    pub size: usize,
    /// Frames sent back for each
    #[arg(long, default_value_t = 1)]
    pub copies: u8,
    /// Seconds
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
}

/// `start`
#[derive(Debug, Args)]
pub struct Start {
    /// Where it will be ready
    #[arg(long, default_value = "http://127.0.0.1:3001")]
    pub url: String,
    /// How often
    #[arg(long, default_value_t = 7)]
    pub rounds: u32,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `main-api`
#[derive(Debug, Args)]
pub struct MainApi {
    /// The port on 127.0.0.1
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Milliseconds each answer takes
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
}

/// `figure`
#[derive(Debug, Args)]
pub struct OneFigure {
    /// What `--json` wrote
    pub file: PathBuf,
    /// The figure's name, or a latency's with `--percentile`
    pub name: String,
    /// p50, p90, p99, p999 or max, in milliseconds
    #[arg(long)]
    pub percentile: Option<String>,
}

/// `echo-server`
#[derive(Debug, Args)]
pub struct EchoServer {
    /// The port on 127.0.0.1; 0 is any, written to standard output
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Frames sent back for each
    #[arg(long, default_value_t = 1)]
    pub copies: u8,
}
