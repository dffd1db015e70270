// The machine's wall clock jumps an hour ahead and back under traffic: nothing is lost, repeated or out of order, nobody
// seems to go, limits lock nobody out, and who is logged out is cut off in time all the same.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { connectPlain } from './support/live_clients.mjs';
import { unmovable, WallClock } from './support/wall_clock.mjs';
import { onEachDatabase } from './support/world.mjs';

const HOUR = 3_600;
const TTL = 4;

describe('a clock that jumps', { skip: unmovable, concurrency: 1 }, () => {
  if (unmovable) return;
  const clock = new WallClock(mkdtempSync(join(tmpdir(), 'rented-clock-')));
  const env = { ...clock.env, REDIS_TTL: `${TTL}`, RATE_LIMIT_MESSAGES: '600', RATE_LIMIT_BURST: '20' };

  onEachDatabase('an hour ahead and back', { env, concurrency: 1 }, (world) => {
    /** The service's clock is so many seconds from ours. */
    const jump = async (seconds) => {
      clock.jump(seconds);
      await eventually(`the clock is ${seconds} s off`, async () => {
        const { body } = await world.person('Anybody').rest.get('/health');
        return Math.abs(Date.parse(body.meta.timestamp) - Date.now() - seconds * 1_000) < 10_000;
      });
    };

    it('loses, repeats and reorders nothing, and nobody seems to go', async () => {
      const { renter, owner, conversationId } = await world.talkingPair();
      const [writing, reading] = [await world.connect(connectPlain, renter), await world.connect(connectPlain, owner)];
      const stamps = [];
      const send = async (count) => {
        for (let number = 0; number < count; number++) {
          const message = { conversation_id: conversationId, content: world.text(), client_message_id: `${stamps.length}` };
          let ack;
          do {
            ack = await writing.call('send_message', message);
            // A bucket counts as empty after the clock was set back, and fills at its rate.
            if (ack.error?.code === 'RATE_LIMITED') await sleep(50);
          } while (ack.error?.code === 'RATE_LIMITED');
          assert.equal(ack.success, true, JSON.stringify(ack));
          stamps.push([ack.data.id, Date.parse(ack.data.created_at) - Date.now()]);
          await sleep(120);
        }
      };
      const until = Date.now() + 15_000;
      let seconds = 0;
      await send(5);
      for (const next of [HOUR, 0, -HOUR, 0]) {
        await jump((seconds = next));
        await send(10);
        assert.ok(Math.abs(stamps.at(-1)[1] - seconds * 1_000) < 10_000, 'a message bears the time of the clock');
      }
      while (Date.now() < until) await send(1);
      await reading.inbox.next('message_received', ({ message }) => message.id === stamps.at(-1)[0]);

      const stored = await renter.rest.allMessages(conversationId);
      assert.deepEqual(stored.map(({ seq }) => seq), stored.map((_, place) => place + 1));
      assert.deepEqual(stored.slice(1).map(({ id }) => id), stamps.map(([id]) => id), 'in the order in which they were sent');
      assert.deepEqual(reading.inbox.all('message_received').map(({ message }) => message.id), stamps.map(([id]) => id));
      const { body } = await owner.rest.expect(200, 'GET', `/api/conversations/${conversationId}/messages?limit=10`);
      const newest = body.data.map(({ seq }) => seq).sort((one, other) => one - other);
      assert.deepEqual(newest, stored.slice(-10).map(({ seq }) => seq), 'the newest page is the newest by place');
      assert.deepEqual(reading.inbox.all('user_presence', ({ status }) => status === 'offline'), [], 'nobody went');
      assert.deepEqual(writing.inbox.all('user_presence', ({ status }) => status === 'offline'), [], 'nobody went');
    });

    it('locks nobody out whose bucket was empty when it was set back', async () => {
      const { renter, owner } = await world.talkingPair();
      await jump(HOUR);
      const send = (number) => renter.rest.post('/api/messages', { receiver_id: owner.id, content: world.text(`${number}`) });
      const answers = await Promise.all(Array.from({ length: 60 }, (_, number) => send(number)));
      assert.ok(answers.some(({ status }) => status === 429), 'the bucket is empty');
      await jump(0);
      const began = Date.now();
      await eventually('a message is taken again', async () => (await send('again')).status === 201, 6_000);
      assert.ok(Date.now() - began < 6_000);
    });

    for (const seconds of [HOUR, -HOUR]) {
      it(`cuts off who is logged out, after ${seconds} s and back`, { timeout: 60_000 }, async () => {
        const user = world.person('Lena Left');
        await jump(Math.max(seconds, 0));
        const client = await world.connect(connectPlain, user);
        await jump(Math.min(seconds, 0));
        await sleep(1_500);
        const other = world.person('Still Here');
        const stays = await world.connect(connectPlain, other);
        world.mainApi.revoke(user.token);
        const began = Date.now();
        assert.equal((await client.closed).code, 4401);
        assert.ok(Date.now() - began < (TTL + 30) * 1_000, `${Date.now() - began} ms`);
        assert.equal((await stays.call('sync', { since: 0 })).success, true);
        await jump(0);
      });
    }
  });
});
