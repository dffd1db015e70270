//! The same over a cluster with sharded channels, and over a server that sentinels know.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    client::Live,
    nodes::Nodes,
    redis_server::{self, RedisServer},
    support::{Backend, TestDatabase},
};

const ANNA: i64 = 1;
const BEN: i64 = 2;

/// What needs each of the shared things once.
async fn everything_is_shared(url: &str) -> Option<()> {
    let variables = [("REDIS_URL", url), ("RATE_LIMIT_MESSAGES", "1"), ("RATE_LIMIT_BURST", "12")];
    let mut nodes = Nodes::new(TestDatabase::new(Backend::Postgres).await?, None, &variables).await;
    nodes.start_node().await;
    nodes.start_node().await;
    nodes.wait_for_redis(0, "up").await;
    nodes.wait_for_redis(1, "up").await;
    nodes.send(0, ANNA, BEN, "first").await;
    let ben = nodes.connect(1, BEN).await;
    let anna = nodes.connect(0, ANNA).await;
    ben.wait_for("user_presence", |data| data["user_id"] == ANNA && data["status"] == "online").await;
    // Over the bus, not from the log, which is compared every half minute.
    for number in 0..5 {
        let began = Instant::now();
        nodes.send(0, ANNA, BEN, &format!("hello {number}")).await;
        ben.wait_for_words(&format!("hello {number}")).await;
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    anna.wait_for("message_delivered", |data| data["user_id"] == BEN).await;
    let others = futures_util::future::join_all((10..60).map(|user| nodes.connect(1, user))).await;
    nodes.send(0, BEN, 42, "to one of them").await;
    others[32].wait_for_words("to one of them").await;
    assert_eq!(nodes.questions(), 52, "each token was asked about once");
    for number in 0..6 {
        nodes.send(1 - number % 2, ANNA, BEN, "more").await;
    }
    let body = json!({"receiver_id": BEN, "content": "one too many"});
    assert_eq!(nodes.post(0, ANNA, "/api/messages", &body).await.0, 429);
    assert_eq!(nodes.post(1, ANNA, "/api/messages", &body).await.0, 429);
    ben.assert_no_gap();
    anna.close().await;
    ben.wait_for("user_presence", |data| data["user_id"] == ANNA && data["status"] == "offline").await;
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster() {
    let Some(servers) = start_cluster().await else { return };
    everything_is_shared(&cluster_url(&servers)).await;
}

/// Three leaders, each with a third of the slots.
async fn start_cluster() -> Option<Vec<RedisServer>> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        // One whose slots have all moved stays a leader.
        options.extend(["--cluster-allow-replica-migration", "no"]);
        servers.push(RedisServer::start(&options).await?);
    }
    for (server, slots) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).await;
        server.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port().to_string()]).await;
    }
    wait_for_cluster(&servers, 3).await;
    Some(servers)
}

async fn wait_for_cluster(servers: &[RedisServer], known: usize) {
    let known = format!("cluster_known_nodes:{known}");
    for server in servers {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let state: String = redis::from_redis_value(server.ask(&["CLUSTER", "INFO"]).await).unwrap();
            if state.contains("cluster_state:ok") && state.contains(&known) {
                break;
            }
            assert!(Instant::now() < until, "{state}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn cluster_url(servers: &[RedisServer]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    format!("redis-cluster://{}", hosts.join(","))
}

/// A `redis-server` in the role of a sentinel, for a leader that it calls `shop`.
struct Sentinel {
    port: u16,
    process: std::process::Child,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    async fn start(leader: &RedisServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        let words = format!(
            "sentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 1000\n\
             sentinel failover-timeout shop 5000\n",
            leader.port()
        );
        std::fs::write(&file, words).unwrap();
        let port = redis_server::free_port();
        let process = std::process::Command::new("redis-server")
            .arg(&file)
            .args(["--sentinel", "--port", &port.to_string()])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        Self { port, process, _folder: folder }
    }

    fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/shop", self.port)
    }

    /// What it answers as text, or nothing.
    async fn ask(&self, words: &[&str]) -> String {
        format!("{:?}", redis_server::ask(&format!("redis://127.0.0.1:{}", self.port), words).await)
    }

    async fn wait_until_it_says(&self, words: &[&str], expected: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.ask(words).await;
            if said.contains(expected) {
                return;
            }
            assert!(Instant::now() < until, "{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels() {
    let Some(leader) = RedisServer::start(&[]).await else { return };
    let sentinel = Sentinel::start(&leader).await;
    everything_is_shared(&sentinel.url()).await;
}

/// What the service promises after the return of Redis.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// Beyond what a look into the log would take: it came over the bus.
const OVER_THE_BUS: Duration = Duration::from_millis(500);
/// So many in a row take longer than from one look into the log to the next.
const PROBES: usize = 15;

/// Somebody who never stops writing, from one node to the other.
struct Traffic {
    nodes: Arc<Nodes>,
    ben: Live,
    sent: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    async fn start(url: &str) -> Option<Self> {
        let mut nodes =
            Nodes::new(TestDatabase::new(Backend::Postgres).await?, None, &[("REDIS_URL", url)]).await;
        nodes.start_node().await;
        nodes.start_node().await;
        nodes.wait_for_redis(0, "up").await;
        nodes.wait_for_redis(1, "up").await;
        let ben = nodes.connect(1, BEN).await;
        let (nodes, sent, is_over) =
            (Arc::new(nodes), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (sender, count, until) = (Arc::clone(&nodes), Arc::clone(&sent), Arc::clone(&is_over));
        let task = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let began = Instant::now();
                sender.send(0, ANNA, BEN, &format!("message {number}")).await;
                assert!(
                    began.elapsed() < Duration::from_secs(2),
                    "nobody waits for Redis: {:?}",
                    began.elapsed()
                );
                count.store(number + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let traffic = Self { nodes, ben, sent, is_over, task };
        traffic.ben.wait_for_words("message 10").await;
        Some(traffic)
    }

    /// How long it takes until messages come over the bus again: one after the other, since one alone may have been
    /// found by a look into the log that was due anyway.
    async fn heals(&self) -> Duration {
        let began = Instant::now();
        let (mut healed, mut streak) = (began.elapsed(), 0);
        while began.elapsed() < Duration::from_secs(30) {
            let sent = Instant::now();
            let words = format!("probe {:?}", began.elapsed());
            self.nodes.send(0, ANNA, BEN, &words).await;
            self.ben.wait_for_words(&words).await;
            streak += 1;
            if sent.elapsed() > OVER_THE_BUS {
                (healed, streak) = (began.elapsed(), 0);
            }
            if streak == PROBES {
                return healed;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        panic!("messages come from the log alone");
    }

    /// Ends it: every message was heard once, in order.
    async fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let count = self.sent.load(Ordering::Relaxed);
        self.ben.wait_for_words(&format!("message {}", count - 1)).await;
        self.ben.assert_no_gap();
        let heard: Vec<_> =
            self.ben.words().into_iter().filter(|words| words.starts_with("message")).collect();
        let expected: Vec<_> = (0..count).map(|number| format!("message {number}")).collect();
        assert_eq!(heard, expected);
        assert!(self.ben.all("sync_required").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_by_the_sentinels_and_nodes_follow() {
    let Some(mut leader) = RedisServer::start(&[]).await else { return };
    let port = leader.port().to_string();
    let options = ["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"];
    let Some(replica) = RedisServer::start(&options).await else { return };
    let sentinel = Sentinel::start(&leader).await;
    sentinel.wait_until_it_says(&["SENTINEL", "REPLICAS", "shop"], &replica.port().to_string()).await;
    sentinel.wait_until_it_says(&["SENTINEL", "REPLICAS", "shop"], "master-link-status").await;
    let Some(traffic) = Traffic::start(&sentinel.url()).await else { return };
    leader.kill();
    let leader_is = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"];
    sentinel.wait_until_it_says(&leader_is, &replica.port().to_string()).await;
    let took = traffic.heals().await;
    eprintln!("over the bus again {took:?} after the new leader was named");
    assert!(took < HEALED_WITHIN, "{took:?}");
    traffic.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_leader_dies_goes_on_with_its_replica() {
    let Some(mut servers) = start_cluster().await else { return };
    // The one that has Ben's channel.
    let slot: i64 =
        redis::from_redis_value(servers[0].ask(&["CLUSTER", "KEYSLOT", "rented:user:2"]).await).unwrap();
    let place = if slot <= 5460 {
        0
    } else if slot <= 10922 {
        1
    } else {
        2
    };
    let id: String = redis::from_redis_value(servers[place].ask(&["CLUSTER", "MYID"]).await).unwrap();
    let options =
        ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
    let Some(replica) = RedisServer::start(&options).await else { return };
    replica.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port().to_string()]).await;
    servers.push(replica);
    wait_for_cluster(&servers, 4).await;
    servers[3].ask(&["CLUSTER", "REPLICATE", &id]).await;
    wait_for_info(&servers[3], "master_link_status:up").await;
    let Some(traffic) = Traffic::start(&cluster_url(&servers[..3])).await else { return };
    servers[place].kill();
    wait_for_info(&servers[3], "role:master").await;
    let took = traffic.heals().await;
    eprintln!("over the bus again {took:?} after the replica took over");
    assert!(took < HEALED_WITHIN, "{took:?}");
    traffic.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_may_move_under_traffic() {
    let Some(servers) = start_cluster().await else { return };
    let Some(traffic) = Traffic::start(&cluster_url(&servers)).await else { return };
    let mut ids = Vec::new();
    for server in &servers {
        let id: String = redis::from_redis_value(server.ask(&["CLUSTER", "MYID"]).await).unwrap();
        ids.push(id);
    }
    // All that each of them has goes to the next, so that every channel moves.
    for from in 0..3 {
        let slots = if from == 0 { "5461" } else { "5462" };
        let answer = tokio::process::Command::new("redis-cli")
            .args(["--cluster", "reshard", &format!("127.0.0.1:{}", servers[0].port())])
            .args(["--cluster-from", &ids[from], "--cluster-to", &ids[(from + 1) % 3]])
            .args(["--cluster-slots", slots, "--cluster-yes", "--cluster-pipeline", "100"])
            .output()
            .await
            .unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stdout));
    }
    let took = traffic.heals().await;
    eprintln!("over the bus {took:?} after the last slot moved");
    assert!(took < HEALED_WITHIN, "{took:?}");
    traffic.finish().await;
}

async fn wait_for_info(server: &RedisServer, expected: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let state: String = redis::from_redis_value(server.ask(&["INFO", "replication"]).await).unwrap();
        if state.contains(expected) {
            return;
        }
        assert!(Instant::now() < until, "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
