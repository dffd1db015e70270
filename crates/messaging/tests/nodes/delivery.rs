//! The same cases with one node alone and with three that share a Redis.

use std::time::Duration;

use serde_json::json;

use crate::nodes::Nodes;

const ANNA: i64 = 1;
const BEN: i64 = 2;

/// Makes two tests of one.
macro_rules! alone_and_shared {
    ($($case:ident),+ $(,)?) => {
        mod alone {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(nodes) = crate::nodes::Nodes::alone().await {
                    super::$case(nodes).await;
                }
            })+
        }
        mod shared {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(nodes) = crate::nodes::Nodes::shared(3, &[]).await {
                    super::$case(nodes).await;
                }
            })+
        }
    };
}

alone_and_shared!(
    a_message_reaches_every_connection_of_both_users_once,
    what_follows_from_a_message_follows_on_every_node,
    many_messages_from_many_nodes_come_in_order_without_a_gap,
    typing_is_seen_on_another_node,
    an_edit_and_a_reaction_reach_another_node,
    who_comes_back_on_another_node_gets_what_was_missed,
    a_user_who_comes_right_after_a_silence_misses_nothing,
);

async fn a_message_reaches_every_connection_of_both_users_once(nodes: Nodes) {
    let (anna, anna_too) = (nodes.connect(0, ANNA).await, nodes.connect(1, ANNA).await);
    let (ben, ben_too) = (nodes.connect(1, BEN).await, nodes.connect(2, BEN).await);
    nodes.send(0, ANNA, BEN, "hello").await;
    for live in [&anna, &anna_too, &ben, &ben_too] {
        let event = live.wait_for_words("hello").await;
        assert_eq!(event["event_seq"], 1);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for live in [&anna, &anna_too, &ben, &ben_too] {
        assert_eq!(live.words(), ["hello"]);
        live.assert_no_gap();
    }
}

async fn what_follows_from_a_message_follows_on_every_node(nodes: Nodes) {
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(2, BEN).await);
    nodes.send(0, ANNA, BEN, "hello").await;
    anna.wait_for("message_delivered", |data| data["user_id"] == BEN).await;
    ben.wait_for("unread_count", |data| data["unread_count"] == 1).await;
    ben.wait_for("conversation_updated", |data| data["conversation"]["unread_count"] == 1).await;
    let conversation = ben.wait_for_words("hello").await["conversation_id"].clone();
    nodes.post(1, BEN, &format!("/api/conversations/{conversation}/read"), &json!({})).await;
    anna.wait_for("message_read", |data| data["user_id"] == BEN).await;
    ben.wait_for("unread_count", |data| data["unread_count"] == 0).await;
}

async fn many_messages_from_many_nodes_come_in_order_without_a_gap(nodes: Nodes) {
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(1, BEN).await);
    nodes.send(0, ANNA, BEN, "first").await;
    let sent = (0..60).map(|number| {
        let nodes = &nodes;
        async move {
            let (from, to) = if number % 2 == 0 { (ANNA, BEN) } else { (BEN, ANNA) };
            nodes.send(number % 3, from, to, &format!("message {number}")).await
        }
    });
    futures_util::future::join_all(sent).await;
    for live in [&anna, &ben] {
        live.wait_for("message_received", |data| data["message"]["seq"] == 61).await;
        live.assert_no_gap();
        let seqs: Vec<_> = live
            .all("message_received")
            .iter()
            .map(|data| data["message"]["seq"].as_i64().unwrap())
            .collect();
        assert_eq!(seqs, (1..=61).collect::<Vec<_>>());
    }
}

async fn typing_is_seen_on_another_node(nodes: Nodes) {
    let (anna, ben) = (nodes.connect(0, ANNA).await, nodes.connect(1, BEN).await);
    let conversation = nodes.send(2, ANNA, BEN, "hello").await["conversation_id"].clone();
    anna.emit("typing", &json!({"conversation_id": conversation, "is_typing": true}));
    ben.wait_for("user_typing", |data| data["user_id"] == ANNA && data["is_typing"] == true).await;
    anna.close().await;
    ben.wait_for("user_typing", |data| data["user_id"] == ANNA && data["is_typing"] == false).await;
}

async fn an_edit_and_a_reaction_reach_another_node(nodes: Nodes) {
    let ben = nodes.connect(1, BEN).await;
    let message = nodes.send(0, ANNA, BEN, "helo").await["id"].clone();
    ben.wait_for_words("helo").await;
    let (status, _) =
        nodes.post(2, BEN, &format!("/api/messages/{message}/reactions"), &json!({"emoji": "👍"})).await;
    assert_eq!(status, 201);
    ben.wait_for("message_reaction", |data| data["emoji"] == "👍").await;
    let anna = nodes.connect(0, ANNA).await;
    anna.emit("edit_message", &json!({"message_id": message, "content": "hello"}));
    ben.wait_for("message_updated", |data| data["message"]["content"] == "hello").await;
    ben.assert_no_gap();
}

async fn who_comes_back_on_another_node_gets_what_was_missed(nodes: Nodes) {
    let ben = nodes.connect(0, BEN).await;
    nodes.send(1, ANNA, BEN, "one").await;
    ben.wait_for_words("one").await;
    let since = *ben.places().last().unwrap();
    ben.close().await;
    for words in ["two", "three"] {
        nodes.send(2, ANNA, BEN, words).await;
    }
    let ben = nodes.connect_since(1, BEN, since).await;
    nodes.send(2, ANNA, BEN, "four").await;
    ben.wait_for_words("four").await;
    assert_eq!(ben.words(), ["two", "three", "four"]);
    ben.assert_no_gap();
    assert_eq!(ben.places()[0], since + 1);
}

/// Nothing is published for a user whom no other node has; one that gets them must not miss what was
/// left out in that very moment.
async fn a_user_who_comes_right_after_a_silence_misses_nothing(nodes: Nodes) {
    nodes.send(0, ANNA, BEN, "into the silence").await;
    for round in 0..10 {
        let words: Vec<String> = (0..5).map(|number| format!("{round}.{number}")).collect();
        let sending = async {
            for words in &words {
                nodes.send(0, ANNA, BEN, words).await;
            }
        };
        let (ben, ()) = tokio::join!(nodes.connect(1 + round % 2, BEN), sending);
        nodes.send(0, ANNA, BEN, &format!("{round}.last")).await;
        ben.wait_within(Duration::from_secs(2), "message_received", |data| {
            data["message"]["content"] == format!("{round}.last")
        })
        .await;
        ben.assert_no_gap();
        ben.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_hear_what_is_said_on_another_node() {
    let Some(nodes) = Nodes::shared(2, &[("MAX_UNAUTHENTICATED_PER_IP", "0")]).await else { return };
    let all = futures_util::future::join_all((10..510).map(|user| nodes.connect(1, user))).await;
    for user in (10..510).step_by(50) {
        nodes.send(0, ANNA, user, "hello").await;
    }
    for live in all.iter().step_by(50) {
        live.wait_for_words("hello").await;
    }
    drop(all);
    // Nobody is left to listen for.
    let redis = nodes.redis.as_ref().unwrap();
    for _ in 0..200 {
        if let redis::Value::Array(channels) = redis.ask(&["PUBSUB", "CHANNELS", "rented:user:*"]).await
            && channels.is_empty()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("channels are still subscribed to");
}

/// At most one for each of the two users; none for who is nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_published_at_most_twice_and_not_for_who_is_nowhere() {
    let Some(nodes) = Nodes::shared(2, &[]).await else { return };
    let published = async || {
        let redis::Value::BulkString(text) =
            nodes.redis.as_ref().unwrap().ask(&["INFO", "commandstats"]).await
        else {
            panic!("no statistics");
        };
        let text = String::from_utf8(text).unwrap();
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let ben = nodes.connect(1, BEN).await;
    nodes.send(0, ANNA, BEN, "to somebody").await;
    ben.wait_for_words("to somebody").await;
    ben.close().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    nodes.send(0, ANNA, 3, "to nobody").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = published().await;
    for number in 0..20 {
        nodes.send(0, ANNA, 3, &format!("to nobody {number}")).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = published().await;
    assert!(after - before <= 2, "{} publications for nobody", after - before);
}
