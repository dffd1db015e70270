// The conversations of one person as this client knows them: the list, who is there, who types,
// the badge. No network here; `session.js` fills it and says when it changed.

// The service ends typing by itself after 6 s; this is for a stop that got lost.
const TYPING_MS = 6_500;

export class Inbox {
  conversations = new Map();
  unread = 0;
  #typing = new Map();
  /** When an event last spoke of something, so that a slower answer does not overwrite it. */
  #heard = new Map();
  #presence = new Map();

  /** Conversations, newest activity first. */
  list(archived) {
    return [...this.conversations.values()]
      .filter((conversation) => Boolean(conversation.is_archived) === archived)
      .sort((one, other) => lastActivity(other).localeCompare(lastActivity(one)));
  }

  get(id) {
    return this.conversations.get(id);
  }

  /** The conversation about a product with somebody, if there is one. */
  find(productId, userId) {
    return [...this.conversations.values()].find(({ product, other_user }) => product?.id === productId && other_user.id === userId);
  }

  /** A conversation as an event or an answer about it alone has it. */
  put(conversation) {
    this.#hear(`conversation-${conversation.id}`);
    this.conversations.set(conversation.id, conversation);
  }

  /** An answer with many of them, to a question asked at `asked_ms` (of `performance.now()`). */
  putAll(conversations, asked_ms) {
    for (const conversation of conversations) {
      if (this.get(conversation.id) && this.#heardSince(`conversation-${conversation.id}`, asked_ms)) continue;
      const { id } = conversation.other_user;
      if (this.#heardSince(`user-${id}`, asked_ms)) Object.assign(conversation.other_user, this.#presence.get(id));
      this.conversations.set(conversation.id, conversation);
    }
  }

  /** The badge, from an event. */
  setUnread(count) {
    this.#hear("unread");
    this.unread = count ?? 0;
  }

  /** The badge, as the answer to a question asked at `asked_ms`. */
  answerUnread(count, asked_ms) {
    if (!this.#heardSince("unread", asked_ms)) this.unread = count ?? 0;
  }

  /** A message that may be the last of its conversation; answers whether that one is known. */
  note(message) {
    const conversation = this.get(message.conversation_id);
    if (!conversation) return false;
    if (conversation.last_message && message.id < conversation.last_message.id) return true;
    conversation.last_message = { ...message };
    if (message.created_at > (conversation.last_message_at ?? "")) conversation.last_message_at = message.created_at;
    return true;
  }

  /** Messages were delivered to or read by somebody. */
  raise({ conversation_id, message_ids, user_id }, status) {
    const last = this.get(conversation_id)?.last_message;
    if (last && message_ids.includes(last.id) && last.sender_id !== user_id && last.status !== "read") last.status = status;
  }

  bury(conversationId, id, deleted_at) {
    const last = this.get(conversationId)?.last_message;
    if (last?.id === id) Object.assign(last, { content: "", deleted_at });
  }

  forget(id) {
    this.conversations.delete(id);
  }

  /** Answers the ids of the conversations with that user. */
  setPresence({ user_id, status, last_seen }) {
    const presence = { status, last_seen: last_seen ?? null };
    this.#hear(`user-${user_id}`);
    this.#presence.set(user_id, presence);
    const theirs = [...this.conversations.values()].filter(({ other_user }) => other_user.id === user_id);
    for (const { other_user } of theirs) Object.assign(other_user, presence);
    return theirs.map(({ id }) => id);
  }

  isTyping(conversationId) {
    return this.#typing.has(conversationId);
  }

  /** `ended` is called if the end has to be guessed; answers whether anything changed. */
  setTyping(conversationId, isTyping, ended) {
    clearTimeout(this.#typing.get(conversationId));
    const was = this.#typing.delete(conversationId);
    if (isTyping) {
      const end = () => this.setTyping(conversationId, false) && ended();
      this.#typing.set(conversationId, setTimeout(end, TYPING_MS));
    }
    return was !== isTyping;
  }

  #hear(what) {
    this.#heard.set(what, performance.now());
  }

  #heardSince(what, asked_ms) {
    return (this.#heard.get(what) ?? -1) > asked_ms;
  }
}

function lastActivity({ last_message_at, created_at }) {
  return String(last_message_at ?? created_at);
}
