//! Several nodes, and nodes that die: everybody is pushed once.

use std::time::Duration;

use serde_json::json;

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, FOLD, World},
};

on_both_databases!(
    what_a_node_stored_before_it_died_is_pushed_once_by_the_next,
    what_a_node_claimed_before_it_died_is_pushed_once_by_the_next,
    what_was_sent_before_pushes_were_switched_on_is_not_pushed,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_push_once() {
    let Some(world) = World::two_nodes(&[("PUSH_FOLD", "4")]).await else { return };
    world.register(BEN, "ben", "android").await;
    let (conversation, _) = world.send(ANNA, BEN, "one").await;
    world.fcm.wait_for("ben", 1).await;
    // A burst that comes in at both.
    for place in 0..10 {
        let body = json!({"conversation_id": conversation, "content": format!("message {place}")});
        world.nodes.post(place % 2, ANNA, "/api/messages", &body).await;
    }
    let pushes = world.fcm.wait_for("ben", 2).await;
    assert_eq!(pushes[1]["notification"], json!({"title": "Name 1 (11)", "body": "message 9"}));
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_a_screen_of_another_node_is_not_pushed() {
    let Some(world) = World::two_nodes(&[]).await else { return };
    world.register(BEN, "ben", "android").await;
    let (conversation, _) = world.send(ANNA, BEN, "one").await;
    world.fcm.wait_for("ben", 1).await;
    tokio::time::sleep(FOLD).await;
    let live = world.nodes.connect(1, BEN).await;
    live.emit("join_conversation", &json!({"conversation_id": conversation}));
    live.wait_for("ack", |ack| ack["success"] == true).await;
    world.send(ANNA, BEN, "on the screen").await;
    live.wait_for_words("on the screen").await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1);
    live.close().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.send(ANNA, BEN, "not on the screen").await;
    let pushes = world.fcm.wait_for("ben", 2).await;
    assert_eq!(pushes[1]["notification"]["body"], "not on the screen");
}

/// A node that stores and does not push is one that died in between.
async fn what_a_node_stored_before_it_died_is_pushed_once_by_the_next(database: TestDatabase) {
    let mut world = World::new(database).await;
    world.register(BEN, "ben", "android").await;
    world.nodes.kill_node(0);
    world.nodes.nodes.clear();
    let account = world.nodes.variables.remove("FCM_SERVICE_ACCOUNT").unwrap();
    world.nodes.start_node().await;
    for words in ["one", "two", "three"] {
        world.send(ANNA, BEN, words).await;
    }
    world.nodes.kill_node(0);
    world.nodes.nodes.clear();
    world.nodes.variables.insert("FCM_SERVICE_ACCOUNT".into(), account);
    world.nodes.start_node().await;
    let pushes = world.fcm.wait_for("ben", 1).await;
    assert_eq!(pushes[0]["notification"]["body"], "three");
    // Whether the sender's name was kept before the node died is chance.
    assert!(pushes[0]["notification"]["title"].as_str().unwrap().ends_with("1 (3)"), "{}", pushes[0]);
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1);
}

async fn what_a_node_claimed_before_it_died_is_pushed_once_by_the_next(database: TestDatabase) {
    let is_sqlite = database.url.starts_with("sqlite:");
    let mut world = World::new(database).await;
    world.register(BEN, "ben", "android").await;
    world.fcm.hang_at_the_door(true);
    world.send(ANNA, BEN, "one").await;
    // Claimed and under way for longer than the sweeper waits: it is left to whoever claimed it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.nodes.kill_node(0);
    world.nodes.nodes.clear();
    world.fcm.hang_at_the_door(false);
    world.nodes.start_node().await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 0, "the claim still counts");
    let aged = if is_sqlite {
        "update notification_marks set claimed_at = claimed_at - 120000 where user_id = 2 and claimed_at is not null"
    } else {
        "update notification_marks set claimed_at = claimed_at - interval '120 seconds'
         where user_id = 2 and claimed_at is not null"
    };
    world.nodes.database.as_ref().unwrap().execute(aged).await;
    world.fcm.wait_for("ben", 1).await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1);
}

async fn what_was_sent_before_pushes_were_switched_on_is_not_pushed(database: TestDatabase) {
    let mut world = World::with(database, None, 0, &[]).await;
    let account = world.nodes.variables.remove("FCM_SERVICE_ACCOUNT").unwrap();
    world.nodes.start_node().await;
    world.register(BEN, "ben", "android").await;
    world.send(ANNA, BEN, "long ago").await;
    world.nodes.kill_node(0);
    world.nodes.nodes.clear();
    world.nodes.variables.insert("FCM_SERVICE_ACCOUNT".into(), account);
    world.nodes.start_node().await;
    world.settle(true).await;
    assert!(world.fcm.messages_to("ben").is_empty());
}
