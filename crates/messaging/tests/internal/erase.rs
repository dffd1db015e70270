//! What is kept about a person: given out whole, and erased so that the others keep their threads.

use std::{collections::BTreeSet, path::Path};

use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    on_both_databases,
    service::{ANNA, BEN, CLEO, KEY, Service, assert_refused, token},
    support::TestDatabase,
};

on_both_databases!(
    an_export_has_everything_of_a_person_and_nothing_of_others,
    a_long_history_is_exported_whole,
    an_erased_user_is_nobody_and_the_others_keep_their_threads,
    erasing_goes_on_where_a_crash_left_it,
);

async fn upload(service: &Service, user: i64, bytes: &[u8]) -> Value {
    let head = "--XYZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"note.txt\"\r\n\r\n";
    let body = [head.as_bytes(), bytes, b"\r\n--XYZ--\r\n"].concat();
    let request = service.request("POST", "/api/uploads").bearer_auth(token(user)).body(body);
    let response = request.header("content-type", "multipart/form-data; boundary=XYZ").send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.json::<Value>().await.unwrap()["data"].take()
}

fn files_on_disk(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_on_disk(&path));
        } else {
            found.insert(path.display().to_string());
        }
    }
    found
}

/// Anna and Ben with a thread that has a bit of everything; answers the conversation.
async fn thread(service: &Service) -> Value {
    let first = service.say(ANNA, BEN, "Hello from Anna").await;
    let conversation = first["conversation_id"].clone();
    service
        .call(ANNA, "PUT", &format!("/api/messages/{}", first["id"]), json!({"content": "Hello, Ben"}))
        .await;
    let reply = json!({"conversation_id": conversation, "content": "Hello back", "reply_to_id": first["id"]});
    let reply = service.call(BEN, "POST", "/api/messages", reply).await.1["data"].take();
    let path = format!("/api/messages/{}/reactions", reply["id"]);
    service.call(ANNA, "POST", &path, json!({"emoji": "👍"})).await;
    service
        .call(BEN, "POST", &format!("/api/messages/{}/reactions", first["id"]), json!({"emoji": "🎉"}))
        .await;
    let sent = upload(service, ANNA, b"a note of Anna").await;
    let body = json!({"conversation_id": conversation, "type": "file", "attachment_id": sent["id"]});
    assert_eq!(service.call(ANNA, "POST", "/api/messages", body).await.0, 201);
    upload(service, ANNA, b"never sent").await;
    let theirs = upload(service, BEN, b"a note of Ben").await;
    let body = json!({"conversation_id": conversation, "type": "file", "attachment_id": theirs["id"]});
    assert_eq!(service.call(BEN, "POST", "/api/messages", body).await.0, 201);
    let device = json!({"token": "fcm:secret-of-anna", "device_type": "ios", "device_id": "phone"});
    service.call(ANNA, "POST", "/api/devices", device).await;
    service.call(ANNA, "PUT", "/api/notifications/preferences", json!({"email": false})).await;
    service.call(ANNA, "POST", &format!("/api/users/{CLEO}/block"), Value::Null).await;
    conversation
}

async fn export(service: &Service, user: i64) -> (String, Value) {
    let response = service.request("GET", &format!("/internal/users/{user}/export")).bearer_auth(KEY);
    let response = response.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
    let text = response.text().await.unwrap();
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    assert!(whole["success"] == true && whole["meta"]["timestamp"].is_string());
    (text, whole["data"].take())
}

async fn an_export_has_everything_of_a_person_and_nothing_of_others(database: TestDatabase) {
    let service = Service::start(database).await;
    let conversation = thread(&service).await;
    service.say(BEN, CLEO, "Between us").await;
    let (text, data) = export(&service, ANNA).await;
    assert!(!text.contains("secret-of-anna") && !text.contains("Between us"));
    assert_eq!((&data["user_id"], &data["profile"]["name"]), (&json!(ANNA), &json!("Name 1")));
    assert_eq!(
        data["preferences"],
        json!({"push": true, "email": false, "quiet_hours": null, "presence": true})
    );
    assert_eq!(
        (&data["devices"][0]["device_id"], &data["blocks"][0]["user_id"]),
        (&json!("phone"), &json!(CLEO))
    );
    assert_eq!(data["unsent_files"].as_array().unwrap().len(), 1);
    let conversations = data["conversations"].as_array().unwrap();
    assert_eq!(conversations.len(), 1);
    assert_eq!(
        (&conversations[0]["id"], &conversations[0]["other_user"]["id"]),
        (&conversation, &json!(BEN))
    );
    let seen = service.history(ANNA, &conversation).await;
    let exported = conversations[0]["messages"].as_array().unwrap();
    assert_eq!(exported.len(), 4);
    for (exported, seen) in exported.iter().zip(&seen) {
        for field in ["id", "seq", "content", "reactions", "reply_to", "sender_id"] {
            assert_eq!(exported[field], seen[field]);
        }
        assert_eq!(exported["is_cleared"], false);
    }
    let link = exported[2]["attachment"]["url"].as_str().unwrap();
    let file = service.request("GET", link).send().await.unwrap().text().await.unwrap();
    assert_eq!(file, "a note of Anna");

    // Of a history that she deleted, her own words are still kept, and said to be so.
    service.call(ANNA, "DELETE", &format!("/api/conversations/{conversation}"), Value::Null).await;
    let (_, data) = export(&service, ANNA).await;
    let kept = data["conversations"][0]["messages"].as_array().unwrap();
    assert!(
        kept.len() == 2
            && kept.iter().all(|message| message["sender_id"] == ANNA && message["is_cleared"] == true)
    );
    let (_, nobody) = export(&service, 999).await;
    assert_eq!((&nobody["profile"], &nobody["conversations"]), (&Value::Null, &json!([])));
    assert_refused(&service.internal("GET", "/internal/users/0/export", Value::Null).await, 404, "NOT_FOUND");
}

async fn a_long_history_is_exported_whole(database: TestDatabase) {
    let service = Service::start(database).await;
    let conversation = service.say(ANNA, BEN, "0").await["conversation_id"].clone();
    let posts = (1..450).map(|n| {
        let body = json!({"conversation_id": conversation, "content": format!("{n}")});
        let service = &service;
        async move { service.call(if n % 3 == 0 { BEN } else { ANNA }, "POST", "/api/messages", body).await.0 }
    });
    futures_util::future::join_all(posts).await;
    for other in 10..70 {
        service.say(ANNA, other, "Hello").await;
    }
    let (_, data) = export(&service, ANNA).await;
    let conversations = data["conversations"].as_array().unwrap();
    assert_eq!(conversations.len(), 61);
    let seqs: Vec<_> =
        conversations[0]["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=450).collect::<Vec<_>>());
}

/// Every text in every table that Anna wrote or that names her.
async fn leftovers(database: &TestDatabase) -> Vec<String> {
    const QUERIES: [&str; 6] = [
        "select content from messages where sender_id = 1 and content <> ''",
        "select content from message_edits where message_id in (select id from messages where sender_id = 1)",
        "select token from devices where user_id = 1",
        "select name from attachments where uploader_id = 1",
        "select name from user_profiles where id = 1 and name <> 'Deleted user'",
        "select emoji from message_reactions where user_id = 1",
    ];
    let mut found = Vec::new();
    for query in QUERIES {
        let rows: Vec<String> = if database.url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(&database.url).await.unwrap();
            sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
            sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
        };
        found.extend(rows);
    }
    found
}

async fn count(database: &TestDatabase, query: &'static str) -> i64 {
    if database.url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    } else {
        let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }
}

/// Counters that a recount would not agree with, and conversations whose places have a gap.
async fn disagreements(database: &TestDatabase) -> i64 {
    count(
        database,
        "select (select count(*) from conversation_participants p where p.unread_count <> (select count(*)
                 from messages m where m.conversation_id = p.conversation_id and m.seq > p.cleared_seq
                     and m.sender_id <> p.user_id and not m.is_read and m.deleted_at is null))
             + (select count(*) from conversations c where c.last_seq <> (select count(*) from messages m
                 where m.conversation_id = c.id))
             + (select count(*) from user_log_heads h where exists (select 1 from user_events e
                     where e.user_id = h.user_id and e.event_seq > h.last_seq))",
    )
    .await
}

async fn an_erased_user_is_nobody_and_the_others_keep_their_threads(database: TestDatabase) {
    let service = Service::start(database).await;
    let conversation = thread(&service).await;
    let other = service.say(BEN, CLEO, "Between us").await["conversation_id"].clone();
    let (mut anna, mut ben) = (service.connect(ANNA).await, service.connect(BEN).await);
    let before = files_on_disk(&service.uploads);
    assert_eq!(before.len(), 3, "{before:?}");
    let head = service.get(BEN, "/api/sync").await["last_event_seq"].as_i64().unwrap();
    let own_head = service.get(ANNA, "/api/sync").await["last_event_seq"].as_i64().unwrap();

    service.main_api.lock().signed_out.insert(ANNA);
    let (status, answer) = service.internal("DELETE", "/internal/users/1", Value::Null).await;
    assert_eq!((status, &answer["data"]["status"]), (200, &json!("erased")), "{answer}");
    assert_eq!(answer["data"]["messages"], 2);
    anna.wait_closed().await;
    assert_refused(
        &service.call(ANNA, "GET", "/api/conversations", Value::Null).await,
        401,
        "UNAUTHENTICATED",
    );

    // What Ben sees: his own words, and tombstones of nobody.
    let history = service.history(BEN, &conversation).await;
    assert_eq!(history.len(), 4);
    for message in &history {
        if message["sender_id"] == ANNA {
            assert_eq!(message["sender"]["name"], "Deleted user");
            assert_eq!((&message["content"], &message["attachment"]), (&json!(""), &Value::Null));
            assert!(message["deleted_at"].is_string() && message["reactions"] == json!([]));
        } else {
            assert_eq!((&message["deleted_at"], &message["reactions"]), (&Value::Null, &json!([])));
        }
    }
    assert_eq!(
        (&history[1]["content"], &history[1]["reply_to"]["content"]),
        (&json!("Hello back"), &json!(""))
    );
    let list = service.get(BEN, &format!("/api/conversations/{conversation}")).await;
    assert_eq!((&list["other_user"]["name"], &list["unread_count"]), (&json!("Deleted user"), &json!(0)));
    // What he hears, live and from his log: each message, the reaction, then the conversation.
    for message in [&history[0], &history[2]] {
        ben.wait_for("message_deleted", |data| data["message_id"] == message["id"]).await;
    }
    ben.wait_for("message_reaction", |data| data["action"] == "removed").await;
    let told = ben.wait_for("conversation_updated", |data| data["event_seq"].is_i64()).await;
    assert_eq!(told["conversation"]["other_user"]["name"], "Deleted user");
    let news: Vec<_> = service
        .log(BEN)
        .await
        .into_iter()
        .filter(|(_, data)| data["event_seq"].as_i64() > Some(head))
        .collect();
    let names: Vec<_> = news.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["message_deleted", "message_deleted", "message_reaction", "conversation_updated"]);
    // Nothing is left, and nothing of others is gone.
    assert_eq!(leftovers(&service.database).await, Vec::<String>::new());
    let after = files_on_disk(&service.uploads);
    assert!(after.len() == 1 && after.is_subset(&before), "{after:?}");
    let theirs = history[3]["attachment"]["url"].as_str().unwrap();
    assert_eq!(service.request("GET", theirs).send().await.unwrap().text().await.unwrap(), "a note of Ben");
    assert_eq!(service.history(CLEO, &other).await[0]["content"], "Between us");
    assert_eq!(
        count(&service.database, "select count(*) from user_events where user_id = 1 and kind <> 5").await,
        0
    );
    assert_eq!(count(&service.database, "select count(*) from blocks").await, 0);
    let kept = count(&service.database, "select last_seq from user_log_heads where user_id = 1").await;
    assert!(kept >= own_head, "places are given out once");
    assert_eq!(disagreements(&service.database).await, 0);

    // Once more is fine and tells nobody.
    let told = service.log(BEN).await.len();
    let (status, answer) = service.internal("DELETE", "/internal/users/1", Value::Null).await;
    assert_eq!(
        (status, &answer["data"]["status"], &answer["data"]["messages"]),
        (200, &json!("erased"), &json!(0))
    );
    assert_eq!(service.log(BEN).await.len(), told);
    // The thread goes on for him.
    let (status, _) = service
        .call(
            BEN,
            "POST",
            "/api/messages",
            json!({"conversation_id": conversation, "content": "Anybody there?"}),
        )
        .await;
    assert_eq!(status, 201);
    let (_, data) = export(&service, ANNA).await;
    assert_eq!((&data["profile"]["name"], &data["devices"]), (&json!("Deleted user"), &json!([])));
}

async fn erasing_goes_on_where_a_crash_left_it(database: TestDatabase) {
    let first = Service::start(database).await;
    let conversation = first.say(ANNA, BEN, "0").await["conversation_id"].clone();
    let posts = (1..1200).map(|n| {
        let body = json!({"conversation_id": conversation, "content": format!("{n}")});
        let service = &first;
        async move { service.call(if n % 2 == 0 { BEN } else { ANNA }, "POST", "/api/messages", body).await.0 }
    });
    futures_util::stream::iter(posts).buffered(100).for_each(|_| async {}).await;
    // A worker that died in the middle: the first stretch is done, its lease has lapsed.
    first
        .database
        .execute(
            "update messages set content = '', deleted_at = created_at where sender_id = 1 and seq <= 500",
        )
        .await;
    first
        .database
        .execute("update conversation_participants set unread_count = (select count(*) from messages m where m.conversation_id = conversation_participants.conversation_id and m.sender_id <> conversation_participants.user_id and not m.is_read and m.deleted_at is null)")
        .await;
    let lapsed = if first.database.url.starts_with("sqlite:") {
        "insert into jobs (kind, subject_id, conversation_id, seq, round, changed, leased_until, created_at)
         values ('erase', 1, 0, 500, 1, 250, 0, 0)"
    } else {
        "insert into jobs (kind, subject_id, conversation_id, seq, round, changed, leased_until, created_at)
         values ('erase', 1, 0, 500, 1, 250, now() - interval '1 minute', now())"
    };
    first.database.execute(lapsed).await;
    let left =
        count(&first.database, "select count(*) from messages where sender_id = 1 and seq > 500").await;
    let service = first.restart().await;
    for _ in 0..400 {
        let open = "select count(*) from jobs where finished_at is null";
        if count(&service.database, open).await == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let words = "select count(*) from messages where sender_id = 1 and content <> ''";
    assert_eq!(count(&service.database, words).await, 0);
    let changed = "select changed from jobs where kind = 'erase' and finished_at is not null";
    assert_eq!(count(&service.database, changed).await, 250 + left);
    assert_eq!(disagreements(&service.database).await, 0);
    for events in [
        "select count(*) from user_events where user_id = 2 and kind = 3",
        "select count(distinct message_id) from user_events where user_id = 2 and kind = 3",
    ] {
        assert_eq!(count(&service.database, events).await, left, "told of those that were left, once each");
    }
}
