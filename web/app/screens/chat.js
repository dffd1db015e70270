// One conversation: its messages, the product they are about and who is there. It follows the
// newest message unless one has scrolled up, loads older ones on the way up and marks as read what
// comes into view.

import { eachFrame, fill, h, icon, iconButton, reconcile } from "../dom.js";
import { dayLabel, presenceLine, sameDay } from "../format.js";
import { conversationMenu } from "../actions.js";
import { dayRow, entryRow, entrySignature, messageRow, messageSignature, unreadRow } from "../bubble.js";
import { Composer } from "../composer.js";
import { avatar, perDay, productPicture, topBar } from "../parts.js";

// Messages of one person within this time stand together.
const GROUP_MS = 3 * 60_000;
const NEAR_BOTTOM_PX = 80;
const NEAR_TOP_PX = 240;
const QUICK_REPLIES = {
  renter: ["Hi! Is it still available?", "Could I pick it up on Saturday?", "Is the price negotiable?"],
  owner: ["Yes, it is!", "Saturday works for me.", "When do you need it?"],
};

export class ChatScreen {
  #listeners = [];
  #followsNewest = true;
  #firstUnread = null;
  #missed = 0;
  #hasAppeared = false;
  #isGone = false;
  #openedId = null;

  /** `target` is {conversationId | null, otherUser, product}; `jumpTo` a message to show. */
  constructor(phone, target, { jumpTo } = {}) {
    this.phone = phone;
    this.target = target;
    this.messages = h("ol", { class: "messages", "aria-label": `Messages with ${target.otherUser.name}`, onkeydown: (event) => this.#walk(event) });
    this.typing = h("div", { class: "typing", testid: "typing", hidden: true }, h("span", { class: "typing-dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span", { class: "sr" }, `${target.otherUser.name} is typing`));
    this.quick = h("div", { class: "quick", hidden: true });
    this.spinner = h("div", { class: "older", hidden: true, "aria-hidden": "true" }, h("i"));
    this.scroller = h("div", { class: "scroller chat-scroller", tabindex: "-1", onscroll: () => this.#scrolled() }, this.spinner, h("div", { class: "push-down" }), h("div", { role: "log", "aria-label": "New messages" }, this.messages), this.typing, this.quick);
    this.jump = h("button", { type: "button", class: "jump", hidden: true, testid: "jump", onclick: () => this.#toNewest(true) }, icon("down"), h("span"));
    this.person = h("span", { class: "person" });
    this.card = h("div", { class: "product-card", testid: "product-card" });
    this.composer = new Composer(this);
    this.blocked = h(
      "div",
      { class: "blocked muted", hidden: true },
      h("span", {}, `You have blocked ${target.otherUser.name}.`),
      h("button", { type: "button", testid: "unblock", onclick: () => phone.session.setBlocked(this.conversation, false) }, "Unblock"),
    );
    this.element = h(
      "div",
      { class: "view chat-view", testid: "chat", ondragover: (event) => event.preventDefault(), ondrop: (event) => (event.preventDefault(), this.composer.takeFiles(event.dataTransfer?.files)) },
      topBar(phone, this.person, iconButton("more", "Conversation menu", () => this.#menu(), { testid: "chat-menu" })),
      this.card,
      this.scroller,
      this.jump,
      this.blocked,
      this.composer.element,
    );
    this.seen = new IntersectionObserver((entries) => this.#see(entries), { root: this.scroller, threshold: 0.6 });
    this.#listen();
    this.#refreshHead();
    this.#load(jumpTo);
  }

  get conversation() {
    return this.phone.session.inbox.get(this.target.conversationId);
  }

  shown() {
    // On a touch screen the keyboard would jump up unasked.
    if (matchMedia("(hover: hover)").matches) this.composer.focus();
  }

  destroy() {
    this.#isGone = true;
    this.composer.leave();
    this.seen.disconnect();
    for (const stop of this.#listeners) stop();
    if (this.#openedId !== null) this.phone.session.close(this.#openedId);
  }

  send(draft) {
    this.#firstUnread = null;
    this.phone.session.send(this.target, draft);
    this.#toNewest();
  }

  /** Brings a message into view and makes it stand out for a moment. */
  async jumpTo(messageId) {
    if (!(await this.phone.session.loadUntil(this.target.conversationId, messageId))) {
      this.phone.toast("That message is no longer here.");
      return;
    }
    this.#followsNewest = false;
    this.#render();
    const row = this.messages.querySelector(`[data-message-id="${CSS.escape(messageId)}"]`);
    row?.scrollIntoView({ block: "center" });
    row?.classList.add("found");
    setTimeout(() => row?.classList.remove("found"), 1_800);
  }

  #listen() {
    const { session } = this.phone;
    const on = (source, type, action) => {
      source.addEventListener(type, action);
      this.#listeners.push(() => source.removeEventListener(type, action));
    };
    // A burst of messages is drawn once.
    const render = eachFrame(() => this.#isGone || this.#render());
    on(session, "thread", ({ detail }) => {
      const isOurs = detail.target === this.target || (this.target.conversationId && detail.conversationId === this.target.conversationId);
      if (!isOurs) return;
      if (detail.target === this.target && this.target.conversationId) this.#adopted();
      render();
    });
    on(session, "arrived", ({ detail }) => detail.message.conversation_id === this.target.conversationId && this.#arrived(detail.message));
    on(session, "typing", ({ detail }) => detail.conversationId === this.target.conversationId && this.#refreshTyping());
    const refreshHead = eachFrame(() => this.#refreshHead());
    for (const type of ["presence", "list", "connection", "features"]) on(session, type, refreshHead);
    // What came while the tab was hidden is seen when it is looked at.
    on(document, "visibilitychange", () => document.visibilityState === "visible" && this.#observe());
    const sizes = new ResizeObserver(() => this.#followsNewest && this.#toNewest());
    sizes.observe(this.scroller);
    sizes.observe(this.messages);
    this.#listeners.push(() => sizes.disconnect());
    const minute = setInterval(() => this.#refreshHead(), 30_000);
    this.#listeners.push(() => clearInterval(minute));
  }

  async #load(jumpTo) {
    const { session } = this.phone;
    const { conversationId } = this.target;
    this.#openedId = conversationId;
    if (conversationId) {
      await session.open(conversationId);
      const unread = this.conversation?.unread_count ?? 0;
      if (unread > 0) {
        const foreign = session.thread(conversationId).messages.filter(({ sender_id, is_read }) => sender_id !== session.me.id && !is_read);
        // With more unread than were loaded, the line would stand in the wrong place.
        this.#firstUnread = unread <= foreign.length ? foreign.at(-unread).id : null;
      }
    }
    this.#render();
    if (jumpTo) await this.jumpTo(jumpTo);
    else this.#toFirstUnread();
  }

  /** The draft has become a conversation. */
  #adopted() {
    if (this.#openedId === this.target.conversationId) return;
    this.#openedId = this.target.conversationId;
    this.phone.session.open(this.#openedId);
  }

  #render() {
    const { session } = this.phone;
    const thread = this.target.conversationId ? session.thread(this.target.conversationId) : null;
    const stored = thread?.messages ?? [];
    const entries = session.outbox.of(this.target);
    const { scrollHeight, scrollTop } = this.scroller;
    const oldest = this.messages.querySelector("[data-message-id]")?.dataset.messageId;
    const added = reconcile(this.messages, this.#items(stored, entries));
    // Rows that were there before the screen appeared do not each make an entrance.
    if (this.#hasAppeared) for (const row of added) if (!oldest || row.dataset.seq === undefined || Number(row.dataset.seq) > this.newestShown) row.classList.add("entering");
    this.newestShown = thread?.newestSeq ?? 0;
    this.#hasAppeared = thread === null || thread.isLoaded;
    this.spinner.hidden = !thread?.isLoadingOlder;
    if (this.#followsNewest) this.#toNewest();
    else if (oldest && this.messages.querySelector("[data-message-id]")?.dataset.messageId !== oldest) {
      // Older rows came in above: what one was looking at stays where it is.
      this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
    }
    this.#refreshQuick(stored, entries);
    this.#refreshTyping();
    this.#observe();
    this.#roveTo(this.messages.lastElementChild);
    if (thread?.isLoaded && thread.hasOlder && this.scroller.scrollHeight <= this.scroller.clientHeight) this.#loadOlder();
  }

  #items(stored, entries) {
    const all = [...stored.map((message) => ({ message })), ...entries.map((entry) => ({ entry }))];
    const items = [];
    all.forEach(({ message, entry }, index) => {
      const current = message ?? entry;
      const [before, after] = [all[index - 1], all[index + 1]].map((neighbour) => neighbour?.message ?? neighbour?.entry);
      if (!before || !sameDay(before.created_at, current.created_at)) {
        const label = dayLabel(current.created_at);
        items.push({ key: `day-${new Date(current.created_at).toDateString()}`, signature: label, build: () => dayRow(label) });
      }
      if (message && message.id === this.#firstUnread) items.push({ key: "unread", signature: "", build: unreadRow });
      const place = { isFirst: !this.#together(before, current) || message?.id === this.#firstUnread, isLast: !this.#together(current, after) };
      if (entry) {
        items.push({ key: `c-${entry.client_message_id}`, signature: entrySignature(entry, place), build: () => entryRow(this, entry, place) });
      } else {
        // The same key as the entry it was, so that it stays in its place on the screen.
        const key = message.sender_id === this.phone.session.me.id && message.client_message_id ? `c-${message.client_message_id}` : `m-${message.id}`;
        items.push({ key, signature: messageSignature(message, place), build: () => messageRow(this, message, place) });
      }
    });
    return items;
  }

  #together(before, after) {
    if (!before || !after) return false;
    const me = this.phone.session.me.id;
    const isSameSender = (before.sender_id ?? me) === (after.sender_id ?? me);
    return isSameSender && new Date(after.created_at) - new Date(before.created_at) < GROUP_MS && sameDay(before.created_at, after.created_at);
  }

  #refreshHead() {
    const { session } = this.phone;
    const other = this.conversation?.other_user ?? this.target.otherUser;
    const product = this.conversation?.product ?? this.target.product;
    // Without a connection nobody knows whether the other is there.
    const { isOnline } = session.live;
    const line = isOnline ? presenceLine(other.status, other.last_seen) : "waiting for a connection…";
    const status = isOnline ? (other.status ?? "offline") : "offline";
    const signature = JSON.stringify([other, product, line, status]);
    if (signature !== this.headSignature) {
      this.headSignature = signature;
      fill(this.person, avatar(other, "s", status), h("span", { class: "lines" }, h("strong", {}, other.name), h("span", { class: `presence presence-${status}`, testid: "presence", data: { status } }, line)));
      this.card.hidden = !product;
      if (product) fill(this.card, productPicture(product, "card-picture"), h("span", { class: "lines" }, h("strong", {}, product.title), perDay(product)));
    }
    const isBlocked = Boolean(this.conversation?.is_blocked);
    this.blocked.hidden = !isBlocked;
    this.composer.element.hidden = isBlocked;
    this.composer.refreshFeatures();
  }

  #refreshTyping() {
    const isTyping = this.target.conversationId !== null && this.phone.session.inbox.isTyping(this.target.conversationId);
    if (this.typing.hidden !== isTyping) return;
    this.typing.hidden = !isTyping;
    if (this.#followsNewest) this.#toNewest();
  }

  /** A few words to begin with, as long as one has not said any. */
  #refreshQuick(stored, entries) {
    const me = this.phone.session.me.id;
    const hasSpoken = entries.length > 0 || stored.some(({ sender_id }) => sender_id === me);
    const isReady = this.target.conversationId === null || this.phone.session.thread(this.target.conversationId).isLoaded;
    this.quick.hidden = hasSpoken || !isReady || Boolean(this.conversation?.is_blocked);
    if (this.quick.hidden || this.quick.childElementCount > 0) return;
    fill(this.quick, ...QUICK_REPLIES[this.phone.role].map((words) => h("button", { type: "button", testid: "quick-reply", onclick: () => (this.send({ content: words }), this.composer.focus()) }, words)));
  }

  #menu() {
    const { phone, conversation } = this;
    if (!conversation) {
      phone.toast("Say something first.");
      return;
    }
    const search = phone.session.can("search") && { icon: "search", label: "Search in this chat", testid: "search-chat", action: () => phone.openSearch(conversation) };
    conversationMenu(phone, conversation, () => phone.back(), [search]);
  }

  // ---- scrolling and reading ----

  #arrived(message) {
    if (this.#followsNewest || message.sender_id === this.phone.session.me.id) return;
    this.#missed += 1;
    this.#refreshJump();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.#followsNewest = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    if (this.#followsNewest) this.#missed = 0;
    this.#refreshJump();
    if (scrollTop < NEAR_TOP_PX) this.#loadOlder();
  }

  #refreshJump() {
    this.jump.hidden = this.#followsNewest;
    this.jump.lastElementChild.textContent = this.#missed > 0 ? String(this.#missed) : "";
    this.jump.setAttribute("aria-label", this.#missed > 0 ? `${this.#missed} new, go to the newest` : "Go to the newest message");
  }

  async #loadOlder() {
    const { conversationId } = this.target;
    if (!conversationId) return;
    const thread = this.phone.session.thread(conversationId);
    if (!thread.isLoaded || !thread.hasOlder || thread.isLoadingOlder) return;
    this.spinner.hidden = false;
    await this.phone.session.loadOlder(conversationId);
  }

  #toNewest(isSmooth = false) {
    this.#followsNewest = true;
    this.#missed = 0;
    const behavior = isSmooth && !matchMedia("(prefers-reduced-motion: reduce)").matches ? "smooth" : "instant";
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior });
    this.#refreshJump();
  }

  #toFirstUnread() {
    this.#toNewest();
    const line = this.messages.querySelector(".new-line");
    if (line && line.offsetTop < this.scroller.scrollTop) {
      this.#followsNewest = false;
      line.scrollIntoView({ block: "start" });
    }
  }

  #observe() {
    this.seen.disconnect();
    for (const row of this.messages.querySelectorAll("[data-unread]")) this.seen.observe(row);
  }

  #see(entries) {
    if (document.visibilityState === "hidden") return;
    const ids = entries.filter(({ isIntersecting }) => isIntersecting).map(({ target }) => Number(target.dataset.messageId));
    if (ids.length > 0) this.phone.session.markRead(this.target.conversationId, Math.max(...ids));
  }

  // ---- by keyboard: one message is in the tab order, arrows walk to the others ----

  #walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !event.target.classList.contains("bubble")) return;
    const bubbles = [...this.messages.querySelectorAll(".bubble")];
    const next = bubbles[bubbles.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    this.#roveTo(next.closest("li"));
    next.focus();
  }

  #roveTo(row) {
    if (this.messages.contains(document.activeElement) && row === this.messages.lastElementChild) return;
    this.messages.querySelector('.bubble[tabindex="0"]')?.setAttribute("tabindex", "-1");
    row?.querySelector(".bubble")?.setAttribute("tabindex", "0");
  }
}
