//! Whose a token is: what is asked, what is believed, and for how long.

use std::{io::Write, sync::Mutex, time::Duration};

use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header, encode};
use messaging::{
    clock::Timestamp,
    errors::Error,
    identity::{MainApi, Reason, main_api::Cause},
    ids::UserId,
};
use serde_json::{Value, json};

use super::{
    START, TTL, World, client, config,
    stand_in::{Reply, user},
};

const SECRET: &str = "5b3f0c0d8e7a4f6c9a1b2c3d4e5f6071";

fn jwt(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signed")
}

fn in_seconds(offset: i64) -> i64 {
    START.as_seconds() + offset
}

fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::AuthUnavailable { .. })
}

#[tokio::test]
async fn a_user_is_accepted_wrapped_and_bare_with_a_number_or_a_numeric_string() {
    let world = World::new().await;
    let mut text_id = user(5, "Eve");
    text_id["id"] = json!("5");
    for (index, body) in [
        json!({"data": user(5, "Eve")}),
        json!({"user": user(5, "Eve")}),
        user(5, "Eve"),
        json!({"data": text_id}),
    ]
    .into_iter()
    .enumerate()
    {
        world.main_api.always(Reply::json(200, &body));
        let caller = world.identity.authenticate(&format!("{index}|AbC")).await.expect("a caller");
        assert_eq!(caller.user_id, UserId(5), "{body}");
        assert_eq!(caller.profile.name, "Eve");
        assert_eq!(caller.profile.avatar_url.as_deref(), Some("https://cdn.example.test/5.jpg"));
    }
}

#[tokio::test]
async fn the_question_carries_the_bearer_as_it_is_and_nothing_of_the_client() {
    let world = World::new().await;
    let caller = world.identity.authenticate("bearer 7|AbC.d-e_f~+/=").await.expect("a caller");
    assert_eq!(caller.token.expose(), "7|AbC.d-e_f~+/=");
    let question = world.main_api.questions().remove(0);
    assert_eq!((question.method.as_str(), question.path.as_str()), ("GET", "/api/v1/user"));
    assert_eq!(question.bearer(), "Bearer 7|AbC.d-e_f~+/=");
    assert_eq!(question.headers["accept"], "application/json");
    for name in ["origin", "referer", "cookie", "x-forwarded-for"] {
        assert!(!question.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused_without_a_question() {
    let world = World::new().await;
    for text in ["", "Bearer ", "two words", "line\nbreak", &"x".repeat(9000)] {
        let error = world.identity.authenticate(text).await.expect_err("a refusal");
        assert!(matches!(error, Error::Unauthenticated), "{text:?}");
    }
    assert_eq!(world.main_api.count(), 0);
}

#[tokio::test]
async fn a_refused_token_is_remembered_for_ten_seconds() {
    let world = World::new().await;
    world.main_api.always(Reply::unauthenticated());
    for _ in 0..3 {
        let error = world.identity.authenticate("7|AbC").await.expect_err("a refusal");
        assert!(matches!(error, Error::Unauthenticated));
    }
    assert_eq!(world.main_api.count(), 1);

    world.main_api.always(Reply::user(1, "Anna"));
    world.clock.advance(Duration::from_millis(9_999));
    assert!(world.identity.authenticate("7|AbC").await.is_err());
    world.clock.advance(Duration::from_millis(1));
    assert!(world.identity.authenticate("7|AbC").await.is_ok());
}

#[tokio::test]
async fn no_usable_answer_says_unavailable_and_is_remembered_as_nothing() {
    let world = World::new().await;
    let page = "<!doctype html><title>Sign in</title>";
    let elsewhere = format!("{}/elsewhere", world.main_api.base);
    for (what, reply) in [
        ("403", Reply::json(403, &json!({"message": "Forbidden"}))),
        ("404", Reply::json(404, &json!({"message": "Not found"}))),
        ("419", Reply::json(419, &json!({"message": "CSRF token mismatch."}))),
        ("429", Reply::json(429, &json!({"message": "Too Many Attempts."}))),
        ("500", Reply::json(500, &user(1, "Anna"))),
        ("503", Reply::text(503, "text/html", page)),
        ("HTML", Reply::text(200, "text/html", page)),
        ("HTML that says to be JSON", Reply::text(200, "application/json", page)),
        ("nothing", Reply::text(200, "application/json", "")),
        ("204", Reply::text(204, "application/json", "")),
        ("a redirect", Reply::text(302, "text/html", "").header("location", &elsewhere)),
        ("a list", Reply::json(200, &json!([user(1, "Anna")]))),
        ("nobody", Reply::json(200, &json!({"data": null}))),
        ("no id", Reply::json(200, &json!({"data": {"name": "Anna"}}))),
        ("a bad id", Reply::json(200, &json!({"data": {"id": "0"}}))),
        ("a flood", Reply::json(200, &json!({"id": 1, "name": "x".repeat(1 << 20)}))),
        ("silence", Reply::user(1, "Anna").after(Duration::from_secs(5))),
    ] {
        let before = world.main_api.count();
        world.main_api.always(reply);
        for _ in 0..2 {
            let error = world.identity.authenticate("7|AbC").await.expect_err(what);
            assert!(is_unavailable(&error), "{what}: {error:?}");
        }
        assert_eq!(
            world.main_api.count() - before,
            2,
            "{what}: asked once each time, redirects not followed"
        );
    }
    world.main_api.always(Reply::user(1, "Anna"));
    assert!(world.identity.authenticate("7|AbC").await.is_ok());
}

#[tokio::test]
async fn a_main_api_that_is_not_there_says_unavailable() {
    let world = World::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let config = config(&base, &[]);
    let client = client(&config, &world.clock);
    assert_eq!(client.probe().await, Err(Cause::Unreachable));
    let identity = messaging::identity::Identity::new(
        client,
        world.directory.clone(),
        &config.jwt,
        [0; 32],
        TTL,
        world.clock.clone(),
    );
    assert!(is_unavailable(&identity.authenticate("7|AbC").await.expect_err("nobody there")));
}

#[tokio::test]
async fn https_is_spoken_where_the_url_says_so() {
    let world = World::new().await;
    // The stand-in speaks plain HTTP: the handshake fails, which only one that is tried can do.
    let config = config(&world.main_api.base.replace("http:", "https:"), &[]);
    match MainApi::new(config.main_api_url().expect("a URL"), &config.main_api, world.clock.clone()) {
        Ok(client) => assert_eq!(client.probe().await, Err(Cause::Unreachable)),
        Err(error) => assert!(error.to_string().contains("CA certificates"), "{error}"),
    }
    assert_eq!(world.main_api.count(), 0);
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let world = World::new().await;
    world.main_api.always(Reply::json(429, &json!({})).header("retry-after", "17"));
    let error = world.identity.authenticate("7|AbC").await.expect_err("too many");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn a_hundred_at_once_ask_once_whatever_the_answer_is() {
    let world = World::new().await;
    let slowly = Duration::from_millis(100);
    for (index, reply) in [Reply::user(1, "Anna"), Reply::unauthenticated(), Reply::json(500, &json!({}))]
        .into_iter()
        .enumerate()
    {
        let before = world.main_api.count();
        world.main_api.always(reply.after(slowly));
        let token = format!("{index}|AbC");
        let answers = join_all((0..100).map(|_| world.identity.authenticate(&token))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), if index == 0 { 100 } else { 0 });
        assert_eq!(world.main_api.count() - before, 1);
    }
}

#[tokio::test]
async fn the_first_to_ask_may_leave_without_failing_the_others() {
    let world = World::new().await;
    world.main_api.always(Reply::user(1, "Anna").after(Duration::from_millis(200)));
    let first = tokio::spawn({
        let identity = world.identity.clone();
        async move { identity.authenticate("7|AbC").await.map(drop) }
    });
    super::eventually("the question is asked", || async { world.main_api.count() == 1 }).await;
    let others = join_all((0..10).map(|_| world.identity.authenticate("7|AbC")));
    let leave = async { first.abort() };
    let (answers, ()) = tokio::join!(others, leave);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.main_api.count(), 1);
}

#[tokio::test]
async fn a_valid_token_is_remembered_for_redis_ttl_even_while_the_main_api_is_away() {
    let world = World::new().await;
    let caller = world.identity.authenticate("7|AbC").await.expect("a caller");
    assert_eq!(caller.expires_at, START.plus(TTL));
    world.main_api.always(Reply::json(503, &json!({})));
    for _ in 0..10_000 {
        world.identity.authenticate("Bearer 7|AbC").await.expect("a caller");
    }
    world.clock.advance(TTL - Duration::from_millis(1));
    assert!(world.identity.authenticate("7|AbC").await.is_ok());
    assert_eq!(world.main_api.count(), 1);
    world.clock.advance(Duration::from_millis(1));
    assert!(is_unavailable(&world.identity.authenticate("7|AbC").await.expect_err("asked again")));
    world.main_api.always(Reply::unauthenticated());
    assert!(matches!(world.identity.authenticate("7|AbC").await, Err(Error::Unauthenticated)));
}

#[tokio::test]
async fn redis_ttl_is_what_the_configuration_says() {
    let world = World::with(&[("REDIS_TTL", "60")]).await;
    let caller = world.identity.authenticate("7|AbC").await.expect("a caller");
    assert_eq!(caller.expires_at, START.plus(Duration::from_secs(60)));
}

#[tokio::test]
async fn the_end_of_a_jwt_is_respected_without_a_secret_too() {
    let world = World::new().await;
    let token = jwt(&json!({"exp": in_seconds(60)}));
    let caller = world.identity.authenticate(&token).await.expect("a caller");
    assert_eq!(caller.expires_at, START.plus(Duration::from_secs(60)));
    world.clock.advance(Duration::from_secs(60));
    world.main_api.always(Reply::unauthenticated());
    assert!(matches!(world.identity.authenticate(&token).await, Err(Error::Unauthenticated)));

    let endless = jwt(&json!({"exp": in_seconds(1_000_000)}));
    world.main_api.always(Reply::user(1, "Anna"));
    let caller = world.identity.authenticate(&endless).await.expect("a caller");
    assert_eq!(caller.expires_at, world.clock.now().plus(TTL), "never longer than REDIS_TTL");
}

#[tokio::test]
async fn with_a_secret_a_jwt_is_checked_first_and_the_main_api_still_asked() {
    let world =
        World::with(&[("JWT_SECRET", SECRET), ("JWT_ISSUER", "rented-marketplace,http://main-api/login")])
            .await;
    let claims = |exp: i64, iss: &str| json!({"sub": "1", "iss": iss, "exp": in_seconds(exp)});
    let foreign = encode(
        &Header::default(),
        &claims(60, "rented-marketplace"),
        &EncodingKey::from_secret(b"some other secret"),
    )
    .expect("signed");
    for bad in [jwt(&claims(-5, "rented-marketplace")), jwt(&claims(60, "elsewhere")), foreign] {
        assert!(matches!(world.identity.authenticate(&bad).await, Err(Error::Unauthenticated)));
    }
    assert_eq!(world.main_api.count(), 0, "what is refused here is not asked about");

    let good = jwt(&claims(60, "http://main-api/login"));
    let caller = world.identity.authenticate(&good).await.expect("a caller");
    assert_eq!(caller.expires_at, START.plus(Duration::from_secs(60)));
    assert_eq!(world.main_api.count(), 1);
    assert!(
        world.identity.authenticate("7|opaque").await.is_ok(),
        "opaque tokens still are for the main API"
    );

    world.main_api.always(Reply::unauthenticated());
    let revoked = jwt(&claims(90, "rented-marketplace"));
    assert!(matches!(world.identity.authenticate(&revoked).await, Err(Error::Unauthenticated)));

    world.clock.advance(Duration::from_secs(66));
    let asked = world.main_api.count();
    assert!(matches!(world.identity.authenticate(&good).await, Err(Error::Unauthenticated)));
    assert_eq!(world.main_api.count(), asked, "an end that has passed needs no question");
}

#[tokio::test]
async fn a_token_at_its_very_end_is_not_asked_about_at_every_call() {
    let world = World::with(&[("JWT_SECRET", SECRET)]).await;
    let token = jwt(&json!({"exp": in_seconds(-2)}));
    for _ in 0..5 {
        let caller = world.identity.authenticate(&token).await.expect("within the leeway");
        assert_eq!(caller.expires_at, START.plus(Duration::from_secs(1)));
    }
    assert_eq!(world.main_api.count(), 1);
}

#[tokio::test]
async fn public_keys_check_their_own_algorithm_only() {
    let es256 = include_str!("../keys/es256.jwt");
    let rs256 = include_str!("../keys/rs256.jwt");
    for (algorithm, key, good, other) in [
        ("ES256", include_str!("../keys/es256.pub.pem"), es256, rs256),
        ("RS256", include_str!("../keys/rs256.pub.pem"), rs256, es256),
    ] {
        let world =
            World::with(&[("JWT_ALGORITHM", algorithm), ("JWT_PUBLIC_KEY", key), ("JWT_SECRET", SECRET)])
                .await;
        let caller = world.identity.authenticate(good).await.expect("a caller");
        assert_eq!(caller.expires_at, START.plus(Duration::from_secs(600)));
        let with_the_secret = jwt(&json!({"exp": in_seconds(60)}));
        let with_the_public_key = encode(
            &Header::default(),
            &json!({"exp": in_seconds(60)}),
            &EncodingKey::from_secret(key.as_bytes()),
        )
        .expect("signed");
        let (signed, _) = good.rsplit_once('.').expect("a JWT");
        for bad in [other, &with_the_secret, &with_the_public_key, &format!("{signed}.AAAA")] {
            assert!(
                matches!(world.identity.authenticate(bad).await, Err(Error::Unauthenticated)),
                "{algorithm}"
            );
        }
        assert_eq!(world.main_api.count(), 1);
    }
}

#[tokio::test]
async fn a_forgotten_token_or_user_is_asked_about_again() {
    let world = World::new().await;
    world.main_api.answers(|question| match question.bearer() {
        "Bearer 2|Ben" => Reply::user(2, "Ben"),
        _ => Reply::user(1, "Anna"),
    });
    for token in ["1|Anna", "1|Phone", "2|Ben"] {
        world.identity.authenticate(token).await.expect("a caller");
    }
    world.identity.forget("Bearer 1|Anna").await.expect("told");
    for token in ["1|Anna", "1|Phone", "2|Ben"] {
        world.identity.authenticate(token).await.expect("a caller");
    }
    assert_eq!(world.main_api.count(), 4);
    world.identity.forget_user(UserId(1), Reason::Ban).await.expect("told");
    for token in ["1|Anna", "1|Phone", "2|Ben"] {
        world.identity.authenticate(token).await.expect("a caller");
    }
    assert_eq!(world.main_api.count(), 6);

    world.main_api.always(Reply::unauthenticated());
    world.identity.forget("1|Anna").await.expect("told");
    assert!(world.identity.authenticate("1|Anna").await.is_err());
    world.main_api.always(Reply::user(1, "Anna"));
    world.identity.forget("1|Anna").await.expect("told");
    assert!(world.identity.authenticate("1|Anna").await.is_ok(), "a refusal is forgotten too");
}

#[tokio::test]
async fn an_answer_under_way_while_its_user_is_forgotten_does_not_count() {
    let world = World::new().await;
    world.main_api.always(Reply::user(1, "Anna").after(Duration::from_millis(200)));
    let asking = tokio::spawn({
        let identity = world.identity.clone();
        async move { identity.authenticate("1|Anna").await.map(drop) }
    });
    super::eventually("the question is asked", || async { world.main_api.count() == 1 }).await;
    world.main_api.always(Reply::unauthenticated());
    world.identity.forget_user(UserId(1), Reason::Ban).await.expect("told");
    let answer = asking.await.expect("no panic");
    assert!(matches!(answer, Err(Error::Unauthenticated)), "the ban holds: {answer:?}");
    assert_eq!(world.main_api.count(), 2);
}

#[tokio::test]
async fn any_http_answer_is_a_sign_of_life_and_is_shared_for_a_moment() {
    let world = World::new().await;
    for reply in
        [Reply::json(404, &json!({})), Reply::text(500, "text/html", "<p>"), Reply::unauthenticated()]
    {
        world.main_api.always(reply);
        let client = client(&config(&world.main_api.base, &[]), &world.clock);
        let before = world.main_api.count();
        let probes = join_all((0..20).map(|_| client.probe())).await;
        assert!(probes.iter().all(|probe| probe.is_ok_and(|latency| latency > Duration::ZERO)));
        assert_eq!(world.main_api.count() - before, 1);
    }
    let question = world.main_api.questions().remove(0);
    assert_eq!((question.path.as_str(), question.bearer()), ("/api/v1", ""));

    world.main_api.always(Reply::json(200, &json!({})).after(Duration::from_secs(5)));
    let client = client(&config(&world.main_api.base, &[]), &world.clock);
    assert_eq!(client.probe().await, Err(Cause::TimedOut));
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Logged(std::sync::Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_logs_nor_errors_hold_a_token_or_an_email() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let world = World::new().await;
    let caller = world.identity.authenticate("7|SeCrEt").await.expect("a caller");
    assert!(!format!("{caller:?} {:?}", world.identity).contains("SeCrEt"));
    world.clock.advance(TTL);
    for reply in [
        Reply::json(500, &json!({"token": "7|SeCrEt", "email": "anna@example.test"})),
        Reply::text(200, "text/html", "7|SeCrEt anna@example.test"),
    ] {
        world.main_api.always(reply);
        let error = world.identity.authenticate("7|SeCrEt").await.expect_err("unavailable");
        assert!(!format!("{error} {error:?}").contains("SeCrEt"));
    }
    let text = String::from_utf8(logged.0.lock().expect("no panic").clone()).expect("UTF-8");
    assert!(text.contains("the main API cannot say whose a token is"), "something was logged");
    assert!(!text.contains("SeCrEt") && !text.contains("@example.test"), "{text}");
}

#[tokio::test]
async fn time_of_validity_is_the_clocks() {
    let world = World::new().await;
    let caller = world.identity.authenticate("7|AbC").await.expect("a caller");
    assert!(caller.expires_at > Timestamp::EPOCH.plus(TTL));
    world.clock.advance(Duration::from_secs(10 * 365 * 86_400));
    world.identity.authenticate("7|AbC").await.expect("a caller");
    assert_eq!(world.main_api.count(), 2);
}
