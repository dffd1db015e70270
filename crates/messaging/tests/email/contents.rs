//! What a mail says, in whose language, and the way out of it.

use std::fs;

use mail_parser::MimeHeaders;
use messaging::{config::Config, server};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{Backend, TestDatabase},
    world::{ANNA, BEN, CAMERA, CLEO, PUBLIC_URL, World, address},
};

on_both_databases!(
    a_mail_is_what_mail_programs_expect,
    one_click_stops_mails,
    everybody_reads_their_own_language
);

async fn a_mail_is_what_mail_programs_expect(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    world.write(ANNA, BEN, Some(CAMERA), "Hello").await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    let parsed = mail.parse();
    let kind = parsed.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("alternative")));
    assert_eq!((parsed.text_body_count(), parsed.html_body_count(), parsed.attachment_count()), (1, 1, 0));
    for (name, value) in [
        ("From", "Rented <no-reply@mail.example.test>"),
        ("To", "user2@people.example.test"),
        ("Auto-Submitted", "auto-generated"),
        ("Precedence", "bulk"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("MIME-Version", "1.0"),
    ] {
        assert_eq!(mail.header(name), value, "{name}");
    }
    assert_eq!(parsed.date().unwrap().to_timestamp(), world.clock.now().as_seconds());
    let link = mail.header("List-Unsubscribe");
    assert!(link.starts_with(&format!("<{PUBLIC_URL}/unsubscribe/2?exp=")) && link.ends_with('>'), "{link}");
    assert!(mail.text().contains(link.trim_matches(['<', '>'])));
    // Whom it is about is in the words alone: no other address, no token.
    let whole = String::from_utf8(mail.content.clone()).unwrap();
    assert!(whole.is_ascii() && !whole.contains(&address(ANNA)) && !whole.contains("|token"), "{whole}");
    assert!(whole.lines().all(|line| line.len() < 998));
}

async fn one_click_stops_mails(database: TestDatabase) {
    let world = World::start(database, &[]).await;
    world.sign_in(&[BEN]).await;
    let (conversation, _) = world.write(ANNA, BEN, None, "one").await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    let link = mail.header("List-Unsubscribe");
    let path = link.trim_matches(['<', '>']).strip_prefix(PUBLIC_URL).unwrap().to_owned();
    let preferences = "/api/notifications/preferences";

    // A scanner that follows the link changes nothing.
    let page = world.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("form-action 'self'"));
    assert!(page.text().await.unwrap().contains("<form method=\"post\">"));
    assert_eq!(world.ok(BEN, Method::GET, preferences, Value::Null).await["data"]["email"], true);

    // Nor does a link that somebody made up, or one for another person.
    for bad in [
        path.replace("/2?", "/1?"),
        path.replace("exp=1", "exp=2"),
        path[..path.len() - 4].to_owned(),
        "/unsubscribe/2".to_owned(),
    ] {
        for method in [Method::GET, Method::POST] {
            let refused = world.request(method, &bad).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{bad}");
        }
    }
    for user in [ANNA, BEN] {
        assert_eq!(world.ok(user, Method::GET, preferences, Value::Null).await["data"]["email"], true);
    }

    // As RFC 8058 has it; a second click is as good as one.
    for _ in 0..2 {
        let click = world.request(Method::POST, &path).body("List-Unsubscribe=One-Click");
        let click = click.header("content-type", "application/x-www-form-urlencoded");
        let done = click.send().await.unwrap();
        assert_eq!(done.status(), StatusCode::OK);
        assert!(done.text().await.unwrap().contains("You will get no more e-mails"));
    }
    let after = world.ok(BEN, Method::GET, preferences, Value::Null).await;
    assert_eq!((&after["data"]["email"], &after["data"]["push"]), (&json!(false), &json!(true)));
    world.read(BEN, conversation).await;
    world.write(ANNA, BEN, None, "two").await;
    world.assert_no_more_than(1).await;
}

async fn everybody_reads_their_own_language(database: TestDatabase) {
    let world = World::start(database, &[("EMAIL_LANGUAGE", "de")]).await;
    let people = [
        (20, json!("fr_CA"), "Anna au sujet de Camera", "Répondre dans l’application", "ltr"),
        (21, json!("ar"), "Anna بشأن Camera", "الرد في التطبيق", "rtl"),
        (22, json!("en-GB"), "Anna about Camera", "Reply in the app", "ltr"),
        (23, json!("pt"), "Anna zu Camera", "In der App antworten", "ltr"),
        (24, Value::Null, "Anna zu Camera", "In der App antworten", "ltr"),
    ];
    for (id, locale, ..) in &people {
        world.set_user(*id, json!({"name": "Somebody", "email": address(*id), "locale": locale}));
    }
    world.sign_in(&people.each_ref().map(|(id, ..)| *id)).await;
    for (id, ..) in &people {
        world.write(ANNA, *id, Some(CAMERA), "Ça va? كيف الحال؟ 👋").await;
    }
    world.pass();
    for (id, _, subject, words, direction) in &people {
        let mail = world.mails(*id, 1).await.remove(0);
        assert_eq!(mail.subject(), *subject);
        assert!(mail.text().contains(words) && mail.html().contains(words), "{}", mail.text());
        assert!(mail.html().contains(&format!("dir=\"{direction}\">")), "{}", mail.html());
        assert!(mail.text().contains("Ça va? كيف الحال؟ 👋"), "{}", mail.text());
        let path = mail.header("List-Unsubscribe");
        let path = path.trim_matches(['<', '>']).strip_prefix(PUBLIC_URL).unwrap();
        let page = world.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
        assert!(page.contains(&format!("dir=\"{direction}\">")), "{page}");
    }
}

async fn sqlite(variables: &[(&str, &str)]) -> World {
    World::start(TestDatabase::new(Backend::Sqlite).await.unwrap(), variables).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_texts_stay_names_and_texts() {
    let world = sqlite(&[]).await;
    world.sign_in(&[BEN]).await;
    let longest = format!("{} {}", "Maximiliane".repeat(10), "von und zu ".repeat(9));
    for (round, (name, shown)) in [
        ("Eve\r\nBcc: victim@example.test\r\n\r\nBuy", "EveBcc: victim@example.testBuy"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("\u{202e}evE\u{2066}", "evE"),
        ("ليلى بنت أحمد", "ليلى بنت أحمد"),
        ("=?utf-8?q?Bcc=3A_x?=", "=?utf-8?q?Bcc=3A_x?="),
        ("{{ unsubscribe }}{% raw %}", "{{ unsubscribe }}{% raw %}"),
        (longest.as_str(), "MaximilianeMaximiliane"),
    ]
    .into_iter()
    .enumerate()
    {
        let user = 30 + i64::try_from(round).unwrap();
        world.set_user(user, json!({"name": name}));
        let text = "a < b && \"c\" > d\r\n.\r\nMAIL FROM:<eve@example.test>\n--\n{{ 7 * 7 }}";
        world.write(user, BEN, None, text).await;
        world.pass();
        let mail = world.mails(BEN, round + 1).await.remove(round);
        assert_eq!((mail.from.as_str(), mail.to.len()), ("no-reply@mail.example.test", 1));
        let parsed = mail.parse();
        let headers: Vec<_> = parsed.headers().iter().map(|header| header.name().to_lowercase()).collect();
        assert!(!headers.contains(&"bcc".to_owned()), "{headers:?}");
        assert_eq!(headers.iter().filter(|name| *name == "subject").count(), 1);
        let subject = parsed.subject().unwrap();
        assert!(
            !subject.contains(['\r', '\n', '\u{202e}', '\u{2066}']) && subject.len() < 500,
            "{subject:?}"
        );
        assert!(mail.text().contains(shown), "{}", mail.text());
        assert!(mail.text().contains("a < b && \"c\" > d . MAIL FROM:<eve@example.test> -- {{ 7 * 7 }}"));
        let html = mail.html();
        assert!(html.contains("a &lt; b &amp;&amp; &quot;c&quot; &gt; d"), "{html}");
        assert!(!html.contains("<img") && !html.contains("49"), "{html}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_histories_are_cut_and_counted() {
    let world = sqlite(&[]).await;
    world.sign_in(&[BEN]).await;
    for number in 1..=6 {
        world.write(ANNA, BEN, None, &format!("number {number} {}", "and on ".repeat(200))).await;
    }
    for product in 100..112 {
        world.write(CLEO, BEN, Some(product), "hello").await;
    }
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    assert_eq!(mail.subject(), "2 people wrote to you");
    let text = mail.text();
    assert!(text.contains("You have 18 unread messages."), "{text}");
    assert_eq!(text.matches("https://app.example.test/conversations/").count(), 10, "{text}");
    assert!(text.contains("and 3 more conversations"), "{text}");
    // What it did not show, it has told of: no second mail.
    world.assert_no_more_than(1).await;
    for product in 100..112 {
        world.ok(BEN, Method::POST, &format!("/api/conversations/{}/read", product - 98), Value::Null).await;
    }
    world.read(BEN, 1).await;
    for number in 7..=11 {
        world.write(ANNA, BEN, None, &format!("number {number} {}", "and on ".repeat(200))).await;
    }
    world.pass();
    let text = world.mails(BEN, 2).await.remove(1).text();
    assert!(
        text.contains("and 2 earlier messages") && text.contains("number 9") && !text.contains("number 8")
    );
    assert!(text.lines().all(|line| line.chars().count() < 300), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_and_files_are_told_of_in_words() {
    let world = sqlite(&[]).await;
    world.sign_in(&[BEN]).await;
    let body = "--XYZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"key <plan>.txt\"\r\n\r\nthe plan\r\n--XYZ--\r\n";
    let upload = world
        .request(Method::POST, "/api/uploads")
        .bearer_auth(crate::world::token(ANNA))
        .header("content-type", "multipart/form-data; boundary=XYZ")
        .body(body);
    let uploaded: Value = upload.send().await.unwrap().json().await.unwrap();
    let file = json!({"receiver_id": BEN, "type": "file", "attachment_id": uploaded["data"]["id"]});
    world.ok(ANNA, Method::POST, "/api/messages", file).await;
    let photo = json!({"receiver_id": BEN, "type": "image", "file_url": "https://cdn.example.test/a.jpg", "content": "here"});
    world.ok(ANNA, Method::POST, "/api/messages", photo).await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    let name = uploaded["data"]["name"].as_str().unwrap();
    assert!(mail.text().contains(&format!("> File: {name}")), "{}", mail.text());
    assert!(mail.text().contains("> Photo – here"), "{}", mail.text());
    assert!(!mail.text().contains("cdn.example.test") && !mail.text().contains("/files/"), "{}", mail.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_files_replace_the_built_in_ones() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("subject.txt"),
        "Rented: {{ name }}{% if product %} / {{ product }}{% endif %}",
    )
    .unwrap();
    let world = sqlite(&[("EMAIL_TEMPLATES", folder.path().to_str().unwrap())]).await;
    world.sign_in(&[BEN]).await;
    world.write(ANNA, BEN, Some(CAMERA), "Hello").await;
    world.pass();
    let mail = world.mails(BEN, 1).await.remove(0);
    assert_eq!(mail.subject(), "Rented: Anna / Camera");
    assert!(mail.text().contains("Reply in the app"), "{}", mail.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_template_stops_the_start_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("email.html"), "<p>{{ words.intro(unread) }}</p>").unwrap();
    let variables = [
        ("MAIN_API_URL", "http://127.0.0.1:9"),
        ("SMTP_URL", "smtp://127.0.0.1:9"),
        ("EMAIL_FROM", "no-reply@example.test"),
        ("APP_URL", "https://app.example.test/{conversation_id}"),
        ("PUBLIC_URL", "https://chat.example.test"),
        ("EMAIL_TEMPLATES", folder.path().to_str().unwrap()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = Config::from_env(variables).unwrap();
    let sentence = server::email_templates(&config).unwrap_err().to_string();
    assert!(sentence.starts_with("EMAIL_TEMPLATES ") && sentence.contains("email.html"), "{sentence}");
}
