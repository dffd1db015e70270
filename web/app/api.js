// The REST half of the client: one method for each call of the public API that the page uses.
// It keeps no messages; failures become `ApiError` with the service's own code.

const TIMEOUT_MS = 12_000;

/** A refusal or a failure. `code` is the service's, or `OFFLINE` where no answer came. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? body?.message ?? "No answer from the service.");
    this.status = status;
    this.code = body?.error?.code ?? (status === 0 ? "OFFLINE" : `HTTP_${status}`);
    this.retryable = body?.error?.details?.retryable ?? body?.error?.retryable ?? (status === 0 || status >= 500);
    this.retryAfter_s = body?.error?.details?.retry_after ?? null;
  }

  /** Whether the token has ended. */
  get isSignedOut() {
    return this.status === 401 || this.code === "UNAUTHENTICATED";
  }

  /** Whether the service has no such route at all, as opposed to no such message. */
  get isMissingRoute() {
    return this.status === 405 || (this.status === 404 && !["CONVERSATION_NOT_FOUND", "MESSAGE_NOT_FOUND"].includes(this.code));
  }
}

/** The calls of one signed-in person. */
export class Api {
  /** Set while the phone's flight mode is on: no call leaves the page. */
  grounded = false;

  constructor(token) {
    this.token = token;
  }

  async conversations(archived = false) {
    return (await this.#call("GET", `/api/conversations?limit=100${archived ? "&archived=true" : ""}`)).data;
  }

  async conversation(id) {
    return (await this.#call("GET", `/api/conversations/${id}`)).data;
  }

  async unreadCount() {
    return (await this.#call("GET", "/api/conversations/unread/count")).unread_count;
  }

  /** A window of messages, oldest first; `where` is at most one of before, after, around (a `seq`). */
  async messages(conversationId, where = {}, limit = 40) {
    const query = new URLSearchParams({ limit, ...where });
    return (await this.#call("GET", `/api/conversations/${conversationId}/messages?${query}`)).data;
  }

  async sendMessage(body) {
    return (await this.#call("POST", "/api/messages", body)).data;
  }

  async editMessage(id, content) {
    return (await this.#call("PUT", `/api/messages/${id}`, { content })).data;
  }

  async deleteMessage(id) {
    await this.#call("DELETE", `/api/messages/${id}`);
  }

  async addReaction(id, emoji) {
    await this.#call("POST", `/api/messages/${id}/reactions`, { emoji });
  }

  async removeReaction(id, emoji) {
    await this.#call("DELETE", `/api/messages/${id}/reactions/${encodeURIComponent(emoji)}`);
  }

  /** `change` is archive, unarchive, mute or unmute; answers the conversation. */
  async changeConversation(id, change) {
    return (await this.#call("POST", `/api/conversations/${id}/${change}`, {})).data;
  }

  async deleteConversation(id) {
    await this.#call("DELETE", `/api/conversations/${id}`);
  }

  async setBlocked(userId, blocked) {
    return (await this.#call(blocked ? "POST" : "DELETE", `/api/users/${userId}/block`, blocked ? {} : undefined))?.data;
  }

  async search(query, conversationId) {
    const parameters = new URLSearchParams({ query, limit: 30 });
    if (conversationId) parameters.set("conversation_id", conversationId);
    return (await this.#call("GET", `/api/messages/search?${parameters}`)).data;
  }

  /** The caller's events after `since`; without it only `last_event_seq`. */
  async sync(since) {
    return (await this.#call("GET", since === undefined ? "/api/sync" : `/api/sync?since=${since}&limit=500`)).data;
  }

  async registerDevice(token) {
    await this.#call("POST", "/api/devices", { token, device_type: "android", app_version: "demo" });
  }

  async forgetDevice(token) {
    await this.#call("DELETE", "/api/devices", { token });
  }

  async upload(file) {
    const form = new FormData();
    form.append("file", file, file.name || "picture");
    return (await this.#call("POST", "/api/uploads", form, 60_000)).data;
  }

  async #call(method, path, body, timeout_ms = TIMEOUT_MS) {
    if (this.grounded) throw new ApiError(0);
    const headers = { Accept: "application/json", Authorization: `Bearer ${this.token}` };
    if (body !== undefined && !(body instanceof FormData)) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(path, { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(timeout_ms) });
    } catch {
      throw new ApiError(0);
    }
    const answer = response.status === 204 ? null : await response.json().catch(() => null);
    if (!response.ok) throw new ApiError(response.status, answer);
    return answer;
  }
}
