// One signed-in person's whole state: conversations, messages, badges, presence, kept up to date
// by the live connection and complete after every absence. It knows nothing of the page: screens
// listen to its events and call its methods. Wire: contract sections 2 and 4.

import { Api } from "./api.js";
import { Inbox } from "./inbox.js";
import { Journal } from "./journal.js";
import { Live } from "./live.js";
import { Outbox } from "./outbox.js";
import { Thread, withReaction } from "./thread.js";

const PAGE = 40;

/**
 * Events: `list`, `unread`, `connection`, `features`, `thread` {target?, conversationId?},
 * `arrived` {message}, `typing`, `presence` and `gone` {conversationId}, `notice` {text}.
 */
export class Session extends EventTarget {
  isReady = false;
  #isLocked = false;
  #threads = new Map();
  #missing = new Set();
  #toRead = new Map();
  #onScreen = new Map();
  #renewal = null;

  /** `renewToken` answers a fresh token when the old one has ended. */
  constructor(user, renewToken) {
    super();
    this.me = user;
    this.renewToken = renewToken;
    this.api = new Api(user.token);
    this.inbox = new Inbox();
    this.journal = new Journal((since) => this.api.sync(since), (event, data) => this.#apply(event, data), () => this.#insist(() => this.#loadAll()));
    this.outbox = new Outbox(this, (target) => this.#emit("thread", { target, conversationId: target.conversationId }));
    this.live = new Live(() => this.#address(), () => ["presence_update", { status: presenceNow() }]);
    this.live.addEventListener("frame", ({ detail }) => this.journal.follow(detail.event, detail.data ?? {}));
    this.live.addEventListener("state", () => this.#emit("connection"));
    this.live.addEventListener("unauthenticated", () => this.renew());
    document.addEventListener("visibilitychange", () => this.live.tell("presence_update", { status: presenceNow() }));
  }

  /** Loads what there is and goes live. */
  async start() {
    await this.#insist(() => this.#loadAll());
    this.live.connect();
  }

  /** Flight mode: on, nothing leaves this phone and nothing reaches it. */
  setGrounded(grounded) {
    this.api.grounded = grounded;
    this.live.setPaused(grounded || this.#isLocked);
  }

  /** Locked, the phone has no line: it hears by push alone. */
  setLocked(locked) {
    this.#isLocked = locked;
    this.live.setPaused(locked || this.api.grounded);
  }

  // ---- features ----

  /** Whether the service offers something, as far as is known. */
  can(feature) {
    return !this.#missing.has(feature);
  }

  /** The service has no such call: the page hides it from now on. */
  lacks(feature) {
    if (this.#missing.has(feature)) return;
    this.#missing.add(feature);
    this.#emit("features");
  }

  /** Does something that may be refused; answers whether it was done. A refusal becomes a notice. */
  async attempt(feature, action) {
    try {
      await action();
      return true;
    } catch (error) {
      if (error.isSignedOut) this.renew();
      else if (error.isMissingRoute) this.lacks(feature);
      else this.#emit("notice", { text: error.code === "OFFLINE" ? "No connection. Please try again." : error.message });
      return false;
    }
  }

  // ---- reading ----

  thread(conversationId) {
    if (!this.#threads.has(conversationId)) this.#threads.set(conversationId, new Thread());
    return this.#threads.get(conversationId);
  }

  /** A conversation is on screen: its newest messages are loaded, and others may know. */
  async open(conversationId) {
    const screens = this.#onScreen.get(conversationId) ?? 0;
    this.#onScreen.set(conversationId, screens + 1);
    if (screens === 0) this.live.tell("join_conversation", { conversation_id: conversationId });
    if (this.thread(conversationId).isLoaded) return;
    await this.#insist(() => this.#loadNewest(conversationId), () => this.#onScreen.has(conversationId));
  }

  close(conversationId) {
    const screens = (this.#onScreen.get(conversationId) ?? 0) - 1;
    if (screens > 0) {
      this.#onScreen.set(conversationId, screens);
      return;
    }
    this.#onScreen.delete(conversationId);
    this.live.tell("leave_conversation", { conversation_id: conversationId });
  }

  /** Loads the page before the oldest message held; answers whether there was one. */
  async loadOlder(conversationId, limit = PAGE) {
    const thread = this.thread(conversationId);
    if (!thread.hasOlder || thread.isLoadingOlder || thread.oldestSeq === null) return false;
    thread.isLoadingOlder = true;
    try {
      const older = await this.api.messages(conversationId, { before: thread.oldestSeq }, limit);
      thread.hasOlder = older.length > 0 && older[0].seq > 1;
      for (const message of older) thread.put(message);
      return older.length > 0;
    } catch {
      return false;
    } finally {
      thread.isLoadingOlder = false;
      this.#emit("thread", { conversationId });
    }
  }

  /** Loads back to a message, for a jump from a search or a quote; answers whether it is there. */
  async loadUntil(conversationId, messageId) {
    const thread = this.thread(conversationId);
    // A bound, so that a hit in a conversation of many thousands does not fetch all of it.
    for (let page = 0; page < 30 && !thread.get(messageId); page += 1) {
      if (!(await this.loadOlder(conversationId, 100))) break;
    }
    return thread.get(messageId) !== undefined;
  }

  /** Everything up to this message has been seen. */
  markRead(conversationId, upToId) {
    if ((this.#toRead.get(conversationId) ?? 0) >= upToId) return;
    this.#toRead.set(conversationId, upToId);
    this.#sendRead(conversationId);
  }

  // ---- writing ----

  send(target, draft) {
    return this.outbox.add(target, draft);
  }

  sayTyping(conversationId, is_typing) {
    if (conversationId) this.live.tell("typing", { conversation_id: conversationId, is_typing });
  }

  edit(message, content) {
    return this.attempt("edit", async () => this.store(await this.api.editMessage(message.id, content)));
  }

  remove(message) {
    return this.attempt("delete", async () => {
      await this.api.deleteMessage(message.id);
      this.#bury(message.conversation_id, message.id, new Date().toISOString());
    });
  }

  /** Adds one's reaction, or takes it back; shown at once, undone if refused. */
  async toggleReaction(message, emoji) {
    const before = message.reactions ?? [];
    const has = before.some((reaction) => reaction.emoji === emoji && reaction.user_ids.includes(this.me.id));
    message.reactions = withReaction(before, emoji, this.me.id, !has);
    this.#emit("thread", { conversationId: message.conversation_id });
    const done = await this.attempt("reactions", () => (has ? this.api.removeReaction(message.id, emoji) : this.api.addReaction(message.id, emoji)));
    if (done) return;
    message.reactions = before;
    this.#emit("thread", { conversationId: message.conversation_id });
  }

  /** `change` is archive, unarchive, mute or unmute. */
  change(conversation, change) {
    const feature = change.endsWith("archive") ? "archive" : "mute";
    return this.attempt(feature, async () => this.#putConversation(await this.api.changeConversation(conversation.id, change)));
  }

  setBlocked(conversation, blocked) {
    return this.attempt("block", async () => {
      await this.api.setBlocked(conversation.other_user.id, blocked);
      this.#putConversation(await this.api.conversation(conversation.id));
    });
  }

  deleteConversation(conversation) {
    return this.attempt("delete_conversation", async () => {
      await this.api.deleteConversation(conversation.id);
      this.#forget(conversation.id);
      await this.#loadUnread();
    });
  }

  /** A message as the service stored it, from whichever answer or event came first. */
  store(message) {
    const conversationId = message.conversation_id;
    this.#hold(message);
    if (message.sender_id === this.me.id && message.client_message_id) this.outbox.confirm(message);
    if (!this.inbox.note(message)) this.#fetchConversation(conversationId);
    this.#emit("thread", { conversationId });
    this.#emit("list");
  }

  /** The first message of a draft made it a conversation, or found the one there was. */
  adopt(target, conversationId) {
    target.conversationId = conversationId;
    this.#emit("thread", { target, conversationId });
  }

  /** The token has ended (a demo that was restarted has new ones): fetch one, then start over. */
  renew() {
    this.#renewal ??= (async () => {
      await this.#insist(async () => {
        this.api.token = await this.renewToken();
        await this.#loadAll();
      });
      this.#renewal = null;
      this.live.connect();
    })();
    return this.#renewal;
  }

  // ---- the live stream ----

  #address() {
    const query = new URLSearchParams({ token: this.api.token });
    if (this.journal.seq !== null) query.set("since", this.journal.seq);
    return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?${query}`;
  }

  #apply(event, data) {
    const conversationId = data.conversation_id;
    switch (event) {
      case "authenticated":
        return void this.#comeBack();
      case "message_received":
        this.#setTyping(conversationId, data.message.sender_id, false);
        this.store(data.message);
        return this.#emit("arrived", { message: data.message });
      case "message_sent":
      case "message_updated":
        return this.store(data.message);
      case "message_deleted":
        return this.#bury(conversationId, data.message_id, data.deleted_at);
      case "message_reaction": {
        const message = this.thread(conversationId).get(data.message_id);
        if (message) message.reactions = data.reactions;
        return this.#emit("thread", { conversationId });
      }
      case "message_delivered":
        return this.#raise(data, "delivered");
      case "message_read":
        return this.#raise(data, "read");
      case "user_typing":
        return this.#setTyping(conversationId, data.user_id, data.is_typing);
      case "user_presence":
        for (const id of this.inbox.setPresence(data)) this.#emit("presence", { conversationId: id });
        return;
      case "conversation_updated":
        return this.#putConversation(data.conversation);
      case "unread_count":
        this.inbox.setUnread(data.unread_count);
        return this.#emit("unread");
      case "sync_required":
        return void this.#insist(() => this.#loadAll());
      case "error":
        // A `since` that this service does not know: it has lost its log, or we came too late.
        if (!data.event && !data.client_message_id && ["SYNC_EXPIRED", "VALIDATION_FAILED"].includes(data.code)) this.#insist(() => this.#loadAll());
    }
  }

  /** Live again: what the log does not carry is fetched, what waited goes out. */
  async #comeBack() {
    if (document.visibilityState === "hidden") this.live.tell("presence_update", { status: "away" });
    for (const id of this.#onScreen.keys()) this.live.tell("join_conversation", { conversation_id: id });
    for (const id of this.#toRead.keys()) this.#sendRead(id);
    this.outbox.flush();
    try {
      await this.#loadList();
      if (this.journal.seq === null) await this.#reloadThreads();
    } catch {
      // The line broke again; the next return does the same.
    }
  }

  // ---- loading ----

  async #loadAll() {
    // The log's end first: whatever happens while the rest loads comes again by `since`.
    this.journal.startAt(await this.#logEnd());
    await this.#loadList(true);
    this.outbox.reconsider(this.inbox);
    await this.#reloadThreads();
    this.isReady = true;
    this.#emit("list");
  }

  async #logEnd() {
    if (!this.can("sync")) return null;
    try {
      return (await this.api.sync()).last_event_seq;
    } catch (error) {
      if (!error.isMissingRoute) throw error;
      this.lacks("sync");
      return null;
    }
  }

  async #loadList(replace = false) {
    const asked_ms = performance.now();
    const [active, archived] = await Promise.all([this.api.conversations(), this.api.conversations(true).catch(() => [])]);
    if (replace) this.inbox.conversations.clear();
    // Both lists are the same where there is no archive yet.
    this.inbox.putAll([...archived, ...active], asked_ms);
    await this.#loadUnread();
    this.#emit("list");
    this.#emit("presence", {});
  }

  async #loadUnread() {
    const asked_ms = performance.now();
    this.inbox.answerUnread(await this.api.unreadCount(), asked_ms);
    this.#emit("unread");
  }

  async #reloadThreads() {
    for (const [id, thread] of this.#threads) {
      if (!this.#onScreen.has(id)) {
        thread.clear();
        continue;
      }
      try {
        await this.#loadNewest(id);
      } catch (error) {
        if (error.status !== 403 && error.status !== 404) throw error;
        this.#forget(id);
      }
    }
  }

  async #loadNewest(conversationId) {
    const newest = await this.api.messages(conversationId, {}, PAGE);
    const thread = this.thread(conversationId);
    thread.clear();
    for (const message of newest) thread.put(message);
    thread.hasOlder = newest.length > 0 && newest[0].seq > 1;
    thread.isLoaded = true;
    this.#emit("thread", { conversationId });
  }

  /** Fetches what lies between the newest message held and the one that just came. */
  async #loadBetween(conversationId) {
    const thread = this.thread(conversationId);
    try {
      for (let page = 0; page < 20; page += 1) {
        const next = await this.api.messages(conversationId, { after: thread.newestSeq }, 100);
        for (const message of next) thread.put(message);
        if (next.length < 100) break;
      }
      this.#emit("thread", { conversationId });
    } catch {
      thread.isLoaded = false;
    }
  }

  async #fetchConversation(id) {
    try {
      this.#putConversation(await this.api.conversation(id));
    } catch {
      // The list is loaded again at the next return; nothing depends on this one answer.
    }
  }

  /** Repeats a loading step until it succeeds or nobody wants it any more. */
  async #insist(step, isWanted = () => true) {
    for (let delay = 300; isWanted(); delay = Math.min(delay * 2, 5000)) {
      try {
        return await step();
      } catch (error) {
        if (error.isSignedOut && this.#renewal === null) return void this.renew();
        if (error.status === 403 || error.status === 404) return;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }

  // ---- small changes ----

  /** Puts a message where it belongs in the window held, if it belongs there. */
  #hold(message) {
    const thread = this.thread(message.conversation_id);
    if (!thread.isLoaded) {
      if (message.seq !== 1) return;
      // The very first message: there is nothing that would need loading.
      thread.isLoaded = true;
      thread.hasOlder = false;
    }
    if (thread.leavesHole(message.seq)) this.#loadBetween(message.conversation_id);
    else if (thread.get(message.id) || thread.newestSeq === null || message.seq > thread.newestSeq) thread.put(message);
  }

  async #sendRead(conversation_id) {
    const up_to_id = this.#toRead.get(conversation_id);
    try {
      await this.live.request("mark_read", { conversation_id, up_to_id });
      if (this.#toRead.get(conversation_id) === up_to_id) this.#toRead.delete(conversation_id);
    } catch (error) {
      if (error.code === "RATE_LIMITED") setTimeout(() => this.#sendRead(conversation_id), (error.retryAfter_s ?? 1) * 1000);
      else if (!error.retryable) this.#toRead.delete(conversation_id);
    }
  }

  #raise(receipt, status) {
    const { conversation_id, message_ids, read_at } = receipt;
    this.thread(conversation_id).raise(message_ids, status, read_at);
    this.inbox.raise(receipt, status);
    this.#emit("thread", { conversationId: conversation_id });
    this.#emit("list");
  }

  #bury(conversationId, id, deleted_at) {
    this.thread(conversationId).bury(id, deleted_at);
    this.inbox.bury(conversationId, id, deleted_at);
    this.#emit("thread", { conversationId });
    this.#emit("list");
  }

  #setTyping(conversationId, userId, isTyping) {
    if (userId === this.me.id) return;
    const tell = () => this.#emit("typing", { conversationId });
    if (this.inbox.setTyping(conversationId, isTyping, tell)) tell();
  }

  #putConversation(conversation) {
    if (!conversation) return;
    if (conversation.is_deleted) return this.#forget(conversation.id);
    this.inbox.put(conversation);
    this.#emit("list");
    this.#emit("presence", { conversationId: conversation.id });
  }

  #forget(conversationId) {
    this.inbox.forget(conversationId);
    this.#threads.delete(conversationId);
    this.#toRead.delete(conversationId);
    this.#onScreen.delete(conversationId);
    this.#emit("gone", { conversationId });
    this.#emit("list");
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function presenceNow() {
  return document.visibilityState === "hidden" ? "away" : "online";
}
