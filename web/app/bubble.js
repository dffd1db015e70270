// How one message looks: its bubble, quote, picture, time, ticks and reactions.
// Rows are built from data alone and replaced when that changes; see `reconcile`.

import { h, icon, iconButton, safeUrl } from "./dom.js";
import { clockTime, isFewEmoji, linked, preview } from "./format.js";
import { messageMenu, onLongPress, unsentMenu } from "./actions.js";
import { tick } from "./parts.js";

/** What the row of a stored message depends on. */
export function messageSignature(message, place) {
  const { content, status, edited_at, deleted_at, reactions, reply_to, attachment, file_url } = message;
  return JSON.stringify([content, status, edited_at, deleted_at, reactions, reply_to?.content, attachment?.id, file_url, place]);
}

/** The row of a stored message; `place` is {isFirst, isLast} of its group. */
export function messageRow(chat, message, place) {
  const { session } = chat.phone;
  const isOwn = message.sender_id === session.me.id;
  const open = () => message.deleted_at || messageMenu(chat, message);
  const bubble = h(
    "div",
    { class: bubbleClass(message), tabindex: "-1", testid: "bubble", onkeydown: (event) => ["Enter", " "].includes(event.key) && event.target === bubble && (event.preventDefault(), open()) },
    message.reply_to && quote(chat, message.reply_to),
    picture(chat, message),
    text(message, [
      message.edited_at && !message.deleted_at && h("span", { class: "edited", testid: "edited" }, "edited"),
      h("time", { datetime: message.created_at }, clockTime(message.created_at)),
      isOwn && !message.deleted_at && tick(message.status),
    ]),
  );
  const row = h(
    "li",
    {
      class: rowClass(isOwn, place),
      testid: "message",
      data: { messageId: message.id, seq: message.seq, own: isOwn, status: isOwn ? message.status : undefined, unread: !isOwn && !message.is_read ? "true" : undefined },
    },
    // By keyboard the bubble itself opens the same menu, so the button is not one more stop.
    h("div", { class: "bubble-line" }, bubble, !message.deleted_at && iconButton("more", "Message actions", open, { class: "bubble-more", testid: "message-more", tabindex: "-1" })),
    reactions(session, message),
  );
  if (!message.deleted_at) onLongPress(bubble, open);
  return row;
}

/** What the row of an unconfirmed message depends on. */
export function entrySignature(entry, place) {
  return JSON.stringify([entry.status, entry.error, place]);
}

/** The row of a message that is not confirmed yet. */
export function entryRow(chat, entry, place) {
  const isFailed = entry.status === "failed";
  return h(
    "li",
    { class: `${rowClass(true, place)} unsent ${isFailed ? "failed" : ""}`, testid: "message", data: { own: true, status: entry.status } },
    h(
      "div",
      { class: "bubble-line" },
      h(
        "div",
        { class: bubbleClass(entry), tabindex: "-1", testid: "bubble" },
        entry.replyTo && quote(chat, entry.replyTo),
        entry.previewUrl && h("span", { class: "picture uploading" }, h("img", { src: entry.previewUrl, alt: "" })),
        text(entry, [h("time", {}, clockTime(entry.created_at)), tick(entry.status)]),
      ),
    ),
    isFailed && h("button", { type: "button", class: "not-sent", testid: "not-sent", onclick: () => unsentMenu(chat.phone, entry) }, icon("alert"), h("span", {}, `Not sent. ${entry.error} Tap to try again.`)),
  );
}

/** The line between two days. */
export function dayRow(label) {
  return h("li", { class: "day", testid: "day" }, h("span", {}, label));
}

/** The line above the first message that had not been seen. */
export function unreadRow() {
  return h("li", { class: "new-line", testid: "unread-line" }, h("span", {}, "New"));
}

function rowClass(isOwn, { isFirst, isLast }) {
  return `row ${isOwn ? "own" : "foreign"} ${isFirst ? "first" : ""} ${isLast ? "last" : ""}`;
}

function bubbleClass({ content, deleted_at, attachment, file_url, previewUrl }) {
  if (deleted_at) return "bubble tombstone";
  if (attachment || file_url || previewUrl) return "bubble has-picture";
  return isFewEmoji(content) ? "bubble large-emoji" : "bubble";
}

function text(message, meta) {
  const content = message.deleted_at ? "Message deleted" : message.content;
  return h("div", { class: `text ${content ? "" : "only-meta"}` }, h("span", { class: "words", dir: "auto" }, ...words(content)), h("span", { class: "meta" }, ...meta));
}

function words(content) {
  return linked(content).map(({ text: part, href }) => (href ? h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, part) : part));
}

function quote(chat, original) {
  const { session } = chat.phone;
  const name = original.sender_id === session.me.id ? "You" : chat.target.otherUser.name;
  return h(
    "button",
    { type: "button", class: `quote ${original.sender_id === session.me.id ? "quote-own" : ""}`, testid: "quote", onclick: () => chat.jumpTo(original.id) },
    h("strong", {}, name),
    h("span", {}, preview(original)),
  );
}

function picture(chat, { attachment, file_url, type, deleted_at }) {
  if (deleted_at) return null;
  const full = safeUrl(attachment?.url ?? file_url);
  if (!full) return null;
  const isImage = attachment ? attachment.mime_type?.startsWith("image/") : type === "image";
  if (!isImage) return h("a", { class: "file", href: full, target: "_blank", rel: "noopener noreferrer" }, icon("file"), h("span", {}, attachment?.name ?? "File"));
  const alt = attachment?.name ?? "Picture";
  return h(
    "button",
    { type: "button", class: "picture", testid: "picture", "aria-label": `Open picture ${alt}`, onclick: () => chat.phone.lightbox(full, alt) },
    // Width and height keep the place free while it loads.
    h("img", { src: safeUrl(attachment?.thumbnail_url) ?? full, alt, width: attachment?.width, height: attachment?.height }),
  );
}

function reactions(session, message) {
  if (!message.reactions?.length) return null;
  return h(
    "div",
    { class: "reactions", role: "group", "aria-label": "Reactions" },
    ...message.reactions.map(({ emoji, count, user_ids }) =>
      h(
        "button",
        { type: "button", class: "reaction", testid: "reaction", data: { emoji }, "aria-pressed": String(user_ids.includes(session.me.id)), "aria-label": `${emoji} ${count}`, onclick: () => session.toggleReaction(message, emoji) },
        h("span", {}, emoji),
        count > 1 && h("b", {}, String(count)),
      ),
    ),
  );
}
