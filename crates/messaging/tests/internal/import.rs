//! Moving in: the main API's tables copied by the program itself, killed in the middle, gone on with,
//! compared; and what the service shows of them.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    on_both_databases,
    service::Service,
    support::{Backend, TestDatabase},
};

on_both_databases!(
    history_comes_in_whole_although_the_import_was_killed,
    a_later_run_brings_what_is_new_and_what_was_read,
    what_cannot_be_imported_is_refused_or_told,
);

/// Laravel's tables with 40 users, of whom each talks with some others: some thousand messages, with
/// everything that a history of years has.
const SCHEMA: &str = "
    create table conversations (id bigserial primary key, user_one_id bigint not null, user_two_id bigint not null,
        product_id bigint, last_message_at timestamp(0), created_at timestamp(0), updated_at timestamp(0));
    create table offers (id bigserial primary key, offer_type varchar(20), amount numeric(10, 2), start_date date,
        end_date date, status varchar(20), message text);
    create table messages (id bigserial primary key, conversation_id bigint not null, sender_id bigint not null,
        content text, is_read boolean not null default false, read_at timestamp(0), offer_id bigint,
        created_at timestamp(0), updated_at timestamp(0), deleted_at timestamp(0), unknown_to_us text);
    insert into conversations (user_one_id, user_two_id, product_id, created_at, updated_at)
        select 1 + n % 40, 1 + (n + 1 + n / 40) % 40, nullif(n / 40, 0), timestamp '2025-01-01' + n * interval '1 minute',
            timestamp '2025-01-01' + n * interval '1 minute'
        from generate_series(0, 199) n;
    -- The first ten once more, the other way round: one conversation each, as the service sees it.
    insert into conversations (user_one_id, user_two_id, product_id, created_at, updated_at)
        select user_two_id, user_one_id, product_id, created_at + interval '1 day', updated_at
        from conversations where id <= 10 order by id;
    insert into offers (offer_type, amount, start_date, end_date, status, message)
        select 'rental', n + 0.5, '2026-05-01', '2026-05-03', 'pending', null from generate_series(1, 20) n;
    insert into messages (conversation_id, sender_id, content, is_read, read_at, offer_id, created_at, updated_at, deleted_at)
        select c.id, case when n % 3 = 0 then c.user_two_id else c.user_one_id end,
            case when n % 97 = 0 then '<b>bold</b> & plain' when n % 101 = 0 then '' else 'Message ' || n end,
            n % 5 <> 0, case when n % 5 <> 0 then timestamp '2025-06-01' end,
            case when n % 300 = 0 then n / 300 end,
            -- Within a conversation not in the order of ids: an older phone sent later.
            timestamp '2025-02-01' + (n - n % 7) * interval '10 seconds', timestamp '2025-06-01',
            case when n % 89 = 0 then timestamp '2025-07-01' end
        from generate_series(1, 6000) n join conversations c on c.id = 1 + n % 210;
    -- What has no place: without a conversation, and of somebody who takes no part.
    insert into messages (conversation_id, sender_id, content, created_at)
        values (9999, 1, 'Nowhere', now()), (1, 777, 'Stranger', now());
    insert into conversations (user_one_id, user_two_id) values (5, 5);
";

struct Moving {
    source: TestDatabase,
    target: TestDatabase,
}

impl Moving {
    async fn new(target: TestDatabase) -> Option<Self> {
        let source = TestDatabase::new(Backend::Postgres).await?;
        let moving = Self { source, target };
        moving.at_the_source(SCHEMA).await;
        Some(moving)
    }

    async fn at_the_source(&self, statements: &'static str) {
        let mut connection = PgConnection::connect(&self.source.url).await.unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rented-messaging"));
        command.args(["import", "--from", &self.source.url]).env_clear();
        command.env("DATABASE_URL", &self.target.url).current_dir(std::env::temp_dir());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        if self.target.url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(&self.target.url).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.target.url).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        }
    }

    async fn service(self) -> (Service, TestDatabase) {
        (Service::start(self.target).await, self.source)
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The number behind a line of the report.
fn told(report: &str, line: &str) -> u64 {
    let found =
        report.lines().find(|one| one.starts_with(line)).unwrap_or_else(|| panic!("{line}: {report}"));
    found[line.len()..].split_whitespace().next().unwrap().parse().unwrap()
}

async fn history_comes_in_whole_although_the_import_was_killed(database: TestDatabase) {
    let Some(moving) = Moving::new(database).await else { return };
    let mut killed = 0;
    for pause in [40, 90, 160, 260, 380] {
        let mut child = moving.command().spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if child.try_wait().unwrap().is_some() {
            break;
        }
        // As kill -9.
        child.kill().unwrap();
        killed += 1;
        child.wait().unwrap();
    }
    assert!(killed > 0, "the import was too quick to be killed");
    let output = moving.run();
    let report = text(&output);
    assert!(output.status.success() && report.contains("Both sides agree."), "{report}");
    // How far the others get depends on when the last one was killed; comparing is always done in whole.
    assert!(report.contains("comparing      [") && report.contains("100 %"), "progress: {report}");
    assert_eq!((told(&report, "conversations there"), told(&report, "conversations here")), (211, 200));
    assert_eq!(told(&report, "messages here and there"), 6000);
    assert_eq!(told(&report, "left out, not two users"), 1);
    assert_eq!(
        (told(&report, "left out, no conversation"), told(&report, "left out, sender a stranger")),
        (1, 1)
    );
    assert!(
        told(&report, "kept, would be refused today") > 50
            && told(&report, "kept, would be changed today") > 50
    );

    // Once more there is nothing to do.
    let report = text(&moving.run());
    assert!(report.contains("Both sides agree."), "{report}");
    assert_eq!((told(&report, "new messages"), told(&report, "changed messages")), (0, 0));

    // Ids are kept, and each conversation is in order of time, then id, without a gap.
    assert_eq!(moving.count("select count(*) from messages where id <= 6000").await, 6000);
    let swapped = "select count(*) from messages a join messages b on b.conversation_id = a.conversation_id
        and b.seq = a.seq + 1 where b.created_at < a.created_at or (b.created_at = a.created_at and b.id < a.id)";
    assert_eq!(moving.count(swapped).await, 0);
    assert_eq!(moving.count("select count(*) from user_events").await, 0);
    let merged = moving.count("select count(*) from messages where conversation_id = 3").await;
    assert_eq!(merged, moving.count("select last_seq from conversations where id = 3").await);

    let (service, _source) = moving.service().await;
    let list = service.get(4, "/api/conversations?limit=200").await;
    let list = list.as_array().unwrap();
    assert!(list.len() >= 9, "{}", list.len());
    let unread: i64 = list.iter().map(|conversation| conversation["unread_count"].as_i64().unwrap()).sum();
    assert!(unread > 0);
    assert_eq!(service.get(4, "/api/conversations/unread/count").await["unread_count"], unread);
    let conversation = &list[0];
    let history = service.history(4, &conversation["id"]).await;
    assert_eq!(conversation["last_message"]["id"], history.last().unwrap()["id"]);
    assert!(history.iter().zip(1..).all(|(message, seq)| message["seq"] == seq));
    let bold = service.get(4, "/api/messages/search?query=%3Cb%3Ebold").await;
    assert!(bold.as_array().unwrap().iter().all(|hit| hit["content"] == "<b>bold</b> & plain"));
    // Reading works, and what is new goes on behind, with ids of its own.
    for conversation in list {
        service
            .call(4, "POST", &format!("/api/conversations/{}/read", conversation["id"]), Value::Null)
            .await;
    }
    assert_eq!(service.get(4, "/api/conversations/unread/count").await["unread_count"], 0);
    let body = json!({"conversation_id": conversation["id"], "content": "And now here"});
    let sent = service.call(4, "POST", "/api/messages", body).await.1["data"].take();
    assert_eq!(sent["seq"].as_u64().unwrap(), history.len() as u64 + 1);
    assert!(sent["id"].as_i64().unwrap() > 1_006_000);
    // Offers came with their state, and change as any other.
    let (status, offer) =
        service.internal("PATCH", "/internal/offers/7", json!({"status": "accepted"})).await;
    assert_eq!((status, &offer["data"]["messages"][0]["id"]), (200, &json!(2100)));
    assert_eq!(offer["data"]["messages"][0]["offer"]["amount"], 7.5);
}

async fn a_later_run_brings_what_is_new_and_what_was_read(database: TestDatabase) {
    let Some(moving) = Moving::new(database).await else { return };
    assert!(moving.run().status.success());
    let unread = "select cast(sum(unread_count) as bigint) from conversation_participants";
    let before = moving.count(unread).await;
    moving
        .at_the_source(
            "insert into conversations (user_one_id, user_two_id, product_id, created_at) values (50, 51, null, now());
             insert into messages (conversation_id, sender_id, content, created_at, updated_at)
                 select c.id, c.user_one_id, 'Later ' || c.id, now(), now() from conversations c where id <= 50
                 union all select c.id, 50, 'First', now(), now() from conversations c where user_one_id = 50;
             update messages set is_read = true, read_at = now(), updated_at = now() where id <= 1000 and not is_read;
             update messages set content = 'Edited', updated_at = now() where id = 11;
             update messages set deleted_at = now(), updated_at = now() where id = 12;",
        )
        .await;
    let output = moving.run();
    let report = text(&output);
    assert!(output.status.success() && report.contains("Both sides agree."), "{report}");
    assert_eq!((told(&report, "new messages"), told(&report, "read on one side only")), (51, 0));
    assert_eq!(told(&report, "changed messages"), 202, "two hundred read, one edited, one deleted");
    assert!(moving.count(unread).await < before);
    assert_eq!(moving.count("select count(*) from messages where id = 11 and content = 'Edited'").await, 1);
    assert_eq!(moving.count("select count(*) from messages where id = 12 and content = ''").await, 1);

    // What somebody changed here is found, and the program says so.
    moving.target.execute("update messages set content = 'Forged' where id = 42").await;
    let output = moving.run();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(told(&text(&output), "DIFFERING conversations"), 1);
}

async fn what_cannot_be_imported_is_refused_or_told(database: TestDatabase) {
    let Some(moving) = Moving::new(database).await else { return };
    let refused = |from: &str| {
        let output = moving.command().args(["--from", from]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "given twice: {}", text(&output));
        let mut command = Command::new(env!("CARGO_BIN_EXE_rented-messaging"));
        command.args(["import", "--from", from]).env_clear().env("DATABASE_URL", &moving.target.url);
        let output = command.current_dir(std::env::temp_dir()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    assert!(refused("oracle://localhost/x").contains("postgres:// or mysql://"));
    assert!(refused("postgres://nobody:hunter2@127.0.0.1:9/x").contains("cannot be read"));
    assert!(!refused("postgres://nobody:hunter2@127.0.0.1:9/x").contains("hunter2"));
    let empty = TestDatabase::new(Backend::Postgres).await.unwrap();
    assert!(refused(&empty.url).contains("the table conversations has no column id"));

    // One at a time.
    let lock = messaging::storage::import::ImportLock::take(&moving.target.url).await.unwrap().unwrap();
    let output = moving.run();
    assert!(text(&output).contains("another import into this database is running"), "{}", text(&output));
    drop(lock);

    // Not over what was written here.
    let source = moving.source.url.clone();
    let (service, _kept) = moving.service().await;
    service.say(1, 2, "Already here").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_rented-messaging"));
    command.args(["import", "--from", &source]).env_clear().env("DATABASE_URL", &service.database.url);
    let output = command.current_dir(std::env::temp_dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("import into an empty one"), "{}", text(&output));
    assert_eq!(service.history(1, &json!(1)).await.len(), 1);
}
