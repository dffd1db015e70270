// What a live connection received: in order, each event once, to be waited for by name and content.

import assert from 'node:assert/strict';

export class Inbox {
  #waiting = new Set();
  #taken = new Set();
  /** All events so far: `{event, data}`. */
  events = [];

  push(event, data) {
    this.events.push({ event, data });
    for (const waiter of [...this.#waiting]) waiter();
  }

  /** The data of the next such event that no earlier call took. */
  next(event, where = () => true, timeoutMs = 8_000) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const index = this.events.findIndex((entry, at) => !this.#taken.has(at) && entry.event === event && where(entry.data));
        if (index < 0) return;
        this.#taken.add(index);
        finish(resolve, this.events[index].data);
      };
      const timer = setTimeout(() => {
        const seen = this.events.map((entry) => entry.event).slice(-30).join(', ');
        finish(reject, new Error(`no such ${event} within ${timeoutMs} ms; got: ${seen || 'nothing'}`));
      }, timeoutMs);
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        settle(value);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** The data of all such events so far. */
  all(event, where = () => true) {
    return this.events.filter((entry) => entry.event === event && where(entry.data)).map((entry) => entry.data);
  }

  /** Fails if stored events came twice, out of order or with a gap (contract 4.5). */
  assertLogHasNoGap() {
    const seqs = this.events.map((entry) => entry.data?.event_seq).filter((seq) => seq !== undefined);
    seqs.forEach((seq, at) => {
      if (at > 0) assert.equal(seq, seqs[at - 1] + 1, `event_seq after ${seqs[at - 1]}; all: ${seqs}`);
    });
    return seqs;
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `check` returns something true, and returns it. */
export async function eventually(what, check, timeoutMs = 8_000) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(50);
  }
}
