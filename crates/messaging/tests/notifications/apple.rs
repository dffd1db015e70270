//! Apple's push service: a stand-in that speaks HTTP/2 without TLS, and what its answers lead to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use p256::{
    ecdsa::SigningKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, FOLD, World},
};

on_both_databases!(an_iphone_is_pushed_directly, apples_reasons_say_which_tokens_are_dead);

const TEAM: &str = "TEAM123456";
const KEY_ID: &str = "KEY1234567";
const TOPIC: &str = "test.example.app";

#[derive(Debug, Clone)]
struct Sent {
    headers: HashMap<String, String>,
    path: String,
    payload: Value,
}

#[derive(Debug)]
struct Inner {
    key: SigningKey,
    sends: Mutex<Vec<Sent>>,
    connections: Mutex<usize>,
    /// By device: status, reason, and since when it is dead.
    replies: Mutex<HashMap<String, (u16, Value)>>,
}

#[derive(Debug, Clone)]
struct Apple {
    base: String,
    inner: Arc<Inner>,
}

impl Apple {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            key: SigningKey::random(&mut rsa::rand_core::OsRng),
            sends: Mutex::default(),
            connections: Mutex::default(),
            replies: Mutex::default(),
        });
        let state = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *state.connections.lock() += 1;
                let state = Arc::clone(&state);
                let service = service_fn(move |request| take(Arc::clone(&state), request));
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { base, inner }
    }

    async fn world(&self, database: TestDatabase) -> World {
        let pem = self.inner.key.to_pkcs8_pem(LineEnding::LF).unwrap();
        // The stand-in for FCM is there, but not configured.
        let variables = [
            ("APNS_KEY", pem.as_str()),
            ("APNS_KEY_ID", KEY_ID),
            ("APNS_TEAM_ID", TEAM),
            ("APNS_TOPIC", TOPIC),
            ("APNS_BASE_URL", self.base.as_str()),
        ];
        let mut world = World::with(database, None, 0, &variables).await;
        world.nodes.variables.remove("FCM_SERVICE_ACCOUNT");
        world.nodes.start_node().await;
        world
    }

    async fn wait_for(&self, device: &str, count: usize) -> Vec<Sent> {
        for _ in 0..2000 {
            let sends = self.inner.sends.lock().clone();
            let found: Vec<_> =
                sends.into_iter().filter(|sent| sent.path == format!("/3/device/{device}")).collect();
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {count} pushes within twenty seconds: {:?}", self.inner.sends.lock());
    }
}

async fn take(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.version(), Version::HTTP_2);
    let (parts, body) = request.into_parts();
    let headers: HashMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let public = inner.key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_required_spec_claims(&["iss"]);
    validation.set_issuer(&[TEAM]);
    validation.validate_exp = false;
    let token = headers["authorization"].strip_prefix("bearer ").unwrap();
    let key = DecodingKey::from_ec_pem(public.as_bytes()).unwrap();
    let checked = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    assert_eq!(checked.header.kid.as_deref(), Some(KEY_ID));
    assert!(checked.claims["iat"].is_i64());
    let payload = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap();
    let path = parts.uri.path().to_owned();
    let device = path.rsplit('/').next().unwrap().to_owned();
    inner.sends.lock().push(Sent { headers, path, payload });
    let reply = inner.replies.lock().get(&device).cloned();
    let response = match reply {
        None => Response::builder().status(200).header("apns-id", "1").body(Full::default()),
        Some((status, body)) => Response::builder().status(status).body(Full::from(body.to_string())),
    };
    Ok(response.unwrap())
}

fn device(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

async fn an_iphone_is_pushed_directly(database: TestDatabase) {
    let apple = Apple::start().await;
    let world = apple.world(database).await;
    let phone = device(0xab);
    world.register(BEN, &phone, "ios").await;
    // Nobody reaches this one: no push service is configured for it.
    world.register(BEN, "an-android-phone", "android").await;
    let (conversation, message) = world.send(ANNA, BEN, "Is it free?").await;
    let sends = apple.wait_for(&phone, 1).await;
    let (tag, headers) = (format!("conversation-{conversation}"), &sends[0].headers);
    for (name, expected) in [
        ("apns-topic", TOPIC),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-collapse-id", tag.as_str()),
    ] {
        assert_eq!(headers[name], expected, "{name}");
    }
    assert!(headers["apns-expiration"].parse::<i64>().unwrap() > 0);
    assert_eq!(
        sends[0].payload,
        json!({
            "aps": {
                "alert": {"title": "Name 1", "body": "Is it free?"},
                "badge": 1, "sound": "default", "thread-id": tag,
            },
            "type": "new_message", "conversation_id": conversation.to_string(),
            "message_id": message["id"].to_string(), "sender_id": "1", "product_id": "", "unread_count": "1",
        })
    );
    world.act(BEN, conversation, "read").await;
    let sends = apple.wait_for(&phone, 2).await;
    assert_eq!(sends[1].headers["apns-priority"], "5");
    assert_eq!(sends[1].payload["aps"], json!({"badge": 0, "content-available": 1}));
    tokio::time::sleep(FOLD).await;
    world.send(ANNA, BEN, "And today?").await;
    let sends = apple.wait_for(&phone, 3).await;
    let tokens: HashSet<_> = sends.iter().map(|sent| &sent.headers["authorization"]).collect();
    assert_eq!((sends.len(), tokens.len()), (3, 1), "one token for all of them");
    assert_eq!(*apple.inner.connections.lock(), 1, "one connection for all of them");
    assert!(world.fcm.sends().is_empty());
}

async fn apples_reasons_say_which_tokens_are_dead(database: TestDatabase) {
    let apple = Apple::start().await;
    let world = apple.world(database).await;
    let long_ago = json!({"reason": "Unregistered", "timestamp": 1_000});
    let just_now = json!({"reason": "Unregistered", "timestamp": 99_999_999_999_999_i64});
    for (place, (status, body, is_dead)) in [
        (410, just_now, true),
        // It died before it was registered here: it was registered again since.
        (410, long_ago, false),
        (400, json!({"reason": "BadDeviceToken"}), true),
        (400, json!({"reason": "DeviceTokenNotForTopic"}), true),
        (400, json!({"reason": "BadTopic"}), false),
        (403, json!({"reason": "Forbidden"}), false),
        (413, json!({"reason": "PayloadTooLarge"}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let user = 10 + i64::try_from(place).unwrap();
        let token = device(u8::try_from(user).unwrap());
        apple.inner.replies.lock().insert(token.clone(), (status, body.clone()));
        world.register(user, &token, "ios").await;
        world.send(ANNA, user, "hello").await;
        apple.wait_for(&token, 1).await;
        let expected = usize::from(!is_dead);
        for _ in 0..200 {
            if world.count_devices(user).await == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.count_devices(user).await, expected, "{status} {body}");
    }
}
