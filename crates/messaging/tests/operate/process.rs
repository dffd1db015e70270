//! The built program, started in a folder of its own with nothing of the caller's environment.

use std::{
    net::TcpListener,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::stand_ins::MainApi;

/// As long as anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running service and everything that it writes to its log.
pub(crate) struct Program {
    pub(crate) url: String,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
    client: Client,
}

pub(crate) fn command(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rented-messaging"));
    command.env_clear().current_dir(folder.path()).kill_on_drop(true).stdin(Stdio::null());
    command
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build().unwrap()
}

impl Program {
    /// Starts `serve` on SQLite with these variables and waits until it answers.
    pub(crate) async fn start(main_api: &MainApi, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = command(&folder);
        command.arg("serve").stderr(Stdio::piped()).stdout(Stdio::null());
        command.env("HOST", "127.0.0.1").env("PORT", port.to_string());
        command.env("MAIN_API_URL", &main_api.url).env("LOG_FORMAT", "json");
        command.envs(variables.iter().copied());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let program =
            Self { url: format!("http://127.0.0.1:{port}"), port, folder, child, log, client: client() };
        program.wait_for_line("rented-messaging serves").await;
        program
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The lines whose message this is.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The first line with this message, once there is one.
    pub(crate) async fn wait_for_line(&self, message: &str) -> Value {
        let waited = timeout(PATIENCE, async {
            loop {
                if let Some(line) = self.lines(message).into_iter().next() {
                    return line;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no line says {message:?}:\n{}", self.log()))
    }

    /// Breaks the database under the running service: what needs messages is a defect from now on.
    pub(crate) async fn break_database(&self) {
        use sqlx::Connection;
        let url = format!("sqlite:{}", self.folder.path().join("data/messaging.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("alter table messages rename to gone").execute(&mut connection).await.unwrap();
    }

    /// Sends SIGTERM and waits for the end; the code is 0 when all is well.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }
}
