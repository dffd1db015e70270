//! Who is pushed, how often, and what it says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, FOLD, World},
};

on_both_databases!(
    a_message_is_pushed_once_with_all_that_the_app_needs,
    who_does_not_want_it_is_not_pushed,
    a_burst_is_one_notification_that_is_updated,
    reading_withdraws_what_waits_and_updates_the_badge,
    a_deleted_message_is_taken_back,
    what_is_on_the_screen_is_not_pushed_and_not_found_later,
    the_badge_counts_all_conversations,
    a_token_that_moves_is_pushed_for_its_new_owner_alone,
);

async fn a_message_is_pushed_once_with_all_that_the_app_needs(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "ben-phone", "android").await;
    world.register(BEN, "ben:tablet", "ios").await;
    let body = json!({"receiver_id": BEN, "product_id": 7, "content": "Is it\nstill free?"});
    let (status, sent) = world.nodes.post(0, ANNA, "/api/messages", &body).await;
    assert_eq!(status, 201, "{sent}");
    let (message, conversation) = (&sent["data"]["id"], &sent["data"]["conversation_id"]);
    let tag = format!("conversation-{conversation}");
    let expected = |token: &str| {
        json!({
            "token": token,
            "notification": {"title": "Name 1", "body": "Is it still free?"},
            "data": {
                "type": "new_message", "conversation_id": conversation.to_string(),
                "message_id": message.to_string(), "sender_id": "1", "product_id": "7", "unread_count": "1",
            },
            "android": {
                "priority": "HIGH", "collapse_key": tag,
                "notification": {"channel_id": "rented_notifications", "tag": tag, "notification_count": 1},
            },
            "apns": {
                "headers": {"apns-priority": "10", "apns-collapse-id": tag},
                "payload": {"aps": {
                    "alert": {"title": "Name 1", "subtitle": "Product 7", "body": "Is it still free?"},
                    "badge": 1, "sound": "default", "thread-id": tag,
                }},
            },
            "webpush": {
                "headers": {"Urgency": "high", "Topic": tag},
                "notification": {"tag": tag, "renotify": true},
            },
        })
    };
    assert_eq!(world.fcm.wait_for("ben-phone", 1).await, [expected("ben-phone")]);
    assert_eq!(world.fcm.wait_for("ben:tablet", 1).await, [expected("ben:tablet")]);
    world.settle(true).await;
    for token in ["ben-phone", "ben:tablet"] {
        assert_eq!(world.fcm.messages_to(token).len(), 1, "once, also after the sweeper looked");
    }
    assert_eq!(world.fcm.tokens_given(), 1, "one access token for all of them");
}

async fn who_does_not_want_it_is_not_pushed(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.send(ANNA, BEN, "before there was a device").await;
    world.register(BEN, "ben", "android").await;
    world.register(ANNA, "anna", "android").await;
    let say = async |words: &str| drop(world.send(ANNA, BEN, words).await);

    world.act(BEN, conversation, "mute").await;
    say("muted").await;
    world.act(BEN, conversation, "archive").await;
    say("muted, and archived before").await;
    world.act(BEN, conversation, "unmute").await;
    let until = json!({"until": "2999-01-01T00:00:00Z"});
    world.nodes.post(0, BEN, &format!("/api/conversations/{conversation}/mute"), &until).await;
    say("muted for long").await;
    world.settle(false).await;
    world.act(BEN, conversation, "unmute").await;
    world.prefer(BEN, json!({"push": false})).await;
    say("switched off").await;
    world.settle(false).await;
    let always = json!({"start": "00:00", "end": "23:59", "time_zone": "UTC"});
    world.prefer(BEN, json!({"push": true, "quiet_hours": always})).await;
    say("quiet").await;
    // Even in the one minute that is not quiet: it was read.
    world.act(BEN, conversation, "read").await;
    world.settle(false).await;
    world.prefer(BEN, json!({"quiet_hours": null})).await;
    let (status, _) = world.nodes.post(0, BEN, "/api/users/1/block", &json!({})).await;
    assert_eq!(status, 200);
    let refused = json!({"conversation_id": conversation, "content": "blocked"});
    assert_eq!(world.nodes.post(0, ANNA, "/api/messages", &refused).await.0, 403);
    world.settle(true).await;
    assert!(world.fcm.messages_to("ben").is_empty(), "{:?}", world.fcm.messages_to("ben"));
    assert!(world.fcm.messages_to("anna").is_empty(), "nobody is pushed their own");
}

async fn a_burst_is_one_notification_that_is_updated(database: TestDatabase) {
    // Long enough for a busy machine to send all of them in it.
    let fold = Duration::from_secs(4);
    let world = World::with(database, None, 1, &[("PUSH_FOLD", "4")]).await;
    world.register(BEN, "ben", "android").await;
    world.send(ANNA, BEN, "one").await;
    world.fcm.wait_for("ben", 1).await;
    for words in ["two", "three", "four", "five"] {
        world.send(ANNA, BEN, words).await;
    }
    let pushes = world.fcm.wait_for("ben", 2).await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 2, "the first at once, the others as one");
    assert_eq!(pushes[0]["notification"]["body"], "one");
    assert_eq!(pushes[1]["notification"], json!({"title": "Name 1 (5)", "body": "five"}));
    assert_eq!(pushes[1]["data"]["unread_count"], "5");
    assert_eq!(pushes[0]["android"]["notification"]["tag"], pushes[1]["android"]["notification"]["tag"]);
    let sends = world.fcm.sends();
    let times: Vec<_> =
        sends.iter().filter(|sent| sent.message["token"] == "ben").map(|sent| sent.at).collect();
    assert!(times[1] - times[0] > fold - Duration::from_millis(300), "{:?}", times[1] - times[0]);
}

async fn reading_withdraws_what_waits_and_updates_the_badge(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "ben", "ios").await;
    let (conversation, _) = world.send(ANNA, BEN, "one").await;
    world.fcm.wait_for("ben", 1).await;
    world.send(ANNA, BEN, "two, which waits").await;
    world.act(BEN, conversation, "read").await;
    let badges = world.fcm.wait_for_badges("ben", 1).await;
    assert_eq!(
        badges,
        [json!({
            "token": "ben",
            "data": {"type": "badge", "unread_count": "0", "conversation_ids": conversation.to_string()},
            "android": {"priority": "NORMAL", "collapse_key": "badge"},
            "apns": {
                "headers": {"apns-priority": "5", "apns-collapse-id": "badge"},
                "payload": {"aps": {"badge": 0, "content-available": 1}},
            },
        })]
    );
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1, "what was read is not pushed");
    // Nothing is shown any more, so that reading again wakes nobody.
    world.act(BEN, conversation, "read").await;
    world.settle(false).await;
    assert_eq!(world.fcm.badges_to("ben").len(), 1);
}

async fn a_deleted_message_is_taken_back(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "ben", "android").await;
    let (conversation, message) = world.send(ANNA, BEN, "to the wrong one").await;
    world.fcm.wait_for("ben", 1).await;
    let url = format!("http://{}/api/messages/{}", world.nodes.nodes[0].address, message["id"]);
    let request = world.nodes.http.delete(url).bearer_auth(crate::nodes::token(ANNA));
    assert_eq!(request.send().await.unwrap().status(), 204);
    let badges = world.fcm.wait_for_badges("ben", 1).await;
    let expected =
        json!({"type": "badge", "unread_count": "0", "conversation_ids": conversation.to_string()});
    assert_eq!(badges[0]["data"], expected);
}

async fn what_is_on_the_screen_is_not_pushed_and_not_found_later(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "ben", "android").await;
    let (conversation, _) = world.send(ANNA, BEN, "hello").await;
    world.fcm.wait_for("ben", 1).await;
    tokio::time::sleep(FOLD).await;
    let live = world.nodes.connect(0, BEN).await;
    live.emit("join_conversation", &json!({"conversation_id": conversation}));
    live.wait_for("ack", |ack| ack["success"] == true).await;
    world.send(ANNA, BEN, "seen, though not marked as read").await;
    live.wait_for_words("seen, though not marked as read").await;
    tokio::time::sleep(Duration::from_millis(5500)).await;
    live.close().await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("ben").len(), 1);
    world.send(ANNA, BEN, "not seen").await;
    let pushes = world.fcm.wait_for("ben", 2).await;
    assert_eq!(pushes[1]["notification"], json!({"title": "Name 1 (3)", "body": "not seen"}));
}

async fn the_badge_counts_all_conversations(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "ben", "ios").await;
    for (product, count) in [(1, 1), (2, 2), (3, 3)] {
        let body = json!({"receiver_id": BEN, "product_id": product, "content": "hello"});
        let (_, sent) = world.nodes.post(0, ANNA, "/api/messages", &body).await;
        let pushes = world.fcm.wait_for("ben", count).await;
        let push = pushes.last().unwrap();
        assert_eq!(push["data"]["conversation_id"], sent["data"]["conversation_id"].to_string());
        assert_eq!(push["apns"]["payload"]["aps"]["badge"], count);
        assert_eq!(push["notification"]["title"], "Name 1", "one in each conversation");
    }
    let unread: Value = world.nodes.get(0, BEN, "/api/conversations/unread/count").await;
    assert_eq!(unread["unread_count"], 3);
}

async fn a_token_that_moves_is_pushed_for_its_new_owner_alone(database: TestDatabase) {
    let world = World::new(database).await;
    world.register(BEN, "shared", "android").await;
    world.send(ANNA, BEN, "for Ben").await;
    world.fcm.wait_for("shared", 1).await;
    world.register(ANNA, "shared", "android").await;
    tokio::time::sleep(FOLD).await;
    world.send(ANNA, BEN, "for Ben, who has no device").await;
    world.send(BEN, ANNA, "for Anna").await;
    let pushes = world.fcm.wait_for("shared", 2).await;
    world.settle(true).await;
    assert_eq!(world.fcm.messages_to("shared").len(), 2);
    assert_eq!(pushes[1]["notification"]["body"], "for Anna");
}
