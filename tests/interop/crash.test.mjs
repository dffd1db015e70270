// kill -9 in the middle of sending, ten times: everything confirmed is there exactly once, `seq` has no gap, and a
// listener that comes back with `since` has every event exactly once (contract 3.1 and 4.5).

import assert from 'node:assert/strict';
import { it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { connectPlain, DIALECTS } from './support/live_clients.mjs';
import { onEachDatabase } from './support/world.mjs';

const KILLS = 10;
const WINDOW = 10;

/** Sends until told to stop, resending with the same `client_message_id` until each message is confirmed. */
class StubbornSender {
  confirmed = new Map();
  #next = 0;
  #stopping = false;

  constructor(world, dialect, user, conversationId) {
    Object.assign(this, { world, dialect, user, conversationId });
    this.done = this.#run();
  }

  stop() {
    this.#stopping = true;
    return this.done;
  }

  async #run() {
    let pending = [];
    while (pending.length > 0 || !this.#stopping) {
      const client = await this.dialect(this.world.service, this.user.token).catch(() => null);
      if (!client) {
        await sleep(30);
        continue;
      }
      let lost = false;
      while (!lost && (pending.length > 0 || !this.#stopping)) {
        while (!this.#stopping && pending.length < WINDOW) pending.push(this.#compose());
        const answers = await Promise.all(pending.map((message) => client.call('send_message', message).catch(() => null)));
        const left = [];
        answers.forEach((ack, at) => {
          if (ack?.success) this.#confirm(pending[at], ack.data);
          else {
            if (ack) assert.equal(ack.error.retryable, true, JSON.stringify(ack));
            else lost = true;
            left.push(pending[at]);
          }
        });
        pending = left;
      }
      client.close();
    }
  }

  #compose() {
    const client_message_id = `${this.user.id}-${this.#next++}`;
    return { conversation_id: this.conversationId, content: this.world.text(client_message_id), client_message_id };
  }

  #confirm(message, stored) {
    assert.equal(stored.content, message.content);
    this.confirmed.set(message.client_message_id, { id: stored.id, content: stored.content });
  }
}

/** Listens through all restarts, coming back with `since`; keeps every stored event it got. */
class StubbornListener {
  received = [];
  #stopping = false;

  constructor(world, user) {
    Object.assign(this, { world, user });
    this.done = this.#run();
  }

  get since() {
    return this.received.at(-1)?.event_seq ?? 0;
  }

  stop() {
    this.#stopping = true;
    this.client?.close();
    return this.done;
  }

  async #run() {
    while (!this.#stopping) {
      this.client = await connectPlain(this.world.service, this.user.token, { since: this.since }).catch(() => null);
      if (!this.client) {
        await sleep(30);
        continue;
      }
      await this.client.closed;
      for (const { data } of this.client.inbox.events) if (data.event_seq !== undefined) this.received.push(data);
    }
  }
}

onEachDatabase('kill -9 in the middle of sending', { survives: false }, (world) => {
  it(`loses nothing, repeats nothing, leaves no gap, ${KILLS} times over`, { timeout: 240_000 }, async () => {
    const pairs = await Promise.all([world.talkingPair(), world.talkingPair()]);
    const dialects = Object.values(DIALECTS);
    const senders = pairs.flatMap(({ renter, owner, conversationId }, at) => [
      new StubbornSender(world, dialects[at], renter, conversationId),
      new StubbornSender(world, dialects.at(-1 - at), owner, conversationId),
    ]);
    const listeners = pairs.map(({ owner }) => new StubbornListener(world, owner));
    const total = () => senders.reduce((sum, sender) => sum + sender.confirmed.size, 0);

    for (let kill = 0; kill < KILLS; kill++) {
      const before = total();
      await eventually('messages are confirmed again', () => total() > before + 20, 30_000);
      await sleep(Math.random() * 150);
      const exit = await world.service.end('SIGKILL');
      assert.equal(exit.signal, 'SIGKILL', 'it was alive until then');
      await world.service.start();
    }
    await Promise.all(senders.map((sender) => sender.stop()));

    for (const [at, { renter, owner, conversationId }] of pairs.entries()) {
      const stored = await renter.rest.allMessages(conversationId);
      assert.deepEqual(stored.map((message) => message.seq), stored.map((_, place) => place + 1), 'seq has no gap');
      const own = senders.slice(at * 2, at * 2 + 2);
      const confirmed = new Map(own.flatMap((sender) => [...sender.confirmed]));
      // Each sender resends until it is told, so in the end everything stored was confirmed.
      assert.equal(stored.length, confirmed.size + 1);
      for (const message of stored.slice(1)) {
        assert.deepEqual({ id: message.id, content: message.content }, confirmed.get(message.client_message_id));
      }
      const [mine, theirs] = await Promise.all([renter, owner].map((user) => user.rest.expect(200, 'GET', '/api/conversations/unread/count')));
      assert.equal(mine.body.unread_count, stored.filter((message) => message.sender_id === owner.id).length);
      assert.equal(theirs.body.unread_count, stored.filter((message) => message.sender_id === renter.id).length);

      const listener = listeners[at];
      await eventually('the listener has caught up', () => {
        const got = listener.client?.inbox.all('message_received') ?? [];
        return [...listener.received, ...got].some((data) => data.message?.seq === stored.length);
      }, 20_000);
      await listener.stop();
      const seqs = listener.received.map((data) => data.event_seq);
      assert.deepEqual(seqs, seqs.map((_, place) => place + 1), 'every event once, without a gap, over all restarts');
      const messages = listener.received.filter((data) => data.message && data.event_seq && 'seq' in data.message).map((data) => data.message.id);
      assert.deepEqual(messages, stored.map((message) => message.id));
    }
  });
});
