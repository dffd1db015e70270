// Live connections of every kind behind one face, so that one suite holds for all of them:
// `call` (an event and its ack), `emit`, `inbox`, `close`, `closed`.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';

import { Inbox } from './inbox.mjs';

const ANSWER_MS = 15_000;

/** How each kind of client connects: `connect(service, token, {via, since, origin})`. */
export const DIALECTS = {
  'Socket.IO over WebSocket': (service, token, options) => connectSocketIo(service, token, { ...options, transports: ['websocket'] }),
  'Socket.IO over polling': (service, token, options) => connectSocketIo(service, token, { ...options, transports: ['polling'] }),
  'Socket.IO upgrading': (service, token, options) => connectSocketIo(service, token, { ...options, transports: ['polling', 'websocket'] }),
  'plain WebSocket': connectPlain,
};

/** A refusal at the door: Socket.IO's CONNECT_ERROR, or the plain dialect's `error` event and close code. */
export class Refused extends Error {
  constructor(message, { code, data, closeCode } = {}) {
    super(message);
    Object.assign(this, { code, data, closeCode });
  }
}

/**
 * `socket.io-client`. `via`: where the token travels: `payload` (default), `header`, `query`, or `nowhere`, which
 * connects without one. `since` goes into the CONNECT payload, or into the query with `sinceInQuery`.
 */
export function connectSocketIo(service, token, { via = 'payload', since, sinceInQuery, transports, origin, options = {} } = {}) {
  const auth = {};
  const query = {};
  const extraHeaders = origin ? { Origin: origin } : {};
  if (via === 'payload') auth.token = token;
  if (via === 'query') query.token = token;
  if (via === 'header') extraHeaders.Authorization = `Bearer ${token}`;
  if (since !== undefined) (sinceInQuery ? query : auth).since = since;
  const socket = io(service.url, { auth, query, extraHeaders, transports, forceNew: true, reconnection: false, timeout: ANSWER_MS, ...options });
  const client = new SocketIoClient(socket);
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(client));
    // The transport may end between its own handshake and the answer to CONNECT; that is no connect_error.
    socket.once('disconnect', (reason) => reject(new Refused(`closed before the answer to CONNECT: ${reason}`)));
    socket.once('connect_error', (error) => {
      socket.close();
      reject(new Refused(error.message, { code: error.data?.code, data: error.data }));
    });
  });
}

class SocketIoClient {
  inbox = new Inbox();

  constructor(socket) {
    this.socket = socket;
    socket.onAny((event, ...args) => {
      if (args.length !== 1 || typeof args[0] !== 'object' || args[0] === null) {
        this.inbox.push('(malformed)', { event, args });
      } else {
        this.inbox.push(event, args[0]);
      }
    });
    this.closed = new Promise((resolve) => socket.once('disconnect', (reason) => resolve({ reason })));
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  emit(event, data) {
    this.socket.emit(event, data);
  }

  call(event, data) {
    return new Promise((resolve, reject) => {
      this.socket.timeout(ANSWER_MS).emit(event, data, (error, ...args) => {
        if (error) reject(new Error(`no ack of ${event}`));
        else if (args.length !== 1) reject(new Error(`the ack of ${event} has ${args.length} arguments`));
        else resolve(args[0]);
      });
      this.socket.once('disconnect', (reason) => reject(new Error(`closed before the ack of ${event}: ${reason}`)));
    });
  }

  close() {
    this.socket.close();
  }

  /** The network goes away: no farewell packet, no close handshake. */
  drop() {
    const transport = this.socket.io.engine.transport;
    if (transport.ws) transport.ws.terminate();
    else this.socket.io.engine.close();
  }
}

/** `ws` speaking the plain dialect. `via`: `query` (default), `header`, or `nowhere`. */
export function connectPlain(service, token, { via = 'query', since, origin, path = '/', waitForUser = via !== 'nowhere' } = {}) {
  const query = new URLSearchParams();
  if (via === 'query') query.set('token', token);
  if (since !== undefined) query.set('since', since);
  const headers = via === 'header' ? { Authorization: `Bearer ${token}` } : {};
  const socket = new WebSocket(`${service.wsUrl}${path}?${query}`, { headers, origin, handshakeTimeout: ANSWER_MS });
  const client = new PlainClient(socket);
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('unexpected-response', (_, response) => reject(new Refused(`HTTP ${response.statusCode}`, { code: response.statusCode })));
    socket.once('open', () => {
      if (!waitForUser) return resolve(client);
      client.closed.then(({ code }) => {
        const said = client.inbox.all('error')[0];
        reject(new Refused(said?.message ?? 'closed without a word', { code: said?.code, closeCode: code, data: said }));
      });
      client.until('authenticated', () => resolve(client));
    });
  });
}

class PlainClient {
  inbox = new Inbox();
  #acks = new Map();
  #watchers = [];
  #ref = 0;

  constructor(socket) {
    this.socket = socket;
    socket.on('message', (bytes, binary) => this.#read(bytes, binary));
    this.closed = new Promise((resolve) => socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() })));
    this.closed.then(({ code }) => {
      for (const { reject, event } of this.#acks.values()) reject(new Error(`closed (${code}) before the ack of ${event}`));
    });
  }

  until(event, then) {
    this.#watchers.push({ event, then });
  }

  emit(event, data) {
    this.socket.send(JSON.stringify({ event, data }));
  }

  call(event, data) {
    const ref = `r${++this.#ref}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ack of ${event}`)), ANSWER_MS);
      this.#acks.set(ref, {
        event,
        resolve: (answer) => (clearTimeout(timer), resolve(answer)),
        reject: (error) => (clearTimeout(timer), reject(error)),
      });
      this.socket.send(JSON.stringify({ event, data, ref }));
    });
  }

  close() {
    this.socket.close();
  }

  drop() {
    this.socket.terminate();
  }

  #read(bytes, binary) {
    assert.equal(binary, false, 'the server sends text frames only');
    const frame = JSON.parse(bytes.toString());
    if (frame.event === 'ack') {
      this.#acks.get(frame.ref)?.resolve(frame.data);
      this.#acks.delete(frame.ref);
      return;
    }
    const proper = typeof frame.event === 'string' && typeof frame.data === 'object' && frame.data !== null;
    this.inbox.push(proper ? frame.event : '(malformed)', proper ? frame.data : frame);
    for (const watcher of this.#watchers) if (watcher.event === frame.event) watcher.then(frame.data);
  }
}
