//! `kill -9` of the real program between a commit and the push, and what its logs tell of anybody.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    redis_server::free_port,
    support::{Backend, TestDatabase},
    world::{ANNA, BEN, World},
};

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(world: &mut World, logs: &Path) -> Program {
    let port = free_port();
    let log = File::options().append(true).create(true).open(logs).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rented-messaging"));
    command
        .envs(&world.nodes.variables)
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("LOG_LEVEL", "debug")
        .current_dir(logs.parent().unwrap())
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log));
    let program = Program(command.spawn().unwrap());
    world.nodes.adopt_node(([127, 0, 0, 1], port).into()).await;
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_under_way_at_kill_9_is_sent_once_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("log");
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    let mut world = World::with(database, None, 0, &[]).await;
    let program = start(&mut world, &logs).await;
    let token = "a-token-that-nobody-may-read";
    world.register(BEN, token, "android").await;
    world.fcm.hang_at_the_door(true);
    world.send(ANNA, BEN, "words that nobody may read").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(program);

    world.fcm.hang_at_the_door(false);
    let aged = "update notification_marks set claimed_at = claimed_at - 120000 where claimed_at is not null";
    world.nodes.database.as_ref().unwrap().execute(aged).await;
    let _program = start(&mut world, &logs).await;
    let pushes = world.fcm.wait_for(token, 1).await;
    assert_eq!(pushes[0]["notification"]["body"], "words that nobody may read");
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to(token).len(), 1);

    let logs = std::fs::read_to_string(&logs).unwrap();
    assert!(logs.contains("claims that lapsed are taken up"), "{logs}");
    for secret in ["nobody-may-read", "nobody may read", "access-", "PRIVATE KEY", "Name 1"] {
        assert!(!logs.contains(secret), "{secret}");
    }
}
