//! What a person sets for themselves: notifications, quiet hours, presence, devices.

use std::time::Duration;

use messaging::{
    chat::{ForgetDevice, PutPreferences, RegisterDevice},
    delivery::hub::Status,
    errors::Error,
    ids::UserId,
};
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{START, TestDatabase},
    world::{ANNA, BEN, CLEO, World, caller},
};

on_both_databases!(
    preferences_have_defaults_and_change_one_by_one,
    who_hides_their_presence_is_offline_to_everybody,
    who_shows_their_presence_again_is_seen_again,
    a_device_is_new_once,
    a_token_moves_to_the_user_who_registers_it,
    a_new_token_of_a_device_replaces_the_old_one,
    a_user_has_twenty_devices_at_most,
    a_device_is_forgotten_by_its_owner_alone,
);

async fn put(world: &World, user: UserId, body: Value) -> Value {
    let request = PutPreferences::parse(&body.to_string()).unwrap();
    serde_json::to_value(world.chat.put_preferences(&caller(user), request).await.unwrap()).unwrap()
}

async fn get(world: &World, user: UserId) -> Value {
    serde_json::to_value(world.chat.get_preferences(&caller(user)).await.unwrap()).unwrap()
}

fn refused(body: &str) -> Vec<String> {
    match PutPreferences::parse(body) {
        Err(Error::Validation(fields)) => fields.into_keys().map(|name| name.into_owned()).collect(),
        other => panic!("not refused: {body} {other:?}"),
    }
}

async fn preferences_have_defaults_and_change_one_by_one(database: TestDatabase) {
    let world = World::new(database).await;
    let defaults = json!({"push": true, "email": true, "quiet_hours": null, "presence": true});
    assert_eq!(get(&world, ANNA).await, defaults);
    assert_eq!(put(&world, ANNA, json!({})).await, defaults);
    let night = json!({"start": "22:00", "end": "07:00", "time_zone": "Europe/Paris"});
    let changed = json!({"push": true, "email": false, "quiet_hours": night, "presence": true});
    assert_eq!(put(&world, ANNA, json!({"email": false, "quiet_hours": night})).await, changed);
    assert_eq!(get(&world, ANNA).await, changed);
    let put_back = put(&world, ANNA, json!({"push": false, "presence": false, "unknown": 1})).await;
    assert_eq!(put_back, json!({"push": false, "email": false, "quiet_hours": night, "presence": false}));
    assert_eq!(put(&world, ANNA, json!({"quiet_hours": null})).await["quiet_hours"], Value::Null);
    assert_eq!(get(&world, BEN).await, defaults, "everybody has their own");

    assert_eq!(refused(r#"{"push":1,"email":"yes"}"#), ["email", "push"]);
    assert_eq!(refused(r#"{"presence":"no"}"#), ["presence"]);
    assert_eq!(refused(r#"{"quiet_hours":"night"}"#), ["quiet_hours"]);
    assert_eq!(
        refused(r#"{"quiet_hours":{"start":"25:00","end":"07:00","time_zone":"Mars/Base"}}"#),
        ["quiet_hours.start", "quiet_hours.time_zone"]
    );
}

async fn who_hides_their_presence_is_offline_to_everybody(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.first_message("hello").await;
    let (ben, _anna) = (world.connect(BEN).await, world.connect(ANNA).await);
    ben.wait_for("user_presence", 1).await;
    world.store.set_last_seen(&[(ANNA, START)]).await.unwrap();
    let presence = || async { world.chat.get_presence(BEN, &[ANNA]).await.unwrap().remove(0) };
    assert_eq!(presence().await.status, Status::Online);

    let told = ben.count("user_presence");
    for _ in 0..2 {
        put(&world, ANNA, json!({"presence": false})).await;
    }
    assert_eq!(ben.count("user_presence"), told + 1, "told once, before the answer");
    assert_eq!((presence().await.status, presence().await.last_seen), (Status::Offline, None));
    let view = world.conversation(BEN, conversation).await.unwrap();
    assert_eq!((view.other_user.status, view.other_user.last_seen), (Status::Offline, None));
    // She goes on seeing others.
    assert_eq!(world.conversation(ANNA, conversation).await.unwrap().other_user.status, Status::Online);
}

async fn who_shows_their_presence_again_is_seen_again(database: TestDatabase) {
    let world = World::new(database).await;
    let (conversation, _) = world.first_message("hello").await;
    put(&world, ANNA, json!({"presence": false})).await;
    let ben = world.connect(BEN).await;
    // Seen while hiding: remembered, not shown.
    world.store.set_last_seen(&[(ANNA, START)]).await.unwrap();
    let other = || async { world.conversation(BEN, conversation).await.unwrap().other_user };
    assert_eq!(other().await.last_seen, None);
    put(&world, ANNA, json!({"presence": true})).await;
    assert_eq!(ben.count("user_presence"), 1);
    assert_eq!((other().await.status, other().await.last_seen), (Status::Offline, Some(START)));
    // Between the two sides of a block nobody is told.
    world.chat.block_user(&caller(BEN), ANNA).await.unwrap();
    put(&world, ANNA, json!({"presence": false})).await;
    put(&world, ANNA, json!({"presence": true})).await;
    assert_eq!(ben.count("user_presence"), 1);
}

fn device(token: &str) -> RegisterDevice {
    RegisterDevice::parse(&json!({"token": token, "device_type": "android"}).to_string()).unwrap()
}

async fn a_device_is_new_once(database: TestDatabase) {
    let world = World::new(database).await;
    let body = json!({"token": " tok:1 ", "device_type": "ios", "device_id": "d-1", "app_version": "1.2"});
    let request = RegisterDevice::parse(&body.to_string()).unwrap();
    let (first, is_new) = world.chat.register_device(&caller(ANNA), &request).await.unwrap();
    assert!(is_new);
    world.clock.advance(Duration::from_secs(60));
    let (again, is_new) = world.chat.register_device(&caller(ANNA), &request).await.unwrap();
    assert!(!is_new);
    let listed = serde_json::to_value(world.chat.list_devices(&caller(ANNA)).await.unwrap()).unwrap();
    assert_eq!(
        listed,
        json!([{"id": first.id, "device_type": "ios", "device_id": "d-1", "app_version": "1.2",
            "created_at": START, "last_used_at": START.plus(Duration::from_secs(60))}]),
        "never the token"
    );
    assert_eq!(again.id, first.id);
    for (body, field) in [
        (r#"{"device_type":"ios"}"#, "token"),
        (r#"{"token":"","device_type":"ios"}"#, "token"),
        (r#"{"token":7,"device_type":"ios"}"#, "token"),
        (r#"{"token":"a\u0000b","device_type":"ios"}"#, "token"),
        (r#"{"token":"a"}"#, "device_type"),
        (r#"{"token":"a","device_type":"fridge"}"#, "device_type"),
        (r#"{"token":"a","device_type":"ios","device_id":[]}"#, "device_id"),
    ] {
        match RegisterDevice::parse(body) {
            Err(Error::Validation(fields)) => assert!(fields.keys().eq([field]), "{body}: {fields:?}"),
            _ => panic!("not refused: {body}"),
        }
    }
    let long = json!({"token": "x".repeat(5000), "device_type": "web"}).to_string();
    assert!(RegisterDevice::parse(&long).is_err());
}

async fn a_token_moves_to_the_user_who_registers_it(database: TestDatabase) {
    let world = World::new(database).await;
    world.chat.register_device(&caller(ANNA), &device("shared")).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    let (moved, is_new) = world.chat.register_device(&caller(BEN), &device("shared")).await.unwrap();
    assert!(is_new, "new to Ben");
    assert_eq!(moved.created_at, START.plus(Duration::from_secs(60)));
    assert!(world.chat.list_devices(&caller(ANNA)).await.unwrap().is_empty());
    assert_eq!(world.chat.list_devices(&caller(BEN)).await.unwrap().len(), 1);
}

async fn a_new_token_of_a_device_replaces_the_old_one(database: TestDatabase) {
    let world = World::new(database).await;
    let phone = |token: &str| {
        let body = json!({"token": token, "device_type": "ios", "device_id": "phone"});
        RegisterDevice::parse(&body.to_string()).unwrap()
    };
    world.chat.register_device(&caller(BEN), &phone("ben")).await.unwrap();
    for token in ["one", "two"] {
        world.chat.register_device(&caller(ANNA), &phone(token)).await.unwrap();
    }
    assert_eq!(world.chat.list_devices(&caller(ANNA)).await.unwrap().len(), 1);
    assert_eq!(world.chat.list_devices(&caller(BEN)).await.unwrap().len(), 1, "another's phone is another");
}

async fn a_user_has_twenty_devices_at_most(database: TestDatabase) {
    let world = World::new(database).await;
    let mut ids = vec![];
    for n in 0..20 {
        let (view, _) =
            world.chat.register_device(&caller(ANNA), &device(&format!("token {n}"))).await.unwrap();
        ids.push(view.id);
        world.clock.advance(Duration::from_secs(1));
    }
    // The first one is used again, so the second one was silent longest.
    world.chat.register_device(&caller(ANNA), &device("token 0")).await.unwrap();
    let (newest, _) = world.chat.register_device(&caller(ANNA), &device("one more")).await.unwrap();
    let mut listed: Vec<_> =
        world.chat.list_devices(&caller(ANNA)).await.unwrap().iter().map(|view| view.id).collect();
    listed.sort_unstable();
    ids.remove(1);
    ids.push(newest.id);
    assert_eq!(listed, ids);
}

async fn a_device_is_forgotten_by_its_owner_alone(database: TestDatabase) {
    let world = World::new(database).await;
    let body = json!({"token": "tok", "device_type": "web", "device_id": "browser"});
    let register = RegisterDevice::parse(&body.to_string()).unwrap();
    let forget = |body: &str| ForgetDevice::parse(body).unwrap();
    world.chat.register_device(&caller(ANNA), &register).await.unwrap();
    for stranger in [BEN, CLEO] {
        assert!(!world.chat.forget_device(&caller(stranger), &forget(r#"{"token":"tok"}"#)).await.unwrap());
    }
    assert_eq!(world.chat.list_devices(&caller(ANNA)).await.unwrap().len(), 1);
    assert!(world.chat.forget_device(&caller(ANNA), &forget(r#"{"token":"tok"}"#)).await.unwrap());
    assert!(!world.chat.forget_device(&caller(ANNA), &forget(r#"{"token":"tok"}"#)).await.unwrap());
    world.chat.register_device(&caller(ANNA), &register).await.unwrap();
    assert!(world.chat.forget_device(&caller(ANNA), &forget(r#"{"device_id":"browser"}"#)).await.unwrap());
    assert!(world.chat.list_devices(&caller(ANNA)).await.unwrap().is_empty());
    assert!(ForgetDevice::parse("{}").is_err());
}
