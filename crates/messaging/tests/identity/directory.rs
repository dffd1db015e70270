//! What is known of users and products: from whom, for how long, and while the main API is away.

use std::time::Duration;

use futures_util::future::join_all;
use messaging::{
    identity::{ProductLookUp, UserProfile},
    ids::{ProductId, UserId},
};
use serde_json::json;

use super::{
    TTL, World, eventually,
    stand_in::{Question, Reply, product, user},
    token,
};

const CAMERA: ProductId = ProductId(5);

fn away(_: &Question) -> Reply {
    Reply::json(503, &json!({}))
}

fn not_found() -> Reply {
    Reply::json(404, &json!({"message": "Product not found"}))
}

fn title(answer: &ProductLookUp) -> &str {
    match answer {
        ProductLookUp::Known(card) => &card.title,
        other => panic!("not known: {other:?}"),
    }
}

#[tokio::test]
async fn a_user_never_heard_of_can_still_be_shown() {
    let world = World::new().await;
    assert_eq!(*world.directory.user(UserId(9), None).await, UserProfile::unknown(UserId(9)));
    assert_eq!(world.main_api.count(), 0, "there is nothing to ask without MAIN_API_USER_PATH");
}

#[tokio::test]
async fn who_signs_in_is_known_to_others_and_after_a_restart() {
    let world = World::new().await;
    assert_eq!(world.directory.user(UserId(1), None).await.name, "User 1");
    world.identity.authenticate("1|Anna").await.expect("a caller");
    assert_eq!(world.directory.user(UserId(1), None).await.name, "Anna");

    world.main_api.answers(away);
    eventually("the profile is saved", || async {
        world.restarted().user(UserId(1), None).await.name == "Anna"
    })
    .await;
    let users = world.restarted().users(&[UserId(1), UserId(9), UserId(1)], None).await;
    assert_eq!(users.len(), 2);
    assert_eq!((users[&UserId(1)].name.as_str(), users[&UserId(9)].name.as_str()), ("Anna", "User 9"));
}

#[tokio::test]
async fn a_changed_name_is_learned_when_the_token_is_validated_again() {
    let world = World::new().await;
    world.identity.authenticate("1|Anna").await.expect("a caller");
    world.main_api.always(Reply::user(1, "Anna Smith"));
    world.clock.advance(TTL);
    world.identity.authenticate("1|Anna").await.expect("a caller");
    assert_eq!(world.directory.user(UserId(1), None).await.name, "Anna Smith");
    eventually("the new name is saved", || async {
        world.restarted().user(UserId(1), None).await.name == "Anna Smith"
    })
    .await;
}

#[tokio::test]
async fn a_thousand_profiles_are_saved_and_an_unchanged_one_is_not_written_again() {
    let world = World::new().await;
    let start = world.clock.now();
    let ids: Vec<UserId> = (1..=1000).map(UserId).collect();
    let learn = |name: &str| {
        for &id in &ids {
            world.directory.learn_user(UserProfile { id, name: format!("{name} {id}"), avatar_url: None });
        }
    };
    learn("Old");
    eventually("all are saved", || async {
        world.store.load_profiles(&ids).await.is_ok_and(|rows| rows.len() == 1000)
    })
    .await;

    world.clock.advance(Duration::from_secs(60));
    let restarted = world.restarted();
    restarted.learn_user(UserProfile { id: UserId(1), name: "Old 1".to_owned(), avatar_url: None });
    restarted.learn_user(UserProfile { id: UserId(2), name: "New 2".to_owned(), avatar_url: None });
    eventually("the changed one is saved", || async {
        world.store.load_profiles(&[UserId(2)]).await.is_ok_and(|rows| rows[0].name == "New 2")
    })
    .await;
    // Both were in one batch or the first was in an earlier one.
    let row = world.store.load_profiles(&[UserId(1)]).await.expect("rows").remove(0);
    assert_eq!(row.refreshed_at, start);
}

#[tokio::test]
async fn a_product_is_asked_for_with_the_callers_bearer_and_its_owner_learned_without_an_email() {
    let world = World::new().await;
    world.main_api.always(Reply::json(200, &product(5, "Camera", 2)));
    let answer = world.directory.product(CAMERA, &token("7|AbC")).await;
    let question = world.main_api.questions().remove(0);
    assert_eq!((question.path.as_str(), question.bearer()), ("/api/v1/products/5", "Bearer 7|AbC"));
    assert_eq!(question.headers["accept"], "application/json");

    let ProductLookUp::Known(card) = answer else { panic!("not known") };
    assert_eq!(card.owner_id, Some(UserId(2)));
    let shown = serde_json::to_value(&*card).expect("JSON");
    assert_eq!(
        shown,
        json!({
            "id": 5, "title": "Camera", "thumbnail_url": "/storage/5.jpg", "thumbnail": "/storage/5.jpg",
            "images": ["/storage/5a.jpg"], "image_urls": ["/storage/5a.jpg"], "price_per_day": 12.5,
        })
    );
    let owner = world.directory.user(UserId(2), None).await;
    assert_eq!(owner.name, "Olga Owner");
    assert!(!format!("{owner:?}").contains('@'));
}

#[tokio::test]
async fn a_product_is_known_missing_or_unavailable() {
    let world = World::new().await;
    let bearer = token("7|AbC");
    for (what, reply, expected) in [
        ("404", not_found(), ProductLookUp::NotFound),
        ("a web server's own 404", Reply::text(404, "text/html", "<p>Not here"), ProductLookUp::Unavailable),
        ("401", Reply::unauthenticated(), ProductLookUp::Unavailable),
        ("403", Reply::json(403, &json!({})), ProductLookUp::Unavailable),
        ("429", Reply::json(429, &json!({})), ProductLookUp::Unavailable),
        ("500", Reply::json(500, &json!({})), ProductLookUp::Unavailable),
        (
            "a redirect",
            Reply::text(302, "text/html", "").header("location", "/login"),
            ProductLookUp::Unavailable,
        ),
        ("HTML", Reply::text(200, "text/html", "<p>"), ProductLookUp::Unavailable),
        ("another product", Reply::json(200, &product(6, "Drill", 2)), ProductLookUp::Unavailable),
        (
            "silence",
            Reply::json(200, &product(5, "Camera", 2)).after(Duration::from_secs(5)),
            ProductLookUp::Unavailable,
        ),
    ] {
        world.main_api.always(reply);
        assert_eq!(world.directory.product(CAMERA, &bearer).await, expected, "{what}");
    }
    world.main_api.always(Reply::json(200, &product(5, "Camera", 2)));
    assert_eq!(
        title(&world.directory.product(CAMERA, &bearer).await),
        "Camera",
        "nothing of it was remembered"
    );
}

#[tokio::test]
async fn many_at_once_ask_for_a_product_once() {
    let world = World::new().await;
    world.main_api.always(Reply::json(200, &product(5, "Camera", 2)).after(Duration::from_millis(100)));
    let bearer = token("7|AbC");
    let answers = join_all((0..50).map(|_| world.directory.product(CAMERA, &bearer))).await;
    assert!(answers.iter().all(|answer| title(answer) == "Camera"));
    assert_eq!(world.main_api.count(), 1);
}

#[tokio::test]
async fn a_product_that_is_hidden_from_one_caller_is_still_there_for_its_owner() {
    let world = World::new().await;
    world.main_api.answers(|question| match question.bearer() {
        "Bearer owner" => Reply::json(200, &product(5, "Camera", 2)).after(Duration::from_millis(50)),
        _ => not_found().after(Duration::from_millis(50)),
    });
    let (stranger, owner) = (token("stranger"), token("owner"));
    let (first, second) =
        tokio::join!(world.directory.product(CAMERA, &stranger), world.directory.product(CAMERA, &owner));
    assert_eq!(first, ProductLookUp::NotFound);
    assert_eq!(title(&second), "Camera");
}

#[tokio::test]
async fn an_old_card_is_asked_about_again_and_shown_while_the_main_api_is_away() {
    let world = World::new().await;
    let bearer = token("7|AbC");
    world.main_api.always(Reply::json(200, &product(5, "Camera", 2)));
    world.directory.product(CAMERA, &bearer).await;
    world.main_api.always(Reply::json(200, &product(5, "Camera II", 2)));
    world.clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(title(&world.directory.product(CAMERA, &bearer).await), "Camera");
    assert_eq!(world.main_api.count(), 1);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(title(&world.directory.product(CAMERA, &bearer).await), "Camera II");

    world.clock.advance(TTL);
    world.main_api.answers(away);
    assert_eq!(title(&world.directory.product(CAMERA, &bearer).await), "Camera II");
    let asked = world.main_api.count();
    assert_eq!(title(&world.directory.product(CAMERA, &bearer).await), "Camera II");
    assert_eq!(world.main_api.count(), asked, "a main API that is away is left alone for a while");

    world.clock.advance(Duration::from_secs(10));
    world.main_api.always(not_found());
    for _ in 0..2 {
        assert_eq!(world.directory.product(CAMERA, &bearer).await, ProductLookUp::NotFound);
    }
    let shown = world.directory.products(&[CAMERA], Some(&bearer)).await;
    assert_eq!(shown[&CAMERA].title, "Camera II", "old conversations still show it");
}

#[tokio::test]
async fn cards_are_shown_at_once_and_filled_in_behind() {
    let world = World::new().await;
    let bearer = token("7|AbC");
    world.main_api.answers(away);
    let shown = world.directory.products(&[CAMERA], Some(&bearer)).await;
    assert_eq!(shown[&CAMERA].title, "Product 5");
    eventually("it was asked about", || async { world.main_api.count() == 1 }).await;

    world.main_api.always(Reply::json(200, &product(5, "Camera", 2)));
    eventually("the card is filled in", || async {
        world.clock.advance(Duration::from_secs(10));
        world.directory.products(&[CAMERA], Some(&bearer)).await[&CAMERA].title == "Camera"
    })
    .await;
    world.main_api.answers(away);
    eventually("the card is saved", || async {
        world.restarted().products(&[CAMERA], None).await[&CAMERA].title == "Camera"
    })
    .await;
    let restarted = world.restarted();
    assert_eq!(
        title(&restarted.product(CAMERA, &bearer).await),
        "Camera",
        "known though the main API is away"
    );
    let stored = world.restarted().products(&[CAMERA], None).await;
    assert_eq!(stored[&CAMERA].image_urls, ["/storage/5a.jpg"]);
    assert_eq!((stored[&CAMERA].price_per_day, stored[&CAMERA].owner_id), (Some(12.5), Some(UserId(2))));
}

#[tokio::test]
async fn a_user_path_is_asked_and_the_answer_kept_fresh_behind() {
    let world = World::with(&[("MAIN_API_USER_PATH", "/users/{id}/card")]).await;
    world.main_api.always(Reply::json(200, &json!({"data": user(2, "Ben")})));
    let bearer = token("7|AbC");
    assert_eq!(world.directory.user(UserId(2), Some(&bearer)).await.name, "Ben");
    let question = world.main_api.questions().remove(0);
    assert_eq!((question.path.as_str(), question.bearer()), ("/api/v1/users/2/card", "Bearer 7|AbC"));

    world.main_api.always(Reply::json(200, &json!({"data": user(2, "Benjamin")})));
    world.clock.advance(TTL);
    assert_eq!(world.directory.user(UserId(2), None).await.name, "Ben", "what is known is shown at once");
    eventually("the new name is known", || async {
        world.directory.user(UserId(2), None).await.name == "Benjamin"
    })
    .await;
    assert_eq!(world.main_api.count(), 2);
}

#[tokio::test]
async fn a_user_path_that_does_not_answer_keeps_nobody_waiting_for_long() {
    let world = World::with(&[("MAIN_API_USER_PATH", "/users/{id}"), ("MAIN_API_TIMEOUT", "60000")]).await;
    world.main_api.always(Reply::user(2, "Ben").after(Duration::from_secs(60)));
    let asking = world.directory.user(UserId(2), None);
    let shown =
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("long before the time-out");
    assert_eq!(shown.name, "User 2");
}

#[tokio::test]
async fn slow_profiles_keep_nobody_from_signing_in() {
    let vars =
        [("MAIN_API_USER_PATH", "/users/{id}"), ("MAIN_API_CONCURRENCY", "2"), ("MAIN_API_TIMEOUT", "10000")];
    let world = World::with(&vars).await;
    world.main_api.answers(|question| match question.path.as_str() {
        "/api/v1/user" => Reply::user(1, "Anna"),
        _ => Reply::user(2, "Ben").after(Duration::from_secs(60)),
    });
    let ids: Vec<UserId> = (2..50).map(UserId).collect();
    world.directory.users(&ids, None).await;
    world.identity.authenticate("1|Anna").await.expect("a caller");
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_asked_for_once() {
    let world = World::with(&[("MAIN_API_USER_PATH", "/users/{id}")]).await;
    world.main_api.always(Reply::json(404, &json!({"message": "User not found"})));
    for _ in 0..3 {
        assert_eq!(world.directory.user(UserId(2), None).await.name, "User 2");
    }
    assert_eq!(world.main_api.count(), 1);
}
