// The messages of one conversation that this client holds: one unbroken window that ends at the
// newest, ordered by `seq`. No network here; `session.js` fills it.

// What is told of a message never goes backwards.
const RANK = { sent: 0, delivered: 1, read: 2 };

export class Thread {
  messages = [];
  hasOlder = true;
  isLoaded = false;
  #byId = new Map();

  get oldestSeq() {
    return this.messages[0]?.seq ?? null;
  }

  get newestSeq() {
    return this.messages.at(-1)?.seq ?? null;
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** Forgets everything, to be loaded anew. */
  clear() {
    this.messages = [];
    this.#byId.clear();
    this.hasOlder = true;
    this.isLoaded = false;
  }

  /** Takes in a message in its place, or its newer state if it is here already. */
  put(message) {
    const known = this.#byId.get(message.id);
    if (known) {
      if (RANK[known.status] > RANK[message.status]) message.status = known.status;
      Object.assign(known, message);
      return;
    }
    let place = this.messages.length;
    while (place > 0 && this.messages[place - 1].seq > message.seq) place -= 1;
    this.messages.splice(place, 0, message);
    this.#byId.set(message.id, message);
  }

  /** Whether a message with this `seq` would leave a hole before it. */
  leavesHole(seq) {
    return this.newestSeq !== null && seq > this.newestSeq + 1;
  }

  /** Raises the status of messages; ids that are not here are skipped. */
  raise(ids, status, read_at) {
    for (const id of ids) {
      const message = this.#byId.get(id);
      if (!message || RANK[message.status] >= RANK[status]) continue;
      message.status = status;
      if (status === "read") Object.assign(message, { is_read: true, read_at });
    }
  }

  /** Leaves the tombstone of a deleted message. */
  bury(id, deleted_at) {
    const message = this.#byId.get(id);
    if (message) Object.assign(message, { deleted_at, content: "", attachment: null, file_url: null, reactions: [] });
    for (const { reply_to } of this.messages) {
      if (reply_to?.id === id) reply_to.content = "";
    }
  }
}

/** The reactions with one person's emoji added or taken away. */
export function withReaction(reactions, emoji, userId, added) {
  const kept = reactions
    .map((reaction) => (reaction.emoji === emoji ? { ...reaction, user_ids: reaction.user_ids.filter((id) => id !== userId) } : reaction))
    .map((reaction) => (added && reaction.emoji === emoji ? { ...reaction, user_ids: [...reaction.user_ids, userId] } : reaction))
    .map((reaction) => ({ ...reaction, count: reaction.user_ids.length }))
    .filter(({ count }) => count > 0);
  const isNew = added && !kept.some((reaction) => reaction.emoji === emoji);
  return isNew ? [...kept, { emoji, count: 1, user_ids: [userId] }] : kept;
}
