// One device of a user: connects somewhere, goes on where it was, sends until it is confirmed, and notes whatever the
// contract forbids: a stored event that is missing, repeated or out of order (contract 4.5).

import { WebSocket } from 'ws';

import { sleep } from '../support/inbox.mjs';

const ACK_PATIENCE_MS = 8_000;

export class Person {
  /** Stored events as heard, by their place. */
  heard = [];
  /** Everything that this user ever sent: `{clientMessageId, content, confirmed}`. */
  sent = [];
  violations = [];
  refusals = new Map();
  #refs = new Map();
  #nextRef = 1;
  #waiters = new Set();

  constructor({ user, nodes, random }) {
    Object.assign(this, { user, nodes, random, since: 0, socket: null, isOn: true });
  }

  /** Keeps a connection to some node until told otherwise. */
  async live() {
    while (this.isOn) {
      const node = this.random.pick(this.nodes);
      await this.#connect(node).catch(() => {});
      await sleep(this.random.between(20, 300));
    }
  }

  /** As a phone that loses its network: no goodbye. */
  drop() {
    this.socket?.terminate();
  }

  leave() {
    this.isOn = false;
    this.drop();
  }

  async #connect(node) {
    const url = `${node.wsUrl}/ws?token=${encodeURIComponent(this.user.token)}&since=${this.since}`;
    const socket = new WebSocket(url, { handshakeTimeout: 3_000 });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.on('message', (bytes) => this.#take(socket, JSON.parse(bytes.toString())));
    // A node that is frozen accepts connections and never says a word.
    const silent = setTimeout(() => this.socket === socket || socket.terminate(), 6_000);
    await closed;
    clearTimeout(silent);
    if (this.socket === socket) this.socket = null;
    for (const settle of this.#refs.values()) settle(null);
    this.#refs.clear();
  }

  #take(socket, { event, data, ref }) {
    if (event === 'authenticated') this.socket = socket;
    if (event === 'ack') {
      this.#refs.get(ref)?.(data);
      this.#refs.delete(ref);
    }
    if (event === 'sync_required') this.violations.push(`sync_required: ${JSON.stringify(data)}`);
    if (data?.event_seq !== undefined) {
      if (data.event_seq !== this.since + 1) this.violations.push(`${event} has place ${data.event_seq} after ${this.since}`);
      this.since = Math.max(this.since, data.event_seq);
      this.heard.push({ event, data, at: Date.now() });
    }
    for (const look of [...this.#waiters]) look();
  }

  /** Asks over the socket; null if no answer came. */
  ask(event, data) {
    const { socket } = this;
    if (!socket || socket.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    const ref = this.#nextRef++;
    return new Promise((resolve) => {
      const timer = setTimeout(() => finish(null), ACK_PATIENCE_MS);
      const finish = (answer) => {
        clearTimeout(timer);
        resolve(answer);
      };
      this.#refs.set(ref, finish);
      socket.send(JSON.stringify({ event, data, ref }));
    });
  }

  /** Sends until it is confirmed, with the same id each time. */
  async send(to, content, deadline = Infinity) {
    const message = { clientMessageId: `${this.user.id}-${this.sent.length}`, content, to: to.user.id, confirmed: null };
    this.sent.push(message);
    const body = { receiver_id: to.user.id, content, client_message_id: message.clientMessageId };
    while (!message.confirmed && Date.now() < deadline) {
      const answer = this.random.next() < 0.8 ? await this.ask('send_message', body) : await this.#post(body);
      if (answer?.success) message.confirmed = answer.data;
      else if (answer) this.#note(answer.error);
      if (!message.confirmed) await sleep(this.random.between(100, 500));
    }
    return message;
  }

  async #post(body) {
    const node = this.random.pick(this.nodes);
    const headers = { authorization: `Bearer ${this.user.token}`, 'content-type': 'application/json' };
    try {
      const signal = AbortSignal.timeout(ACK_PATIENCE_MS);
      const response = await fetch(`${node.url}/api/messages`, { method: 'POST', headers, body: JSON.stringify(body), signal });
      return await response.json();
    } catch {
      return null;
    }
  }

  /** No error that a client may not retry, whatever breaks. */
  #note(error) {
    this.refusals.set(error.code, (this.refusals.get(error.code) ?? 0) + 1);
    const retryable = error.retryable ?? error.details?.retryable;
    if (retryable !== true) this.violations.push(`a send was refused for good: ${JSON.stringify(error)}`);
  }

  /** Waits until this is heard; answers whether it was. */
  hears(fits, timeoutMs) {
    return new Promise((resolve) => {
      const look = () => {
        if (!this.heard.some(fits)) return;
        finish(true);
      };
      const timer = setTimeout(() => finish(false), timeoutMs);
      const finish = (outcome) => {
        clearTimeout(timer);
        this.#waiters.delete(look);
        resolve(outcome);
      };
      this.#waiters.add(look);
      look();
    });
  }
}
