//! Identity against a stand-in main API that speaks real HTTP: every sentence of contract section 5.

mod directory;
mod stand_in;
mod tokens;

use std::{collections::HashMap, time::Duration};

use messaging::{
    clock::{Clock, Timestamp},
    config::Config,
    identity::{Directory, Identity, MainApi, Token},
    storage::{Store, StoreOptions},
};
use stand_in::StandIn;

/// 2025-12-05T10:30:00Z, which the tokens in `tests/keys` were signed for.
const START: Timestamp = Timestamp::from_millis(1_764_930_600_000);
const TTL: Duration = Duration::from_secs(3600);
const HMAC_KEY: [u8; 32] = [7; 32];

/// Identity and directory over an embedded database, a stand-in main API and a clock that stands still.
struct World {
    main_api: StandIn,
    clock: Clock,
    store: Store,
    client: MainApi,
    directory: Directory,
    identity: Identity,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(vars: &[(&str, &str)]) -> Self {
        let main_api = StandIn::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(START);
        let options = StoreOptions {
            url: format!("sqlite:{}", folder.path().join("messaging.db").display()),
            pool_min: 1,
            pool_max: 4,
            timeout: Duration::from_secs(20),
        };
        let store = Store::open(&options, clock.clone()).await.expect("the database opens");
        let config = config(&main_api.base, vars);
        let client = client(&config, &clock);
        let directory = Directory::new(store.clone(), client.clone(), config.redis.ttl, clock.clone());
        let identity = Identity::new(
            client.clone(),
            directory.clone(),
            &config.jwt,
            HMAC_KEY,
            config.redis.ttl,
            clock.clone(),
        );
        Self { main_api, clock, store, client, directory, identity, _folder: folder }
    }

    /// The same database in a process that has just started.
    fn restarted(&self) -> Directory {
        Directory::new(self.store.clone(), self.client.clone(), TTL, self.clock.clone())
    }
}

fn config(base: &str, vars: &[(&str, &str)]) -> Config {
    let mut all = HashMap::from([
        ("MAIN_API_URL".to_owned(), base.to_owned()),
        ("MAIN_API_TIMEOUT".to_owned(), "500".to_owned()),
    ]);
    all.extend(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Config::from_env(all).expect("a configuration")
}

fn client(config: &Config, clock: &Clock) -> MainApi {
    let base = config.main_api_url().expect("a URL");
    MainApi::new(base, &config.main_api, clock.clone()).expect("a client")
}

fn token(text: &str) -> Token {
    Token::parse(text).expect("a token")
}

/// Waits for something that happens behind an answer.
async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    for _ in 0..500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}
