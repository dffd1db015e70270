// The live half of the client: one plain WebSocket with `{event, data}` frames that comes back by
// itself, each time a little later, and asks for what it missed (`since`). It understands frames,
// not messages: `session.js` does.

import { ApiError } from "./api.js";

const FIRST_RETRY_MS = 400;
const LONGEST_RETRY_MS = 15_000;
const ACK_TIMEOUT_MS = 8_000;
// The server's pings are invisible to a page, so a line that died silently is noticed by a question
// of our own that gets no answer.
const HEARTBEAT_MS = 20_000;

/**
 * Events: `frame` {event, data}, `state`, `unauthenticated`, and `wire` {direction, event, data}
 * for whoever wants to watch. `state` is connecting, online, waiting, paused or closed.
 */
export class Live extends EventTarget {
  state = "connecting";
  /** When the next attempt is due, as `Date.now()` counts; null while none is. */
  retryAt = null;
  #socket = null;
  #acks = new Map();
  #nextRef = 1;
  #attempts = 0;
  #timer = null;
  #heartbeat = null;

  /** `address` is asked for before each attempt: the token and `since` change over time. */
  constructor(address, heartbeat) {
    super();
    this.address = address;
    this.heartbeat = heartbeat;
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.hurry());
  }

  get isOnline() {
    return this.state === "online";
  }

  /** Opens the line, and keeps it open from now on. */
  connect() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#become("connecting");
    const socket = new WebSocket(this.address());
    this.#socket = socket;
    // A connection attempt that neither opens nor fails would otherwise hang for minutes.
    this.#timer = setTimeout(() => socket === this.#socket && this.#lost(), 10_000);
    socket.onmessage = ({ data }) => socket === this.#socket && this.#read(data);
    socket.onclose = ({ code }) => {
      if (socket !== this.#socket) return;
      if (code === 4401) this.#refused();
      else this.#lost();
    };
  }

  /** Tries again at once instead of when it is due. */
  hurry() {
    if (this.state === "waiting") this.connect();
  }

  /** Drops the line and stays away (flight mode), or comes back. */
  setPaused(paused) {
    if (paused) {
      clearTimeout(this.#timer);
      this.#drop();
      this.#become("paused");
    } else if (this.state === "paused") {
      this.#attempts = 0;
      this.connect();
    }
  }

  /** Asks for an answer: resolves to the ack's `data`, or fails with an `ApiError`. */
  request(event, data, timeout_ms = ACK_TIMEOUT_MS) {
    if (!this.isOnline) return Promise.reject(new ApiError(0));
    const ref = this.#nextRef++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#acks.delete(ref);
        reject(new ApiError(0));
      }, timeout_ms);
      this.#acks.set(ref, { resolve, reject, timer });
      this.#write({ event, data, ref });
    });
  }

  /** Says something that needs no answer; lost while the line is down. */
  tell(event, data) {
    if (this.isOnline) this.#write({ event, data });
  }

  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
    this.#emit("wire", { direction: "out", ...frame });
  }

  #read(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (frame.event === "ack") {
      this.#settle(frame);
      return;
    }
    this.#emit("wire", { direction: "in", ...frame });
    if (frame.event === "authenticated") {
      clearTimeout(this.#timer);
      this.#attempts = 0;
      this.#become("online");
      this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS);
    }
    this.#emit("frame", frame);
  }

  #settle({ ref, data }) {
    const waiting = this.#acks.get(ref);
    if (!waiting) return;
    this.#acks.delete(ref);
    clearTimeout(waiting.timer);
    if (data?.success === false) waiting.reject(new ApiError(400, data));
    else waiting.resolve(data?.data ?? data);
  }

  async #beat() {
    const socket = this.#socket;
    try {
      await this.request(...this.heartbeat());
    } catch (error) {
      if (error.code === "OFFLINE" && socket === this.#socket && this.isOnline) this.#lost();
    }
  }

  #refused() {
    this.#drop();
    this.#become("closed");
    this.#emit("unauthenticated");
  }

  #lost() {
    clearTimeout(this.#timer);
    this.#drop();
    // Doubling, with half of it left to chance so that many clients do not return in one moment.
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts++);
    const delay = longest / 2 + (Math.random() * longest) / 2;
    this.retryAt = Date.now() + delay;
    this.#become("waiting");
    this.#timer = setTimeout(() => this.connect(), delay);
  }

  #drop() {
    clearInterval(this.#heartbeat);
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState < WebSocket.CLOSING) socket.close();
    for (const { reject, timer } of this.#acks.values()) {
      clearTimeout(timer);
      reject(new ApiError(0));
    }
    this.#acks.clear();
  }

  #become(state) {
    if (state !== "waiting") this.retryAt = null;
    this.state = state;
    this.#emit("state");
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
