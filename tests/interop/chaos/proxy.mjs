// The way from one node to one server, which can be held up (nothing comes through, nothing is refused) or cut
// (connections are reset and refused): a node that is cut off while the others are not.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Proxy {
  #pairs = new Set();
  #held = false;
  #cut = false;

  static async to(port) {
    const proxy = new Proxy();
    proxy.target = port;
    proxy.server = createServer((near) => proxy.#carry(near)).listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  hold() {
    this.#held = true;
    for (const [near, far] of this.#pairs) [near, far].forEach((end) => end.pause());
  }

  cut() {
    this.#cut = true;
    for (const [near, far] of this.#pairs) [near, far].forEach((end) => end.resetAndDestroy());
  }

  restore() {
    this.#held = false;
    this.#cut = false;
    for (const [near, far] of this.#pairs) [near, far].forEach((end) => end.resume());
  }

  close() {
    this.cut();
    this.server.close();
  }

  #carry(near) {
    near.on('error', () => {});
    if (this.#cut) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(this.target, '127.0.0.1');
    far.on('error', () => near.resetAndDestroy());
    const pair = [near, far];
    this.#pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('data', (bytes) => {
        if (!to.write(bytes)) {
          from.pause();
          to.once('drain', () => this.#held || from.resume());
        }
      });
      from.on('close', () => {
        this.#pairs.delete(pair);
        to.destroy();
      });
    }
    if (this.#held) pair.forEach((end) => end.pause());
  }
}
