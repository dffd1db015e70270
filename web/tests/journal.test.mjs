import assert from "node:assert/strict";
import { test } from "node:test";
import { Journal } from "../app/journal.js";

/** A journal over a log of `length` entries, and what it has applied. */
function journalOf(length) {
  const applied = [];
  const reads = [];
  let losses = 0;
  const entry = (seq) => ({ event: "message_received", event_seq: seq, data: { event_seq: seq } });
  const read = async (since) => {
    reads.push(since);
    return { events: Array.from({ length: Math.max(0, Math.min(2, length - since)) }, (_, index) => entry(since + index + 1)) };
  };
  const journal = new Journal(read, (_, data) => applied.push(data.event_seq ?? "live"), () => (losses += 1));
  return { journal, applied, reads, losses: () => losses, hear: (seq) => journal.follow("message_received", entry(seq).data) };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

test("entries are applied once, in order", () => {
  const { journal, applied, hear } = journalOf(9);
  journal.startAt(2);
  for (const seq of [1, 2, 3, 3, 4]) hear(seq);
  assert.deepEqual(applied, [3, 4]);
});

test("a hole is filled from the log before going on", async () => {
  const { journal, applied, hear } = journalOf(7);
  journal.startAt(0);
  hear(1);
  hear(6);
  hear(7);
  await settled();
  assert.deepEqual(applied, [1, 2, 3, 4, 5, 6, 7]);
  assert.equal(journal.seq, 7);
});

test("a log that does not reach the live stream means starting over", async () => {
  const { journal, losses, hear } = journalOf(3);
  journal.startAt(3);
  hear(9);
  await settled();
  assert.equal(losses(), 1);
});

test("events without a place in the log pass straight through", () => {
  const { journal, applied } = journalOf(0);
  journal.startAt(5);
  journal.follow("user_typing", {});
  assert.deepEqual(applied, ["live"]);
  assert.equal(journal.seq, 5);
});

test("where there is no log everything passes", () => {
  const { applied, hear } = journalOf(0);
  hear(4);
  hear(2);
  assert.deepEqual(applied, [4, 2]);
});
