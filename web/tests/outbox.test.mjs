import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError } from "../app/api.js";
import { Outbox } from "../app/outbox.js";

const refusal = (code, retryable) => new ApiError(400, { error: { code, message: code, details: { retryable } } });
const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

/** An outbox whose line answers each request with the next of `answers`: "stored" or an error. */
function outboxWith(...answers) {
  const sent = [];
  const stored = [];
  const answer = async (way, body) => {
    sent.push({ way, ...body });
    const next = answers.shift() ?? "stored";
    if (next !== "stored") throw next;
    return { id: sent.length, conversation_id: 7, client_message_id: body.client_message_id, content: body.content };
  };
  const session = {
    live: { isOnline: true, request: (_, body) => answer("live", body) },
    api: { sendMessage: (body) => answer("rest", body) },
    store: (message) => (stored.push(message.content), outbox.confirm(message)),
    adopt: (target, id) => (target.conversationId = id),
    lacks: () => {},
    renew: async () => {},
  };
  const outbox = new Outbox(session, () => {});
  return { outbox, session, sent, stored };
}

const target = () => ({ conversationId: 7, otherUser: { id: 2 }, product: { id: 5 } });

test("messages of one conversation go out in the order they were written", async () => {
  const { outbox, stored } = outboxWith();
  const to = target();
  for (const content of ["one", "two", "three"]) outbox.add(to, { content });
  await settled();
  assert.deepEqual(stored, ["one", "two", "three"]);
  assert.equal(outbox.entries.length, 0);
});

test("a send whose ack is lost is asked again by REST under the same id", async () => {
  const { outbox, sent, stored } = outboxWith(new ApiError(0));
  outbox.add(target(), { content: "hello" });
  await settled();
  assert.deepEqual(sent.map(({ way }) => way), ["live", "rest"]);
  assert.equal(sent[0].client_message_id, sent[1].client_message_id);
  assert.deepEqual(stored, ["hello"]);
});

test("a refusal that would repeat itself is shown and waits for the person", async () => {
  const { outbox, sent } = outboxWith(refusal("BLOCKED", false));
  const entry = outbox.add(target(), { content: "hello" });
  await settled();
  assert.deepEqual([entry.status, entry.error, sent.length], ["failed", "BLOCKED", 1]);
  outbox.flush();
  await settled();
  assert.equal(sent.length, 1);
  outbox.retry(entry);
  await settled();
  assert.equal(sent[1].client_message_id, sent[0].client_message_id);
  assert.equal(outbox.entries.length, 0);
});

test("without a line everything waits, and goes out when it is back", async () => {
  const { outbox, session, sent, stored } = outboxWith();
  session.live.isOnline = false;
  const entry = outbox.add(target(), { content: "hello" });
  await settled();
  assert.deepEqual([sent.length, entry.status], [0, "sending"]);
  session.live.isOnline = true;
  outbox.flush();
  await settled();
  assert.deepEqual(stored, ["hello"]);
});

test("the first message of a draft names the person and the product, the second the conversation", async () => {
  const { outbox, sent } = outboxWith();
  const draft = { conversationId: null, otherUser: { id: 2 }, product: { id: 5 } };
  outbox.add(draft, { content: "one" });
  outbox.add(draft, { content: "two" });
  await settled();
  assert.deepEqual([sent[0].receiver_id, sent[0].product_id, sent[0].conversation_id], [2, 5, undefined]);
  assert.deepEqual([sent[1].receiver_id, sent[1].conversation_id], [undefined, 7]);
});

test("what waits for a conversation that is gone begins a new one", async () => {
  const { outbox, session, sent } = outboxWith();
  session.live.isOnline = false;
  const [gone, kept] = [target(), { ...target(), conversationId: 8 }];
  outbox.add(gone, { content: "one" });
  outbox.add(kept, { content: "two" });
  // The same number, but of a conversation about something else.
  const inbox = new Map([[7, { other_user: { id: 2 }, product: { id: 1 } }], [8, { other_user: { id: 2 }, product: { id: 5 } }]]);
  outbox.reconsider(inbox);
  session.live.isOnline = true;
  outbox.flush();
  await settled();
  assert.deepEqual(sent.map(({ conversation_id, receiver_id }) => [conversation_id, receiver_id]), [[undefined, 2], [8, undefined]]);
});

test("a discarded message is not sent", async () => {
  const { outbox, session, sent } = outboxWith();
  session.live.isOnline = false;
  outbox.discard(outbox.add(target(), { content: "hello" }));
  session.live.isOnline = true;
  outbox.flush();
  await settled();
  assert.equal(sent.length, 0);
});
