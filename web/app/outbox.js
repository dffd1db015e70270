// What has been typed and is not yet confirmed. Each entry keeps its `client_message_id` through
// every attempt on either transport, so the service stores it once however often it is asked.
// Entries of one conversation go out one after the other, in the order they were written.

import { randomId } from "./dom.js";

const ATTEMPTS = 5;
// How long an unsent message looks merely slow; after that the person is told.
const PATIENCE_MS = 15_000;

export class Outbox {
  entries = [];
  #busy = new Set();

  /** `changed(target)` is called whenever an entry of that target looks different. */
  constructor(session, changed) {
    this.session = session;
    this.changed = changed;
  }

  /** Entries that belong to a conversation, or to one that does not exist yet. */
  of(target) {
    return this.entries.filter((entry) => entry.target === target || (target.conversationId && entry.target.conversationId === target.conversationId));
  }

  /** Takes a message to be sent; `file` is a picture, `replyTo` a message. */
  add(target, { content, file = null, replyTo = null }) {
    const entry = {
      client_message_id: randomId(),
      target,
      content,
      file,
      previewUrl: file ? URL.createObjectURL(file) : null,
      attachment: null,
      replyTo,
      created_at: new Date().toISOString(),
      status: "sending",
      error: null,
      attempts: 0,
      patience: null,
    };
    this.entries.push(entry);
    this.changed(target);
    this.#watch(entry);
    this.#pump(target);
    return entry;
  }

  /** Tries a failed entry again, under the same id. */
  retry(entry) {
    Object.assign(entry, { status: "sending", error: null, attempts: 0 });
    this.#watch(entry);
    this.changed(entry.target);
    this.#pump(entry.target);
  }

  /** Gives an entry up. */
  discard(entry) {
    this.#remove(entry);
    this.changed(entry.target);
  }

  /** The line is back: everything that only lacked a connection goes out now. */
  flush() {
    for (const entry of this.entries) {
      if (entry.status !== "failed" || entry.isFinal) continue;
      Object.assign(entry, { status: "sending", error: null, attempts: 0 });
      this.#watch(entry);
    }
    for (const target of new Set(this.entries.map((entry) => entry.target))) {
      this.changed(target);
      this.#pump(target);
    }
  }

  /** Everything was loaded anew: what waits for a conversation that is not the same any more begins one. */
  reconsider(inbox) {
    for (const { target } of this.entries) {
      const conversation = inbox.get(target.conversationId);
      const isSame = conversation?.other_user.id === target.otherUser.id && conversation?.product?.id === target.product?.id;
      if (!isSame) target.conversationId = null;
    }
  }

  /** The service has stored this one: it leaves the outbox. */
  confirm(message) {
    const entry = this.entries.find(({ client_message_id }) => client_message_id === message.client_message_id);
    if (!entry) return;
    this.#remove(entry);
    if (!entry.target.conversationId) this.session.adopt(entry.target, message.conversation_id);
  }

  async #pump(target) {
    if (this.#busy.has(target)) return;
    this.#busy.add(target);
    try {
      for (;;) {
        const entry = this.entries.find((candidate) => candidate.target === target && candidate.status === "sending");
        if (!entry || !this.session.live.isOnline) return;
        await this.#attempt(entry);
      }
    } finally {
      this.#busy.delete(target);
    }
  }

  async #attempt(entry) {
    entry.attempts += 1;
    try {
      if (entry.file && !entry.attachment) entry.attachment = await this.session.api.upload(entry.file);
      const message = await this.#send(entry);
      this.session.store(message);
      this.confirm({ ...message, client_message_id: entry.client_message_id });
    } catch (error) {
      await this.#refused(entry, error);
    }
  }

  async #send(entry) {
    const body = {
      ...(entry.target.conversationId
        ? { conversation_id: entry.target.conversationId }
        : { receiver_id: entry.target.otherUser.id, product_id: entry.target.product?.id ?? null }),
      content: entry.content,
      type: "text",
      client_message_id: entry.client_message_id,
    };
    if (entry.attachment) {
      body.attachment_id = entry.attachment.id;
      // What it is the service has found out from its bytes.
      body.type = entry.attachment.mime_type.startsWith("image/") ? "image" : "file";
    }
    if (entry.replyTo) body.reply_to_id = entry.replyTo.id;
    try {
      return await this.session.live.request("send_message", body);
    } catch (error) {
      // No ack in time or the line broke: nobody knows whether it was stored. Asking again by
      // REST with the same id is safe either way.
      if (error.code === "OFFLINE") return this.session.api.sendMessage(body);
      throw error;
    }
  }

  async #refused(entry, error) {
    if (!this.entries.includes(entry)) return;
    if (error.isSignedOut) {
      await this.session.renew();
      return;
    }
    if (entry.file && !entry.attachment && error.isMissingRoute) {
      this.session.lacks("upload");
      this.#fail(entry, "This service takes no pictures.", true);
    } else if (!error.retryable) this.#fail(entry, error.message, true);
    else if (error.code === "OFFLINE" && !this.session.live.isOnline) return;
    else if (entry.attempts >= ATTEMPTS) this.#fail(entry, error.message, false);
    else await pause(Math.max((error.retryAfter_s ?? 0) * 1000, 300 * 2 ** entry.attempts));
  }

  #watch(entry) {
    clearTimeout(entry.patience);
    entry.patience = setTimeout(() => entry.status === "sending" && this.#fail(entry, "No connection.", false), PATIENCE_MS);
  }

  /** `isFinal`: asking again by itself would change nothing; the person may still try. */
  #fail(entry, error, isFinal) {
    Object.assign(entry, { status: "failed", error, isFinal });
    this.changed(entry.target);
  }

  #remove(entry) {
    clearTimeout(entry.patience);
    this.entries = this.entries.filter((other) => other !== entry);
    // The picture may still be on screen until the stored one has loaded.
    if (entry.previewUrl) setTimeout(() => URL.revokeObjectURL(entry.previewUrl), 30_000);
  }
}

function pause(duration_ms) {
  return new Promise((resolve) => setTimeout(resolve, duration_ms));
}
