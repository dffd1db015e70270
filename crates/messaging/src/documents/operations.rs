//! What each operation of REST takes and answers. The list of routes names them; a test holds that each
//! of them is described here and nothing else is.

use serde_json::{Value, json};

use super::{
    errors, events,
    examples::{self, CONVERSATION, JANE, JOHN, MESSAGE, NOW},
    internal,
    operation::{Access, Operation, RATE_LIMIT, refusal},
    requests,
    schemas::{Schemas, object},
};
use crate::{
    chat::{
        BlockAnswer, BlockView, DeadWebhook, DeviceView, PreferencesView, PresenceView, ReactionAnswer,
        ReadAnswer, ReplayAnswer, SearchHit,
        views::{AttachmentView, ConversationView, MessageView},
    },
    content::Highlight,
    delivery::hub::Status,
    http::answers::{ForgetAnswer, HealthAnswer, SyncAnswer, TokenAnswer, UnreadCount, VapidKeyAnswer},
};

/// The groups, in the order in which they are shown.
pub(super) const TAGS: [(&str, &str); 9] = [
    ("Sign-in", "Tokens are the main API's; this service asks it whose they are."),
    ("Conversations", "Two users, and at most one product. Everybody sees their own side."),
    ("Messages", "`seq` is a message's place in its conversation: 1, 2, 3 … without gaps."),
    (
        "Files",
        "Uploaded first, then sent by `attachment_id`. What a file is decides its bytes, not its name.",
    ),
    ("People", "Presence and blocks."),
    ("Notifications", "Devices and what to send to them."),
    (
        "Server to server",
        "For the main API, with `SERVICE_API_KEY`. Without a key there is nothing at these addresses.",
    ),
    ("Operations", "For whoever runs the service."),
    ("Documents", "The contract, in three forms."),
];

const A_CONVERSATION: &[&str] = &["FORBIDDEN", "CONVERSATION_NOT_FOUND"];
const A_MESSAGE: &[&str] = &["FORBIDDEN", "MESSAGE_NOT_FOUND", "RATE_LIMITED"];

/// All operations.
pub(super) fn all(schemas: &mut Schemas) -> Vec<Operation> {
    let groups = [
        sign_in,
        conversations,
        messages,
        files,
        people,
        notifications,
        internal::all,
        webhooks,
        operations,
        documents,
    ];
    groups.into_iter().flat_map(|group| group(schemas)).collect()
}

fn sign_in(schemas: &mut Schemas) -> Vec<Operation> {
    let token_answer = schemas.of::<TokenAnswer<'_>>();
    let data =
        examples::json(&TokenAnswer { valid: true, user_id: Some(JOHN), user: Some(&examples::john()) });
    let operation = Operation::new("validate_token", "Sign-in", "Whose a token is")
        .access(Access::Open)
        .describe(
            "An invalid token is `valid: false`, not an error. The answer is also flat, at the top level.",
        )
        .body(requests::validate_token(), json!({"token": "7|AbCdEf"}))
        .ok(token_answer, data)
        .refused(&["AUTH_UNAVAILABLE"])
        .flat("valid", json!({"type": "boolean"}), json!(true))
        .flat("user_id", json!({"type": ["integer", "null"]}), json!(JOHN))
        .flat(
            "user",
            json!({"anyOf": [{"$ref": "#/components/schemas/User"}, {"type": "null"}]}),
            examples::json(&examples::john()),
        );
    vec![operation]
}

fn conversations(schemas: &mut Schemas) -> Vec<Operation> {
    let example = || examples::json(&examples::conversation());
    let operation = |id, summary| {
        Operation::new(id, "Conversations", summary)
            .id("The conversation.", CONVERSATION)
            .refused(A_CONVERSATION)
    };
    let mut changed = |id, summary, description: &str| {
        operation(id, summary).describe(description).ok_with::<ConversationView>(schemas, example())
    };
    let mut operations = vec![
        changed("get_conversation", "One conversation", ""),
        changed("archive_conversation", "Put a conversation away", "It comes back with its next message."),
        changed("unarchive_conversation", "Put a conversation back into the list", ""),
        changed("mute_conversation", "Stop notifications of a conversation", "Until a time, or for good.")
            .optional_body(requests::mute_conversation(), json!({"until": "2025-12-24T00:00:00Z"})),
        changed("unmute_conversation", "Let notifications of a conversation through again", ""),
    ];
    operations.extend([
        Operation::new("list_conversations", "Conversations", "The caller's conversations")
            .describe("Newest activity first. Those that the caller deleted are left out until a new message comes.")
            .query("archived", json!({"type": "boolean", "default": false}), "Only archived ones, or only others.")
            .paged(100, 200)
            .page_of::<ConversationView>(schemas, example())
            .unless_known(),
        Operation::new("count_unread", "Conversations", "All unread messages of the caller")
            .describe("Archived and muted conversations count too.")
            .ok_with::<UnreadCount>(schemas, json!({"unread_count": 3}))
            .flat("unread_count", json!({"type": "integer", "minimum": 0}), json!(3)),
        operation("read_conversation", "Mark all messages as read")
            .describe("`unread_count` is the caller's total afterwards.")
            .optional_body(json!({"type": "object"}), json!({}))
            .ok_with::<ReadAnswer>(schemas, events::read_answer())
            .flat("message", json!({"type": "string"}), json!("Messages marked as read."))
            .flat("count", json!({"type": "integer", "minimum": 0}), json!(1))
            .refused(&["RATE_LIMITED"]),
        operation("delete_conversation", "Delete a conversation for the caller")
            .describe("It leaves the list and its history so far is gone, for the caller alone. A later message brings it back with only what is new.")
            .no_content("It is gone."),
    ]);
    operations
}

fn messages(schemas: &mut Schemas) -> Vec<Operation> {
    let message = || examples::json(&examples::message());
    // Without a largest one: what is beyond it is clamped.
    let place = || json!({"type": "integer", "minimum": 0});
    let operation =
        |id, summary| Operation::new(id, "Messages", summary).id("The message.", MESSAGE).refused(A_MESSAGE);
    let place_or_null = json!({"type": ["integer", "null"]});
    let cursors = object([("before", place_or_null.clone()), ("after", place_or_null)]);
    let hit = SearchHit { message: examples::message(), highlight: vec![Highlight { start: 0, length: 5 }] };
    let found = json!({"name": "query", "in": "query", "required": true, "example": "hello",
        "description": "What to look for, whatever its case.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200}});
    let sync_example = json!({
        "events": [{"event": "message_read", "event_seq": 4711, "data": {
            "message_ids": [MESSAGE], "user_id": JANE, "conversation_id": CONVERSATION, "read_at": NOW,
            "event_seq": 4711,
        }}],
        "last_event_seq": 4711, "has_more": false,
    });
    vec![
        Operation::new("list_messages", "Messages", "Messages of a conversation")
            .id("The conversation.", CONVERSATION)
            .describe("Page 1 is the newest window; inside a page the order is oldest → newest. `before`, `after` and `around` a `seq` are steadier than pages while messages come; only one of them may be given. Reading messages delivers them.")
            .paged(50, 100)
            .query("before", place(), "Those before this `seq`.")
            .query("after", place(), "Those after this `seq`.")
            .query("around", place(), "Those around this `seq`.")
            .page_of::<MessageView>(schemas, message())
            .meta("cursors", cursors, json!({"before": 42, "after": 42}))
            .unless_known()
            .refused(A_CONVERSATION),
        Operation::new("send_message", "Messages", "Send a message")
            .describe("To a conversation, or to a user, which begins the conversation. What is answered with 201 is stored. With `client_message_id` the same request can be repeated: it answers the original message and tells nobody again.")
            .body(requests::send_message(), json!({"receiver_id": JANE, "product_id": 5, "content": "Hello!", "client_message_id": "8d2f3c"}))
            .created("It is stored, now or before.", schemas.of::<MessageView>(), message())
            .header(201, &RATE_LIMIT)
            .header(201, &["Idempotent-Replayed"])
            .refused(A_CONVERSATION)
            .refused(&["BLOCKED", "CONFLICT", "RATE_LIMITED"]),
        operation("edit_message", "Give a message other words")
            .describe("Its sender, text only, within the edit window. The same words again change nothing.")
            .body(requests::edit_message(), json!({"content": "Hello again!"}))
            .ok_with::<MessageView>(schemas, message())
            .refused(&["BLOCKED", "EDIT_WINDOW_CLOSED"]),
        operation("delete_message", "Delete a message")
            .describe("Its sender. It stays as a tombstone. Once more is fine.")
            .no_content("It is a tombstone."),
        operation("add_reaction", "Give a message an emoji")
            .describe("Once more changes nothing.")
            .body(requests::reaction(), json!({"emoji": "👍"}))
            .created("It is given.", schemas.of::<ReactionAnswer>(), events::reaction_answer()),
        operation("remove_reaction", "Take an emoji back")
            .describe("One that was not given is fine.")
            .path("emoji", json!({"type": "string", "minLength": 1, "maxLength": 10}), "The emoji, percent-encoded.", json!("👍"))
            .no_content("It is not given any more."),
        Operation::new("search_messages", "Messages", "Search the caller's messages")
            .describe("A substring, whatever its case, in all that the caller may see; newest first. `highlight` counts code points of `content`.")
            .required_query(found)
            .query("conversation_id", requests::id(), "Only there.")
            .paged(20, 100)
            .page_of::<SearchHit>(schemas, examples::json(&hit))
            .refused(A_CONVERSATION),
        Operation::new("sync_events", "Messages", "What the caller's log has after a place")
            .describe("The same stored events that live connections hear, in their order. Without `since` only the newest place.")
            .query("since", place(), "The last `event_seq` known; 0 is the whole log. Beyond the newest it is refused.")
            .query("limit", json!({"type": "integer", "minimum": 1, "default": 100}), "Events at most; more than 500 are 500.")
            .ok_with::<SyncAnswer>(schemas, sync_example)
            .refused(&["SYNC_EXPIRED"]),
    ]
}

fn files(schemas: &mut Schemas) -> Vec<Operation> {
    let binary = json!({"type": "string", "format": "binary"});
    let mut fields = object([("file?", binary.clone()), ("image?", binary)]);
    fields["anyOf"] = json!([{"required": ["file"]}, {"required": ["image"]}]);
    let upload = json!({"required": true, "content": {"multipart/form-data": {"schema": fields}}});
    let any = json!({"*/*": {"schema": {"type": "string", "format": "binary"}}});
    let shown = ["ETag", "Accept-Ranges", "Content-Disposition"];
    let mut too_far = refusal(&[errors::with_code("BAD_REQUEST")]);
    too_far["description"] = json!("`BAD_REQUEST`: the file does not have the range that was asked for.");
    vec![
        Operation::new("upload_file", "Files", "Upload a file")
            .describe("JPEG, PNG, GIF, WebP, PDF, plain text, office documents, zip, common audio and video. Pictures lose all EXIF and get a thumbnail. A file that is never sent is deleted after a day.")
            .raw_body(upload)
            .created("It is kept, and can be sent with a message.", schemas.of::<AttachmentView>(), examples::json(&examples::attachment()))
            .header(201, &RATE_LIMIT)
            .refused(&["BAD_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_FAILED", "RATE_LIMITED"]),
        Operation::new("get_file", "Files", "The bytes of a file")
            .access(Access::BearerOrLink)
            .describe("For the participants of its conversation, for the uploader before it is sent, and for whoever holds the signed link that messages carry.")
            .id("The file.", 9)
            .path("name", json!({"type": "string", "minLength": 1}), "For people; the id says which file.", json!("garden.jpg"))
            .query("variant", json!({"type": "string", "enum": ["original", "thumbnail"], "default": "original"}), "The file itself or its small picture.")
            .query("exp", json!({"type": "string"}), "Of a signed link.")
            .query("sig", json!({"type": "string"}), "Of a signed link.")
            .required_query(json!({"name": "Range", "in": "header", "schema": {"type": "string"}, "description": "A part, such as `bytes=0-1023`."}))
            .raw_answer(200, json!({"description": "The whole file.", "content": any.clone()}))
            .raw_answer(206, json!({"description": "The part that was asked for.", "content": any}))
            .raw_answer(304, json!({"description": "The client has it already."}))
            .raw_answer(416, too_far)
            .header(200, &shown)
            .header(206, &shown)
            .header(206, &["Content-Range"])
            .header(304, &["ETag"])
            .header(416, &["Content-Range"])
            .refused(&["FORBIDDEN", "NOT_FOUND"]),
    ]
}

fn people(schemas: &mut Schemas) -> Vec<Operation> {
    let presence = PresenceView { user_id: JANE, status: Status::Online, last_seen: None };
    let block = BlockView { user_id: JANE, name: "Jane".into(), avatar_url: None, created_at: NOW };
    let who = json!({"name": "user_ids", "in": "query", "required": true, "explode": false, "style": "form",
        "description": "At most 200, separated by commas.", "example": [1, 2],
        "schema": {"type": "array", "items": requests::id(), "minItems": 1, "maxItems": 200}});
    let operation = |id, summary, description| {
        Operation::new(id, "People", summary)
            .describe(description)
            .id("The user.", JANE)
            .refused(&["NOT_FOUND"])
    };
    let answer = |is_blocked| examples::json(&BlockAnswer { user_id: JANE, is_blocked });
    vec![
        Operation::new("get_presence", "People", "Who is online")
            .describe("Only of users who share a conversation with the caller; others are left out.")
            .required_query(who)
            .ok_list::<PresenceView>(schemas, examples::json(&presence)),
        operation(
            "block_user",
            "Block a user",
            "Neither writes to the other any more; only the blocker is shown why. Once more changes nothing.",
        )
        .ok_with::<BlockAnswer>(schemas, answer(true))
        .refused(&["CONFLICT"]),
        operation("unblock_user", "End a block", "Nobody blocked is fine.")
            .ok_with::<BlockAnswer>(schemas, answer(false)),
        Operation::new("list_blocks", "People", "Whom the caller blocks")
            .ok_list::<BlockView>(schemas, examples::json(&block)),
    ]
}

fn notifications(schemas: &mut Schemas) -> Vec<Operation> {
    let device = examples::json(&DeviceView {
        id: 3,
        device_type: "ios".into(),
        device_id: Some("phone".into()),
        app_version: Some("2.4.0".into()),
        created_at: NOW,
        last_used_at: NOW,
    });
    let preferences = json!({
        "push": true, "email": false, "presence": true,
        "quiet_hours": {"start": "22:00", "end": "07:00", "time_zone": "Europe/Paris"},
    });
    let registered = json!({"token": "fcm:dGhl…", "device_type": "ios", "device_id": "phone"});
    let mut operations = Vec::new();
    for (list, register, forget, alias) in [
        ("list_devices", "register_device", "forget_device", ""),
        ("list_fcm_tokens", "register_fcm_token", "forget_fcm_token", "The same as `/api/devices`."),
    ] {
        let operation = |id, summary, description: &str| {
            Operation::new(id, "Notifications", summary).describe([alias, description].join(" ").trim())
        };
        operations.extend([
            operation(list, "The caller's devices", "Never their tokens.").ok_list::<DeviceView>(schemas, device.clone()),
            operation(register, "Register a device", "A token that was somebody else's moves to the caller. Past twenty, the one silent longest is forgotten.")
                .body(requests::register_device(), registered.clone())
                .ok_with::<DeviceView>(schemas, device.clone())
                .created("It is new.", schemas.of::<DeviceView>(), device.clone()),
            operation(forget, "Forget a device", "By its token, or by its `device_id`.")
                .body(requests::forget_device(), json!({"device_id": "phone"}))
                .ok_with::<ForgetAnswer>(schemas, json!({"removed": true})),
        ]);
    }
    operations.extend([
        Operation::new("get_preferences", "Notifications", "The caller's preferences")
            .ok_with::<PreferencesView>(schemas, preferences.clone()),
        Operation::new("put_preferences", "Notifications", "Change the caller's preferences")
            .describe("What is not named stays as it is.")
            .optional_body(requests::put_preferences(), preferences.clone())
            .ok_with::<PreferencesView>(schemas, preferences),
        Operation::new("get_vapid_key", "Notifications", "What a browser subscribes to Web Push with")
            .access(Access::Open)
            .describe("For `applicationServerKey` of `PushManager.subscribe`. The subscription, as JSON text, is the `token` of a `web` device.")
            .ok_with::<VapidKeyAnswer<'_>>(schemas, json!({"public_key": "BOr3…"}))
            .refused(&["NOT_FOUND"]),
    ]);
    for (id, summary, description) in [
        (
            "ask_to_unsubscribe",
            "A page that asks whether to stop mails",
            "Where the link of a mail leads. The link is the proof; nobody signs in.",
        ),
        (
            "unsubscribe",
            "Stop mails about unread messages",
            "By one click (RFC 8058): the same link, `email` of the preferences becomes false. The body is not looked at.",
        ),
    ] {
        let text = |description: &str| json!({"description": description, "content": {"text/html": {"schema": {"type": "string"}}}});
        operations.push(
            Operation::new(id, "Notifications", summary)
                .access(Access::Open)
                .describe(description)
                .id("The person.", JOHN)
                .query(
                    "exp",
                    json!({"type": "string"}),
                    "When the link ends, in seconds since the Unix epoch.",
                )
                .query("sig", json!({"type": "string"}), "Its signature.")
                .raw_answer(200, text("A page."))
                .refused(&["FORBIDDEN", "SERVICE_UNAVAILABLE"]),
        );
    }
    operations
}

fn webhooks(schemas: &mut Schemas) -> Vec<Operation> {
    let dead = examples::json(&DeadWebhook {
        id: 17,
        event_id: "evt_0d4b8f3c0a6e4c1f9b7d2e5a8c3f6b10".into(),
        kind: "message.created".into(),
        target: "https://shop.example.test/webhooks/messaging".into(),
        conversation_id: Some(CONVERSATION),
        message_id: Some(MESSAGE),
        attempts: 10,
        last_error: Some("answered 500".into()),
        created_at: NOW,
        dead_at: NOW,
    });
    let operation = |id, summary| {
        Operation::new(id, "Server to server", summary)
            .access(Access::ServiceKey)
            .refused(&["NOT_FOUND", "SERVICE_UNAVAILABLE"])
    };
    vec![
        operation("list_dead_webhooks", "Webhooks that could not be delivered")
            .describe("The latest first; kept for 30 days.")
            .paged(50, 200)
            .page_of::<DeadWebhook>(schemas, dead),
        operation("replay_webhook", "Deliver one of them again")
            .describe("A target that answered 410 gets events again from then on.")
            .id("The delivery.", 17)
            .ok_with::<ReplayAnswer>(schemas, json!({"replayed": 1}))
            .refused(&["CONFLICT"]),
        operation("replay_webhooks", "Deliver all of them again")
            .describe("Those whose targets are configured.")
            .ok_with::<ReplayAnswer>(schemas, json!({"replayed": 3})),
    ]
}

fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let dependency = |latency_ms: Value| json!({"status": "up", "latency_ms": latency_ms});
    let ready = json!({"status": "ready", "dependencies": {
        "database": dependency(json!(0.41)), "redis": {"status": "unused", "latency_ms": null},
        "main_api": dependency(json!(3.7)),
    }});
    let health = examples::json(&HealthAnswer { status: "ok", version: env!("CARGO_PKG_VERSION") });
    let is_ready = Operation::new("get_ready", "Operations", "Whether the service can serve")
        .access(Access::Open)
        .describe("Without the database, and on the way out, it cannot. Without Redis or the main API it can, `degraded`; so where the database can be read but its disk is `full`.")
        .ok(ready_schema(), ready);
    let mut not_ready = json!({
        "description": "`SERVICE_UNAVAILABLE`: the database is away, or the service is on its way out.",
        "content": {"application/json": {"schema": {"allOf": [
            {"$ref": "#/components/schemas/NotReady"},
            {"properties": {"data": ready_schema()}},
        ]}}},
    });
    not_ready["headers"]["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
    vec![
        Operation::new("get_health", "Operations", "Whether the process lives")
            .access(Access::Open)
            .ok_with::<HealthAnswer>(schemas, health)
            .flat("status", json!({"const": "ok"}), json!("ok")),
        is_ready.raw_answer(503, not_ready),
        Operation::new("get_metrics", "Operations", "What Prometheus reads")
            .access(Access::MetricsToken)
            .describe("Open in development. In production it needs `METRICS_TOKEN` as a bearer, or its own `METRICS_PORT`.")
            .raw_answer(200, json!({"description": "Prometheus text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}))
            .refused(&["UNAUTHENTICATED", "FORBIDDEN"]),
    ]
}

fn ready_schema() -> Value {
    let status = |names: &[&str]| json!({"type": "string", "enum": names});
    let dependency = |names: &[&str]| {
        object([("status", status(names)), ("latency_ms", json!({"type": ["number", "null"], "minimum": 0}))])
    };
    object([
        ("status", status(&["ready", "degraded", "unavailable", "stopping"])),
        (
            "dependencies",
            object([
                ("database", dependency(&["up", "full", "down"])),
                ("redis", dependency(&["up", "down", "unused"])),
                ("main_api", dependency(&["up", "down"])),
            ]),
        ),
    ])
}

/// A refused `/ready`: the error, and which dependency it was.
pub(super) fn not_ready_schema() -> Value {
    object([
        ("success", json!({"const": false})),
        (
            "error",
            object([
                ("code", json!({"const": "SERVICE_UNAVAILABLE"})),
                ("message", json!({"type": "string"})),
                ("details", json!({"$ref": "#/components/schemas/ErrorDetails"})),
            ]),
        ),
        ("message", json!({"type": "string"})),
        ("data", json!({"type": "object"})),
        ("meta", json!({"$ref": "#/components/schemas/Meta"})),
    ])
}

fn documents(_: &mut Schemas) -> Vec<Operation> {
    let document = |id, summary, kind: &str, schema: Value| {
        Operation::new(id, "Documents", summary)
            .access(Access::Open)
            .raw_answer(200, json!({"description": "The document.", "content": {kind: {"schema": schema}}}))
            .raw_answer(304, json!({"description": "The client has it already."}))
            .header(200, &["ETag"])
            .header(304, &["ETag"])
    };
    let text = || json!({"type": "string"});
    let files = json!({"type": "string", "enum": super::page::FILES});
    vec![
        document("get_openapi", "This document", "application/json", json!({"type": "object"})),
        document(
            "get_asyncapi",
            "The live events, as AsyncAPI 3",
            "application/json",
            json!({"type": "object"}),
        ),
        document("get_docs", "A page that shows both", "text/html", text()),
        document("get_docs_file", "What the page is made of", "*/*", text())
            .path("file", files, "Its name.", json!(super::page::FILES[0]))
            .refused(&["NOT_FOUND"]),
    ]
}
