//! Lua scripts of one key: sent whole once, afterwards known by their hash.

use redis::{Cmd, RedisResult, Value};

use super::connect::Wire;

/// A script and its hash.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    pub(super) async fn run(&self, wire: &mut Wire, key: &str, arguments: &[&[u8]]) -> RedisResult<Value> {
        match wire.ask(&self.command(true, key, arguments)).await {
            Err(error) if is_unknown(&error) => wire.ask(&self.command(false, key, arguments)).await,
            answer => answer,
        }
    }

    /// In the order of the calls; one that fails fails all of them.
    pub(super) async fn run_all(
        &self,
        wire: &mut Wire,
        calls: &[(String, Vec<Vec<u8>>)],
    ) -> RedisResult<Vec<Value>> {
        let commands: Vec<Cmd> =
            calls.iter().map(|(key, arguments)| self.command(true, key, arguments)).collect();
        let mut values = Vec::with_capacity(calls.len());
        for (answer, (key, arguments)) in wire.ask_all(&commands).await.into_iter().zip(calls) {
            values.push(match answer {
                // After the first of these Redis knows it, but the others were already on their way.
                Err(error) if is_unknown(&error) => wire.ask(&self.command(false, key, arguments)).await?,
                answer => answer?,
            });
        }
        Ok(values)
    }

    fn command<A: AsRef<[u8]>>(&self, by_hash: bool, key: &str, arguments: &[A]) -> Cmd {
        let mut command = if by_hash {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&self.hash);
            command
        } else {
            let mut command = redis::cmd("EVAL");
            command.arg(self.text);
            command
        };
        command.arg(1).arg(key);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        command
    }
}

fn is_unknown(error: &redis::RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}
