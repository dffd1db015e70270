// The demo page: two people, two phones, one service. Reads who they are, gives each a `Session`
// of their own and lays the phones out: side by side where there is room, else one at a time.
// `?phone=renter` or `?phone=owner` shows, and connects, that phone alone.
//
// Browser tests hold on to these `data-testid`s:
//   phone-renter, phone-owner (data-connection=connecting|online|waiting|paused|closed)
//   switch-renter, switch-owner, flight-renter, flight-owner, lock-renter, lock-owner
//   lock-screen (data-reachable), lock-badge, notification (data-tag, data-conversation-id, data-times), unlock
//   tab-chats, tab-explore, total-badge, banner (data-kind=away|paused|back), toast, back, sheet
//   conversation (data-conversation-id, data-product-id), badge, conversation-more, archive-row,
//   open-search, product (data-product-id), message-owner
//   chat, product-card, presence (data-status), chat-menu, search-chat, message (data-message-id,
//   data-seq, data-own, data-status=sending|failed|sent|delivered|read), bubble, tick (data-status),
//   typing, day, unread-line, edited, quote, picture, reaction (data-emoji), not-sent, jump,
//   lightbox, quick-reply, message-more, composer, send, attach, file-input
//   react (data-emoji), reply, edit, delete, retry, discard, archive, unarchive, mute, unmute,
//   block, unblock, delete-conversation, search-input, search-hit (data-message-id), wire

import { h, icon } from "./dom.js";
import { avatar } from "./parts.js";
import { Phone } from "./phone.js";
import { Session } from "./session.js";
import { Wire } from "./wire.js";

const ROLES = ["renter", "owner"];

async function readConfig() {
  const response = await fetch("/demo/config.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`the page's configuration answered ${response.status}`);
  return response.json();
}

async function start() {
  const { users, products } = await readConfig();
  const people = Object.fromEntries(users.map((user) => [user.role, user]));
  const only = ROLES.find((role) => role === new URLSearchParams(location.search).get("phone"));
  const shown = only ? [only] : ROLES;
  const phones = shown.map((role) => {
    const renewToken = async () => (await readConfig()).users.find((user) => user.role === role).token;
    const session = new Session(people[role], renewToken);
    return new Phone({ session, role, peer: people[ROLES.find((other) => other !== role)], products });
  });
  document.body.append(header(), stage(phones));
  document.body.dataset.phones = String(phones.length);
  for (const { session } of phones) {
    session.addEventListener("unread", () => showTotal(phones));
    session.start();
  }
}

function header() {
  return h(
    "header",
    { class: "masthead" },
    h("img", { src: "/demo/pictures/logo.svg", alt: "", width: 34, height: 34 }),
    h("h1", {}, "Rented Messaging"),
    h("p", {}, "Two people, two phones, one service. Write on either."),
  );
}

function stage(phones) {
  const columns = phones.map((phone) => h("div", { class: "column", data: { role: phone.role } }, caption(phone), phone.element));
  const switcher = phones.length > 1 ? phoneSwitch(phones, columns) : null;
  const wire = phones.length > 1 ? new Wire(phones.map(({ session, role }) => ({ session, role }))).element : null;
  return h("main", { class: "stage" }, switcher, columns[0], wire, columns[1]);
}

/** Who this phone belongs to, its lock and its flight mode. */
function caption({ session, role, lock }) {
  return h("div", { class: "caption" }, avatar(session.me, "m"), h("span", { class: "lines" }, h("strong", {}, session.me.name), h("span", { class: "muted" }, role === "renter" ? "wants to rent" : "owns the listings")), lock.switch(), flightSwitch(session, role));
}

function flightSwitch(session, role, suffix = "") {
  const button = h(
    "button",
    { type: "button", class: "flight", "aria-pressed": "false", "aria-label": `Flight mode of ${session.me.name}'s phone`, title: "Flight mode", testid: `flight-${role}${suffix}`, onclick: () => session.setGrounded(!session.api.grounded) },
    icon("plane"),
    h("span", { class: "knob", "aria-hidden": "true" }),
  );
  session.addEventListener("connection", () => button.setAttribute("aria-pressed", String(session.api.grounded)));
  return button;
}

/** On a narrow screen: which of the two phones is shown. */
function phoneSwitch(phones, columns) {
  const choose = (role) => {
    for (const column of columns) column.classList.toggle("chosen", column.dataset.role === role);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.role === role));
  };
  const buttons = phones.map(({ session, role }) => {
    const badge = h("span", { class: "badge", hidden: true });
    session.addEventListener("unread", () => {
      badge.hidden = session.inbox.unread === 0;
      badge.textContent = String(session.inbox.unread);
    });
    return h("button", { type: "button", data: { role }, testid: `switch-${role}`, onclick: () => choose(role) }, avatar(session.me, "xs"), h("span", {}, session.me.name.split(" ")[0]), badge);
  });
  choose("renter");
  const flights = phones.map(({ session, role, lock }) => h("span", { class: "switch-flight", data: { role } }, lock.switch("-narrow"), flightSwitch(session, role, "-narrow")));
  return h("nav", { class: "switch", "aria-label": "Which phone to show" }, ...buttons, ...flights);
}

function showTotal(phones) {
  const total = phones.reduce((sum, { session }) => sum + session.inbox.unread, 0);
  document.title = total > 0 ? `(${total}) Rented Messaging` : "Rented Messaging";
}

start().catch((error) => {
  document.body.append(h("p", { class: "notice", role: "alert" }, `The demo could not start: ${error.message}.`));
});
