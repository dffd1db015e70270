// What goes over the wire between the two phones, as it happens: event names, who they are for and
// how long a word took from one screen to the other. It only watches; nothing depends on it.

import { h, reconcile } from "./dom.js";

const KEPT = 40;

export class Wire {
  #lines = [];
  #next = 0;
  #sentAt = new Map();

  /** `ends` are the two phones' {session, role}. */
  constructor(ends) {
    this.list = h("ol", { class: "wire-lines" });
    this.latency = h("b", {}, "Live");
    this.latencyNote = h("span", { class: "muted" }, "what the two phones hear and say");
    this.element = h(
      "aside",
      { class: "wire", testid: "wire", "aria-label": "Events on the wire" },
      h("div", { class: "wire-head" }, this.latency, this.latencyNote),
      this.list,
    );
    for (const { session, role } of ends) {
      session.live.addEventListener("wire", ({ detail }) => this.#note(session, role, detail));
    }
  }

  #note(session, role, { direction, event, data }) {
    if (event === "presence_update" && direction === "out") return;
    const id = data?.client_message_id ?? data?.message?.client_message_id;
    if (event === "send_message" && id) this.#remember(id);
    if (event === "message_received" && data.message.sender_id !== session.me.id) this.#measure(id);
    this.#lines.unshift({ key: String((this.#next += 1)), role, direction, event, hint: hint(event, data) });
    this.#lines.length = Math.min(this.#lines.length, KEPT);
    reconcile(this.list, this.#lines.map((line) => ({ key: line.key, signature: "", build: () => row(line) })));
  }

  #remember(id) {
    this.#sentAt.set(id, performance.now());
    if (this.#sentAt.size > 200) this.#sentAt.delete(this.#sentAt.keys().next().value);
  }

  #measure(id) {
    const sentAt = this.#sentAt.get(id);
    if (sentAt === undefined) return;
    this.#sentAt.delete(id);
    this.latencyNote.textContent = "from phone to phone, stored on the way";
    this.latency.textContent = `${(performance.now() - sentAt).toFixed(1)} ms`;
  }
}

function row({ role, direction, event, hint: text }) {
  return h("li", { class: `wire-line ${direction}`, data: { role } }, h("span", { class: "arrow", "aria-hidden": "true" }), h("code", {}, event), h("span", { class: "hint" }, text));
}

/** The one thing worth knowing about an event; never what somebody wrote. */
function hint(event, data) {
  if (data?.message?.seq) return `seq ${data.message.seq}`;
  if (event === "unread_count") return String(data.unread_count);
  if (event === "user_presence") return data.status;
  if (event === "typing" || event === "user_typing") return data.is_typing ? "begins" : "ends";
  if (event === "message_reaction") return data.emoji;
  if (Array.isArray(data?.message_ids)) return `${data.message_ids.length} ${data.message_ids.length === 1 ? "message" : "messages"}`;
  return "";
}
