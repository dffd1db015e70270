//! Tokens that one node had checked are known to the others.

use crate::nodes::{Nodes, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_api_is_asked_once_for_all_nodes() {
    let Some(nodes) = Nodes::shared(3, &[]).await else { return };
    for node in [0, 1, 2, 1] {
        let answer = nodes.get(node, 7, "/api/conversations").await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    assert_eq!(nodes.questions(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_no_token_and_every_key_has_the_prefix() {
    let Some(nodes) = Nodes::shared(1, &[("REDIS_PREFIX", "shop:"), ("RATE_LIMIT_MESSAGES", "60")]).await
    else {
        return;
    };
    let _live = nodes.connect(0, 7).await;
    nodes.send(0, 7, 8, "a secret word").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let redis = nodes.redis.as_ref().unwrap();
    let keys: Vec<String> = redis::from_redis_value(redis.ask(&["KEYS", "*"]).await).unwrap();
    assert!(keys.iter().all(|key| key.starts_with("shop:")), "{keys:?}");
    for kind in ["token:", "presence:", "lease", "limit:messages:", "profile:"] {
        assert!(keys.iter().any(|key| key.starts_with(&format!("shop:{kind}"))), "{kind} in {keys:?}");
    }
    for key in &keys {
        let words = [b"secret".as_slice(), token(7).as_bytes()].map(<[u8]>::to_vec);
        let redis::Value::BulkString(dump) = redis.ask(&["DUMP", key]).await else { continue };
        for word in &words {
            assert!(!dump.windows(word.len()).any(|part| part == word), "{key}");
        }
        let lives: i64 = redis::from_redis_value(redis.ask(&["PTTL", key]).await).unwrap();
        assert!(lives > 0 || key == "shop:leases", "{key} never ends");
    }
}
