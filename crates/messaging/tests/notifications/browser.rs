//! Web Push: a push service and a browser that decrypts what it gets, by code of their own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use messaging::clock::Clock;
use p256::{
    PublicKey, SecretKey,
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    elliptic_curve::sec1::ToEncodedPoint,
};
use parking_lot::Mutex;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::{
    on_both_databases,
    support::{Backend, TestDatabase},
    world::{ANNA, BEN, FOLD, World},
};

on_both_databases!(a_browser_reads_what_was_pushed_to_it_alone, a_subscription_that_is_gone_is_forgotten,);

/// A browser's subscription, with what only the browser knows.
struct Browser {
    key: SecretKey,
    auth: [u8; 16],
}

impl Browser {
    fn new() -> Self {
        Self { key: SecretKey::random(&mut rsa::rand_core::OsRng), auth: rand::random() }
    }

    fn subscription(&self, endpoint: &str) -> String {
        let public = self.key.public_key().to_encoded_point(false);
        json!({
            "endpoint": endpoint,
            "expirationTime": null,
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode(public.as_bytes()),
                "auth": URL_SAFE_NO_PAD.encode(self.auth),
            },
        })
        .to_string()
    }

    /// RFC 8188 and RFC 8291, read from their text.
    fn decrypt(&self, body: &[u8]) -> Vec<u8> {
        let (salt, rest) = body.split_at(16);
        let (record_size, rest) = rest.split_at(4);
        let record_size = u32::from_be_bytes(record_size.try_into().unwrap());
        let (length, rest) = rest.split_first().unwrap();
        let (sender, record) = rest.split_at(usize::from(*length));
        assert!(record.len() <= usize::try_from(record_size).unwrap(), "one record");
        let sender_key = PublicKey::from_sec1_bytes(sender).unwrap();
        let shared = p256::ecdh::diffie_hellman(self.key.to_nonzero_scalar(), sender_key.as_affine());
        let own = self.key.public_key().to_encoded_point(false);
        let info = [b"WebPush: info\0".as_slice(), own.as_bytes(), sender].concat();
        let input = hkdf(&self.auth, shared.raw_secret_bytes(), &info, 32);
        let key = hkdf(salt, &input, b"Content-Encoding: aes128gcm\0", 16);
        let nonce = hkdf(salt, &input, b"Content-Encoding: nonce\0", 12);
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let mut record = record.to_vec();
        let plain = cipher.open_in_place(nonce, Aad::empty(), &mut record).unwrap();
        let end = plain.iter().rposition(|byte| *byte != 0).unwrap();
        assert_eq!(plain[end], 2, "the last record");
        plain[..end].to_vec()
    }
}

/// RFC 5869, of at most one block.
fn hkdf(salt: &[u8], input: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    let extracted = mac(salt, &[input]);
    mac(&extracted, &[info, &[1]])[..length].to_vec()
}

#[test]
fn the_browser_of_these_tests_reads_the_example_of_rfc_8291() {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let browser = Browser {
        key: SecretKey::from_slice(&decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")).unwrap(),
        auth: decode("BTBZMqHH6r4Tts7J_aSIgg").try_into().unwrap(),
    };
    let body = decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
    );
    assert_eq!(browser.decrypt(&body), b"When I grow up, I want to be a watermelon");
}

#[derive(Debug, Clone)]
struct Sent {
    to: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inner {
    sends: Mutex<Vec<Sent>>,
    replies: Mutex<HashMap<String, u16>>,
}

/// The push service of a browser's maker.
#[derive(Debug, Clone)]
struct PushService {
    base: String,
    inner: Arc<Inner>,
}

impl PushService {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::<Inner>::default();
        let router = Router::new().route("/push/{to}", post(take)).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, inner }
    }

    async fn world(&self, database: TestDatabase, allow_private: &str) -> World {
        let variables =
            [("VAPID_SUBJECT", "mailto:operator@example.test"), ("WEB_PUSH_ALLOW_PRIVATE", allow_private)];
        World::with(database, None, 1, &variables).await
    }

    fn endpoint(&self, to: &str) -> String {
        format!("{}/push/{to}", self.base)
    }

    fn sends(&self, to: &str) -> Vec<Sent> {
        self.inner.sends.lock().iter().filter(|sent| sent.to == to).cloned().collect()
    }

    async fn wait_for(&self, to: &str, count: usize) -> Vec<Sent> {
        for _ in 0..2000 {
            let found = self.sends(to);
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {count} pushes within twenty seconds");
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    Path(to): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let headers =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let status = inner.replies.lock().get(&to).copied().unwrap_or(201);
    inner.sends.lock().push(Sent { to, headers, body: body.to_vec() });
    StatusCode::from_u16(status).unwrap()
}

/// RFC 8292: signed by the key that is shown, for this push service, and not for ever.
fn check_signature(authorization: &str, audience: &str, public_key: &str) {
    let parts = authorization.strip_prefix("vapid ").unwrap();
    let (token, key) = parts.split_once(", ").unwrap();
    let (token, key) = (token.strip_prefix("t=").unwrap(), key.strip_prefix("k=").unwrap());
    assert_eq!(key, public_key);
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let verifying = VerifyingKey::from_sec1_bytes(&decode(key)).unwrap();
    verifying.verify(signed.as_bytes(), &Signature::from_slice(&decode(signature)).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |text: &str| serde_json::from_slice::<Value>(&decode(text)).unwrap();
    assert_eq!(read(header), json!({"alg": "ES256", "typ": "JWT"}));
    let claims = read(claims);
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(audience), &json!("mailto:operator@example.test")));
    let now = Clock::System.now().as_seconds();
    let expires = claims["exp"].as_i64().unwrap();
    assert!(expires > now && expires <= now + 24 * 3600);
}

async fn a_browser_reads_what_was_pushed_to_it_alone(database: TestDatabase) {
    let service = PushService::start().await;
    let world = service.world(database, "true").await;
    let url = format!("http://{}/api/notifications/vapid-key", world.nodes.nodes[0].address);
    let key: Value = world.nodes.http.get(url).send().await.unwrap().json().await.unwrap();
    let key = key["data"]["public_key"].as_str().unwrap();
    let (one, other) = (Browser::new(), Browser::new());
    world.register(BEN, &one.subscription(&service.endpoint("one")), "web").await;
    world.register(BEN, &other.subscription(&service.endpoint("other")), "web").await;
    // A browser that uses Firebase's own library.
    world.register(BEN, "ben-web", "web").await;
    let words = format!("Is it free? {}", "👍🏽".repeat(200));
    let (conversation, message) = world.send(ANNA, BEN, &words).await;
    for (to, browser) in [("one", &one), ("other", &other)] {
        let sent = service.wait_for(to, 1).await.remove(0);
        let payload: Value = serde_json::from_slice(&browser.decrypt(&sent.body)).unwrap();
        let body = payload["body"].as_str().unwrap();
        assert!(words.starts_with(body.strip_suffix('…').unwrap()) && body.chars().count() == 120, "{body}");
        let mut rest = payload.clone();
        rest.as_object_mut().unwrap().remove("body");
        assert_eq!(
            rest,
            json!({
                "type": "new_message", "conversation_id": conversation.to_string(),
                "message_id": message["id"].to_string(), "sender_id": "1", "product_id": "", "unread_count": "1",
                "title": "Name 1", "subtitle": null, "tag": format!("conversation-{conversation}"),
            })
        );
        check_signature(&sent.headers["authorization"], &service.base, key);
        for (name, expected) in [
            ("content-encoding", "aes128gcm"),
            ("ttl", "86400"),
            ("urgency", "high"),
            ("topic", &format!("c{conversation}")),
        ] {
            assert_eq!(sent.headers[name], expected, "{name}");
        }
        assert!(sent.body.len() <= 4096);
    }
    world.fcm.wait_for("ben-web", 1).await;
    world.act(BEN, conversation, "read").await;
    world.fcm.wait_for_badges("ben-web", 1).await;
    world.settle(true).await;
    assert_eq!(service.sends("one").len(), 1, "nothing that a browser would have to show");
}

async fn a_subscription_that_is_gone_is_forgotten(database: TestDatabase) {
    let service = PushService::start().await;
    let world = service.world(database, "true").await;
    for (place, (status, is_gone)) in
        [(404, true), (410, true), (400, false), (403, false), (413, false), (301, false)]
            .into_iter()
            .enumerate()
    {
        let user = 10 + i64::try_from(place).unwrap();
        let to = user.to_string();
        service.inner.replies.lock().insert(to.clone(), status);
        world.register(user, &Browser::new().subscription(&service.endpoint(&to)), "web").await;
        world.send(ANNA, user, "hello").await;
        service.wait_for(&to, 1).await;
        let expected = usize::from(!is_gone);
        for _ in 0..200 {
            if world.count_devices(user).await == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.count_devices(user).await, expected, "{status}");
        assert_eq!(service.sends(&to).len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_this_network_are_never_asked() {
    let service = PushService::start().await;
    let database = TestDatabase::new(Backend::Sqlite).await.unwrap();
    let world = service.world(database, "false").await;
    let https = service.base.replace("http:", "https:");
    let port = service.base.rsplit(':').next().unwrap();
    for endpoint in [
        service.endpoint("http"),
        format!("{https}/push/https"),
        format!("https://localhost:{port}/push/name"),
        format!("https://[::ffff:127.0.0.1]:{port}/push/mapped"),
    ] {
        world.register(BEN, &Browser::new().subscription(&endpoint), "web").await;
    }
    world.register(BEN, "ben", "android").await;
    world.send(ANNA, BEN, "hello").await;
    world.fcm.wait_for("ben", 1).await;
    tokio::time::sleep(FOLD).await;
    assert!(service.inner.sends.lock().is_empty());
    let metrics = format!("http://{}/metrics", world.nodes.nodes[0].address);
    let metrics = world.nodes.http.get(metrics).send().await.unwrap().text().await.unwrap();
    let refused = r#"messaging_notifications_total{provider="web_push",outcome="rejected"}"#;
    let line = metrics.lines().find(|line| line.starts_with(refused)).unwrap();
    assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() >= 4.0, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_service_that_hangs_does_not_hold_up_another() {
    let service = PushService::start().await;
    let world = service.world(TestDatabase::new(Backend::Sqlite).await.unwrap(), "true").await;
    world.fcm.hang_at_the_door(true);
    // More than FCM has places to send at once.
    for user in 100..140 {
        world.register(user, &format!("token-{user}"), "android").await;
        world.send(ANNA, user, "hello").await;
    }
    world.register(BEN, "ben", "android").await;
    world.register(BEN, &Browser::new().subscription(&service.endpoint("ben")), "web").await;
    world.send(ANNA, BEN, "hello").await;
    service.wait_for("ben", 1).await;
    assert!(world.fcm.sends().is_empty(), "all of FCM's still wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_subscription_is_refused_and_without_web_push_there_is_no_key() {
    let world = World::new(TestDatabase::new(Backend::Sqlite).await.unwrap()).await;
    let body = json!({"token": r#"{"endpoint":"https://push.example.test/x"}"#, "device_type": "web"});
    let (status, answer) = world.nodes.post(0, BEN, "/api/devices", &body).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["errors"]["token"].is_array(), "{answer}");
    let url = format!("http://{}/api/notifications/vapid-key", world.nodes.nodes[0].address);
    assert_eq!(world.nodes.http.get(url).send().await.unwrap().status(), 404);
}
