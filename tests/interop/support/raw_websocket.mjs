// A WebSocket client made of bytes, for what no well-behaved library would send: half frames, bad UTF-8, wrong masks,
// a raw `|` in the address.

import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

export class RawWebSocket {
  #bytes = Buffer.alloc(0);
  #wake = () => {};
  ended = false;

  /** Opens a connection and does the handshake; `head` is the whole answer up to the empty line. */
  static async open(port, path, headers = {}) {
    const client = new RawWebSocket();
    client.socket = connect(port, '127.0.0.1');
    client.socket.on('data', (chunk) => {
      client.#bytes = Buffer.concat([client.#bytes, chunk]);
      client.#wake();
    });
    for (const event of ['end', 'close', 'error']) {
      client.socket.on(event, () => {
        client.ended = true;
        client.#wake();
      });
    }
    const lines = [
      `GET ${path} HTTP/1.1`,
      `Host: 127.0.0.1:${port}`,
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      'Sec-WebSocket-Version: 13',
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ];
    client.socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    client.head = await client.#take(() => {
      const end = client.#bytes.indexOf('\r\n\r\n');
      return end < 0 ? null : [client.#bytes.subarray(0, end).toString(), end + 4];
    });
    client.status = Number(client.head?.split(' ')[1] ?? 0);
    return client;
  }

  sendBytes(bytes) {
    this.socket.write(bytes);
  }

  send(opcode, payload, options) {
    this.sendBytes(frame(opcode, payload, options));
  }

  sendEvent(event, data, ref) {
    this.send(TEXT, JSON.stringify({ event, data, ref }));
  }

  /** The next frame `{opcode, payload}`, or null once the connection has ended. */
  nextFrame(timeoutMs) {
    return this.#take(() => {
      const bytes = this.#bytes;
      if (bytes.length < 2) return null;
      let length = bytes[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (bytes.length < 4) return null;
        length = bytes.readUInt16BE(2);
        at = 4;
      } else if (length === 127) {
        if (bytes.length < 10) return null;
        length = Number(bytes.readBigUInt64BE(2));
        at = 10;
      }
      if (bytes.length < at + length) return null;
      return [{ opcode: bytes[0] & 0x0f, payload: Buffer.from(bytes.subarray(at, at + length)) }, at + length];
    }, timeoutMs);
  }

  /** Reads on until this event comes; null if the connection ends before. */
  async nextEvent(event, timeoutMs) {
    for (;;) {
      const got = await this.nextFrame(timeoutMs);
      if (got === null || got.opcode === CLOSE) return null;
      if (got.opcode !== TEXT) continue;
      const said = JSON.parse(got.payload.toString());
      if (said.event === event) return said.data;
    }
  }

  /** Reads to the end: the texts on the way and the close code (null when there was none). */
  async untilSocketEnds(timeoutMs = 8_000) {
    const texts = [];
    let code = null;
    for (;;) {
      const got = await this.nextFrame(timeoutMs);
      if (got === null) return { texts, code };
      if (got.opcode === TEXT) texts.push(got.payload.toString());
      if (got.opcode === CLOSE) {
        code = got.payload.length >= 2 ? got.payload.readUInt16BE(0) : null;
        this.socket.end();
      }
    }
  }

  /** The same in the plain dialect: its events and the close code. */
  async untilClosed(timeoutMs) {
    const { texts, code } = await this.untilSocketEnds(timeoutMs);
    return { events: texts.map((text) => JSON.parse(text)), code };
  }

  destroy() {
    this.socket.destroy();
  }

  async #take(parse, timeoutMs = 10_000) {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const found = parse();
      if (found) {
        this.#bytes = this.#bytes.subarray(found[1]);
        return found[0];
      }
      if (this.ended) return null;
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`nothing came within ${timeoutMs} ms`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
    }
  }
}

/** One frame as a client sends it: masked, whole, no reserved bits, unless told otherwise. */
export function frame(opcode, payload, { fin = true, masked = true, reserved = 0, length } = {}) {
  const body = Buffer.from(payload);
  const claimed = length ?? body.length;
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode];
  const maskBit = masked ? 0x80 : 0;
  if (claimed < 126) head.push(maskBit | claimed);
  else if (claimed < 65_536) head.push(maskBit | 126, claimed >> 8, claimed & 0xff);
  else {
    const wide = Buffer.alloc(8);
    wide.writeBigUInt64BE(BigInt(claimed));
    head.push(maskBit | 127, ...wide);
  }
  if (!masked) return Buffer.concat([Buffer.from(head), body]);
  const mask = randomBytes(4);
  const hidden = Buffer.from(body.map((byte, at) => byte ^ mask[at & 3]));
  return Buffer.concat([Buffer.from(head), mask, hidden]);
}
