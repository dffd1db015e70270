//! From `REDIS_URL` to a connection: one server, a group watched by sentinels, or a cluster.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    PushInfo, RedisConnectionInfo, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use crate::config::{RedisTopology, RedisUrl, Secret};

/// A server that does not accept within this time is away.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The most that any answer is waited for; those who ask set shorter times of their own.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Requests on their way to the socket. The library's 50 make a storm of subscriptions take turns.
const BUFFERED: usize = 4096;
/// Channels subscribed to by one command.
const CHANNELS: usize = 1000;

/// Takes what Redis pushes; must not wait.
pub(crate) type Pushed = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Where to connect, and how. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target {
    url: Arc<RedisUrl>,
}

/// A connection that many may use at once. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Wire {
    /// To one server, found by its address or by sentinels.
    Server(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("topology", &self.url.topology).finish_non_exhaustive()
    }
}

impl Target {
    /// Fails where the parts cannot be connected to, whatever is there.
    pub(super) fn new(url: &RedisUrl) -> Result<Self, String> {
        let target = Self { url: Arc::new(url.clone()) };
        for address in target.addresses() {
            target.server(address).map_err(|error| format!("cannot be used: {error}."))?;
        }
        Ok(target)
    }

    pub(super) async fn connect(&self, pushed: Option<Pushed>) -> RedisResult<Wire> {
        match &self.url.topology {
            RedisTopology::Single => {
                let address = self.addresses().next().expect("a Redis URL names a host");
                let client = Client::open(self.server(address)?)?;
                Ok(Wire::Server(connect(&client, pushed).await?))
            }
            RedisTopology::Sentinel { service } => {
                let client = self.master(service).await?;
                Ok(Wire::Server(connect(&client, pushed).await?))
            }
            RedisTopology::Cluster => {
                let nodes =
                    self.addresses().map(|address| self.server(address)).collect::<RedisResult<Vec<_>>>()?;
                let mut builder = ClusterClient::builder(nodes)
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(CONNECT_PATIENCE)
                    .response_timeout(ANSWER_PATIENCE);
                if let Some(username) = &self.url.username {
                    builder = builder.username(username);
                }
                if let Some(password) = &self.url.password {
                    builder = builder.password(password.expose());
                }
                if let Some(pushed) = pushed {
                    builder = builder.push_sender(push_sender(pushed));
                }
                let client = builder.build()?;
                Ok(Wire::Cluster(client.get_async_connection_with_config(ClusterConfig::new()).await?))
            }
        }
    }

    /// Asks the sentinels who leads the group. Names and passwords of the URL are the group's, not theirs.
    async fn master(&self, service: &str) -> RedisResult<Client> {
        let mut builder = SentinelClientBuilder::new(self.addresses(), service, SentinelServerType::Master)?
            .set_client_to_redis_protocol(ProtocolVersion::RESP3)
            .set_client_to_redis_db(i64::from(self.url.database));
        if let Some(username) = &self.url.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.url.password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        if self.url.tls {
            builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
        }
        builder.build()?.async_get_client().await
    }

    fn addresses(&self) -> impl Iterator<Item = ConnectionAddr> {
        let tls = self.url.tls;
        self.url.nodes.iter().map(move |(host, port)| {
            let (host, port) = (host.clone(), *port);
            if tls {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            }
        })
    }

    fn server(&self, address: ConnectionAddr) -> RedisResult<ConnectionInfo> {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(i64::from(self.url.database))
            .set_lib_name("rented-messaging", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.url.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = self.url.password.as_ref().map(Secret::expose) {
            settings = settings.set_password(password);
        }
        Ok(address.into_connection_info()?.set_redis_settings(settings))
    }
}

async fn connect(client: &Client, pushed: Option<Pushed>) -> RedisResult<MultiplexedConnection> {
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_PATIENCE))
        .set_response_timeout(Some(ANSWER_PATIENCE))
        .set_pipeline_buffer_size(BUFFERED);
    if let Some(pushed) = pushed {
        config = config.set_push_sender(push_sender(pushed));
    }
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn push_sender(pushed: Pushed) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync {
    move |info| {
        pushed(info);
        Ok(())
    }
}

impl Wire {
    pub(super) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let value = match self {
            Self::Server(connection) => connection.req_packed_command(command).await?,
            Self::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        value.extract_error()
    }

    /// Many requests in one write; in a cluster, one after the other without waiting between them.
    pub(crate) async fn ask_all(&mut self, commands: &[Cmd]) -> Vec<RedisResult<Value>> {
        match self {
            Self::Server(connection) => {
                let mut pipeline = redis::Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                match connection.req_packed_commands(&pipeline, 0, commands.len()).await {
                    Ok(values) => values.into_iter().map(Value::extract_error).collect(),
                    Err(error) => commands.iter().map(|_| Err(error.clone())).collect(),
                }
            }
            Self::Cluster(connection) => {
                let asked = commands.iter().map(|command| {
                    let mut connection = connection.clone();
                    async move { connection.req_packed_command(command).await?.extract_error() }
                });
                join_all(asked).await
            }
        }
    }

    /// A sign of life.
    pub(super) async fn ping(&mut self, key: &str) -> RedisResult<()> {
        match self {
            Self::Server(_) => self.ask(&redis::cmd("PING")).await?,
            // `PING` goes to every node and fails with any of them; a cluster lives while it answers.
            Self::Cluster(_) => self.ask(redis::cmd("EXISTS").arg(key)).await?,
        };
        Ok(())
    }

    /// Waits until all of these channels are subscribed to.
    pub(crate) async fn subscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::Server(connection) => {
                for channels in channels.chunks(CHANNELS) {
                    connection.subscribe(channels).await?;
                }
                Ok(())
            }
            // Each channel is in a slot of its own.
            Self::Cluster(connection) => {
                let asked = channels.iter().map(|channel| {
                    let mut connection = connection.clone();
                    async move { connection.ssubscribe(channel).await }
                });
                join_all(asked).await.into_iter().collect()
            }
        }
    }

    /// The reverse.
    pub(crate) async fn unsubscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::Server(connection) => {
                for channels in channels.chunks(CHANNELS) {
                    connection.unsubscribe(channels).await?;
                }
                Ok(())
            }
            Self::Cluster(connection) => {
                let asked = channels.iter().map(|channel| {
                    let mut connection = connection.clone();
                    async move { connection.sunsubscribe(channel).await }
                });
                join_all(asked).await.into_iter().collect()
            }
        }
    }

    /// The command that publishes; its answer is the number of those who got it.
    pub(crate) fn publication(&self, channel: &str, words: &[u8]) -> Cmd {
        let mut command = redis::cmd(if self.counts_receivers() { "PUBLISH" } else { "SPUBLISH" });
        command.arg(channel).arg(words);
        command
    }

    /// Whether a publication's answer counts all who got it: in a cluster it counts one node's.
    pub(crate) const fn counts_receivers(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}
