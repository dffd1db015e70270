import assert from "node:assert/strict";
import { test } from "node:test";
import { count, dayLabel, isFewEmoji, linked, presenceLine, preview, price } from "../app/format.js";

const now = new Date(2025, 11, 5, 12, 0);
const at = (day, hour = 9, minute = 0) => new Date(2025, 11, day, hour, minute).toISOString();

test("days are named as people name them", () => {
  assert.equal(dayLabel(at(5), now), "Today");
  assert.equal(dayLabel(at(4, 23), now), "Yesterday");
  assert.equal(dayLabel(at(2), now), new Intl.DateTimeFormat(undefined, { weekday: "long" }).format(new Date(at(2))));
  assert.match(dayLabel(new Date(2024, 0, 9).toISOString(), now), /2024/);
});

test("presence says online, or how long ago", () => {
  assert.equal(presenceLine("online", null, now), "online");
  assert.equal(presenceLine("offline", at(5, 11, 59), now), "last seen 1 min ago");
  assert.match(presenceLine("offline", at(4), now), /^last seen yesterday at /);
  assert.equal(presenceLine("offline", null, now), "");
});

test("prices drop cents that are nought", () => {
  assert.deepEqual([price(28), price(12.5), price(null)], ["€28", "€12.50", ""]);
});

test("a preview is one line, whatever the message is", () => {
  assert.equal(preview({ content: "two\n lines", type: "text" }), "two lines");
  assert.equal(preview({ content: "", type: "image" }), "📷 Picture");
  assert.equal(preview({ content: "", type: "image", deleted_at: at(5) }), "Message deleted");
  assert.equal(preview(null), "");
});

test("up to three emoji and nothing else are shown large", () => {
  for (const text of ["👍", "👍🎉❤️", "👩‍👩‍👧‍👦", "👍🏽 🎉"]) assert.equal(isFewEmoji(text), true, text);
  for (const text of ["", "👍 ok", "👍👍👍👍", "12", "#"]) assert.equal(isFewEmoji(text), false, text);
});

test("web addresses are found, without the punctuation after them", () => {
  assert.deepEqual(linked("see (https://example.test/a?b=1). Ok"), [
    { text: "see (" },
    { text: "https://example.test/a?b=1", href: "https://example.test/a?b=1" },
    { text: "). Ok" },
  ]);
  for (const text of ["javascript:alert(1)", "no address", "data:text/html,x"]) assert.deepEqual(linked(text), [{ text }]);
  assert.deepEqual(linked(""), []);
});

test("large counts are cut", () => {
  assert.deepEqual([count(9), count(99), count(100)], ["9", "99", "99+"]);
});
