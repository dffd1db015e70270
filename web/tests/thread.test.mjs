import assert from "node:assert/strict";
import { test } from "node:test";
import { Thread, withReaction } from "../app/thread.js";

const message = (seq, more = {}) => ({ id: seq * 10, seq, sender_id: 1, status: "sent", content: `message ${seq}`, ...more });

test("messages stand in the order of seq, however they come", () => {
  const thread = new Thread();
  for (const seq of [5, 3, 4, 7, 6]) thread.put(message(seq));
  assert.deepEqual(thread.messages.map(({ seq }) => seq), [3, 4, 5, 6, 7]);
  assert.deepEqual([thread.oldestSeq, thread.newestSeq], [3, 7]);
});

test("the same message again is its newer state, not another one", () => {
  const thread = new Thread();
  thread.put(message(1));
  thread.put(message(1, { content: "edited" }));
  assert.deepEqual(thread.messages.map(({ content }) => content), ["edited"]);
});

test("the status never goes backwards", () => {
  const thread = new Thread();
  thread.put(message(1));
  thread.raise([10, 999], "read", "2025-12-05T10:30:00.000Z");
  thread.raise([10], "delivered");
  thread.put(message(1, { status: "delivered" }));
  assert.equal(thread.get(10).status, "read");
  assert.equal(thread.get(10).is_read, true);
});

test("only a message beyond the next one leaves a hole", () => {
  const thread = new Thread();
  assert.equal(thread.leavesHole(40), false);
  thread.put(message(3));
  assert.deepEqual([2, 3, 4, 5].map((seq) => thread.leavesHole(seq)), [false, false, false, true]);
});

test("a deleted message leaves a tombstone, also where it was quoted", () => {
  const thread = new Thread();
  thread.put(message(1, { attachment: { id: 1 }, reactions: [{ emoji: "👍", count: 1, user_ids: [2] }] }));
  thread.put(message(2, { reply_to: { id: 10, content: "message 1" } }));
  thread.bury(10, "2025-12-05T10:30:00.000Z");
  assert.deepEqual([thread.get(10).content, thread.get(10).attachment, thread.get(10).reactions], ["", null, []]);
  assert.equal(thread.get(20).reply_to.content, "");
});

test("a reaction is added once and gone with its last person", () => {
  const one = withReaction([], "👍", 1, true);
  const two = withReaction(withReaction(one, "👍", 2, true), "👍", 2, true);
  assert.deepEqual(two, [{ emoji: "👍", count: 2, user_ids: [1, 2] }]);
  assert.deepEqual(withReaction(withReaction(two, "👍", 1, false), "👍", 2, false), []);
  assert.deepEqual(one, [{ emoji: "👍", count: 1, user_ids: [1] }]);
});
