// What can be done with a message or a conversation: the sheets behind "more" and a long press.
// An action whose call the service does not have is not offered.

import { h } from "./dom.js";

const REACTIONS = ["👍", "❤️", "😂", "😮", "🙏", "🎉"];
const LONG_PRESS_MS = 450;

/** The sheet of one message; `chat` is the screen that it is on. */
export function messageMenu(chat, message) {
  const { phone } = chat;
  const { session } = phone;
  const isOwn = message.sender_id === session.me.id;
  const mine = (emoji) => (message.reactions ?? []).some((reaction) => reaction.emoji === emoji && reaction.user_ids.includes(session.me.id));
  const react = (emoji) => (close(), session.toggleReaction(message, emoji));
  const emojiRow =
    session.can("reactions") &&
    h(
      "div",
      { class: "emoji-row", role: "group", "aria-label": "React" },
      ...REACTIONS.map((emoji) => h("button", { type: "button", "aria-label": `React with ${emoji}`, "aria-pressed": String(mine(emoji)), testid: "react", data: { emoji }, onclick: () => react(emoji) }, emoji)),
    );
  const close = phone.menu(
    "Message actions",
    [
      { icon: "reply", label: "Reply", testid: "reply", action: () => chat.composer.reply(message) },
      message.content && { icon: "copy", label: "Copy text", action: () => copy(phone, message.content) },
      isOwn && message.type === "text" && session.can("edit") && { icon: "edit", label: "Edit", testid: "edit", action: () => chat.composer.edit(message) },
      isOwn && session.can("delete") && { icon: "trash", label: "Delete for both", isDangerous: true, testid: "delete", action: () => session.remove(message) },
    ],
    emojiRow,
  );
}

/** The sheet of a message that has not been sent. */
export function unsentMenu(phone, entry) {
  const { outbox } = phone.session;
  phone.menu("Message not sent", [
    { icon: "retry", label: "Try again", testid: "retry", action: () => outbox.retry(entry) },
    { icon: "trash", label: "Discard", isDangerous: true, testid: "discard", action: () => outbox.discard(entry) },
  ]);
}

/** The sheet of one conversation; `leave` is called when it is no longer there to look at. */
export function conversationMenu(phone, conversation, leave = () => {}, extra = []) {
  const { session } = phone;
  const { is_archived, is_muted, is_blocked, other_user } = conversation;
  const first = other_user.name.split(" ")[0];
  const change = (name, said) => async () => (await session.change(conversation, name)) && phone.toast(said);
  phone.menu(`Conversation with ${other_user.name}`, [
    ...extra,
    session.can("archive") &&
      (is_archived
        ? { icon: "archive", label: "Take out of the archive", testid: "unarchive", action: change("unarchive", "Back in your chats.") }
        : { icon: "archive", label: "Archive", testid: "archive", action: async () => (await session.change(conversation, "archive")) && (leave(), phone.toast("Archived until the next message.")) }),
    session.can("mute") &&
      (is_muted
        ? { icon: "bell", label: "Unmute", testid: "unmute", action: change("unmute", "Notifications are on.") }
        : { icon: "mute", label: "Mute", testid: "mute", action: change("mute", "Notifications are off.") }),
    session.can("block") && {
      icon: "block",
      label: is_blocked ? `Unblock ${first}` : `Block ${first}`,
      isDangerous: !is_blocked,
      testid: "block",
      action: () => session.setBlocked(conversation, !is_blocked),
    },
    session.can("delete_conversation") && {
      icon: "trash",
      label: "Delete for me",
      isDangerous: true,
      testid: "delete-conversation",
      action: () => session.deleteConversation(conversation),
    },
  ]);
}

/** A long press by touch, or the context-menu key or button. */
export function onLongPress(node, action) {
  let timer = null;
  const cancel = () => clearTimeout(timer);
  node.addEventListener("contextmenu", (event) => (event.preventDefault(), cancel(), action()));
  node.addEventListener("pointerdown", ({ pointerType }) => {
    if (pointerType !== "touch") return;
    cancel();
    timer = setTimeout(action, LONG_PRESS_MS);
  });
  for (const type of ["pointerup", "pointermove", "pointercancel", "pointerleave"]) node.addEventListener(type, cancel);
}

async function copy(phone, text) {
  try {
    await navigator.clipboard.writeText(text);
    phone.toast("Copied.");
  } catch {
    phone.toast("This browser does not let the page copy.");
  }
}
