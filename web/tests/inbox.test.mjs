import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox } from "../app/inbox.js";

const conversation = (id, more = {}) => ({
  id,
  other_user: { id: 2, name: "Jonas", status: "offline", last_seen: null },
  product: { id: 5 },
  last_message: null,
  last_message_at: `2025-12-05T10:0${id}:00.000Z`,
  unread_count: 0,
  is_archived: false,
  ...more,
});

test("the list has the newest activity first and the archive apart", () => {
  const inbox = new Inbox();
  inbox.putAll([conversation(1), conversation(3), conversation(2, { is_archived: true })], performance.now());
  assert.deepEqual(inbox.list(false).map(({ id }) => id), [3, 1]);
  assert.deepEqual(inbox.list(true).map(({ id }) => id), [2]);
});

test("a slow answer does not overwrite what an event has said since", () => {
  const inbox = new Inbox();
  const asked_ms = performance.now() - 1;
  inbox.put(conversation(1, { unread_count: 4 }));
  inbox.setUnread(4);
  inbox.setPresence({ user_id: 2, status: "online", last_seen: null });
  inbox.putAll([conversation(1), conversation(2)], asked_ms);
  inbox.answerUnread(0, asked_ms);
  assert.equal(inbox.get(1).unread_count, 4);
  assert.equal(inbox.unread, 4);
  assert.equal(inbox.get(2).other_user.status, "online");
});

test("a fast answer replaces what was known", () => {
  const inbox = new Inbox();
  inbox.put(conversation(1, { unread_count: 4 }));
  inbox.setUnread(4);
  const asked_ms = performance.now() + 1;
  inbox.putAll([conversation(1)], asked_ms);
  inbox.answerUnread(0, asked_ms);
  assert.deepEqual([inbox.get(1).unread_count, inbox.unread], [0, 0]);
});

test("an older message does not become the last one", () => {
  const inbox = new Inbox();
  inbox.put(conversation(1, { last_message: { id: 9, content: "newest" } }));
  const note = (id) => inbox.note({ id, conversation_id: 1, content: `message ${id}`, created_at: "2025-12-05T11:00:00.000Z" });
  assert.equal(note(8), true);
  assert.equal(inbox.get(1).last_message.content, "newest");
  note(10);
  assert.equal(inbox.get(1).last_message.content, "message 10");
  assert.equal(inbox.get(1).last_message_at, "2025-12-05T11:00:00.000Z");
});

test("a message of an unknown conversation is said to be so", () => {
  assert.equal(new Inbox().note({ id: 1, conversation_id: 7 }), false);
});

test("typing changes once, however often it is repeated", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const inbox = new Inbox();
  let ends = 0;
  const ended = () => (ends += 1);
  assert.equal(inbox.setTyping(1, true, ended), true);
  assert.equal(inbox.setTyping(1, true, ended), false);
  t.mock.timers.tick(7_000);
  assert.deepEqual([inbox.isTyping(1), ends], [false, 1]);
});
