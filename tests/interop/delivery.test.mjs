// One conversation, one message, one order, however many clients of whatever kind push at once (contract 1 and 2).

import assert from 'node:assert/strict';
import { it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { DIALECTS } from './support/live_clients.mjs';
import { onEachDatabase } from './support/world.mjs';

onEachDatabase('delivery', {}, (world) => {
  /** One client of each kind. */
  const connectEach = (user) => Promise.all(Object.values(DIALECTS).map((dialect) => world.connect(dialect, user)));

  it('a hundred first messages at once, in both directions, make one conversation', async () => {
    const { renter, owner, product } = world.pair();
    const sides = [
      { from: renter, to: owner, clients: await connectEach(renter) },
      { from: owner, to: renter, clients: await connectEach(owner) },
    ];
    const sends = [];
    for (let at = 0; at < 100; at++) {
      const { from, to, clients } = sides[at % 2];
      const message = { receiver_id: to.id, product_id: product.id, content: world.text(`${at}`) };
      const client = clients[(at >> 1) % (clients.length + 1)];
      sends.push(client ? client.call('send_message', message) : from.rest.post('/api/messages', message).then(({ body }) => body));
    }
    const answers = await Promise.all(sends);
    assert.deepEqual(answers.filter((answer) => !answer.success), []);
    assert.equal(new Set(answers.map((answer) => answer.data.conversation_id)).size, 1);
    const seqs = answers.map((answer) => answer.data.seq).sort((a, b) => a - b);
    assert.deepEqual(seqs, Array.from({ length: 100 }, (_, at) => at + 1));
    for (const { from } of sides) {
      const { body } = await from.rest.expect(200, 'GET', '/api/conversations');
      assert.equal(body.data.length, 1);
      assert.equal(body.data[0].unread_count, 50);
    }
    for (const client of sides.flatMap((side) => side.clients)) {
      await eventually('all arrived', () => client.inbox.all('message_received').length === 100);
      assert.deepEqual(client.inbox.all('message_received').map((data) => data.message.seq), seqs, 'everybody sees one order');
    }
  });

  it('another product, or none, is another conversation; none is one like any other', async () => {
    const { renter, owner, product } = world.pair();
    const other = world.mainApi.addProduct(owner, { title: 'Drill' });
    const send = async (from, to, product_id) =>
      (await from.rest.expect(201, 'POST', '/api/messages', { body: { recipient_id: to.id, product_id, content: world.text() } })).body.data.conversation_id;
    const ids = await Promise.all([send(renter, owner, product.id), send(owner, renter, product.id), send(renter, owner, other.id)]);
    const without = await Promise.all([send(renter, owner), send(owner, renter), send(renter, owner, null)]);
    assert.equal(ids[0], ids[1]);
    assert.equal(new Set(without).size, 1);
    assert.equal(new Set([...ids, ...without]).size, 3);
  });

  it('the same client_message_id a hundred times at once makes one message', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const clients = await connectEach(renter);
    const watchers = await connectEach(owner);
    const message = { conversation_id: conversationId, content: world.text('once'), client_message_id: 'the-only-one' };
    const overRest = [];
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, at) => {
        const client = clients[at % (clients.length + 1)];
        if (client) return client.call('send_message', message);
        return renter.rest.expect(201, 'POST', '/api/messages', { body: message }).then(({ body, headers }) => {
          overRest.push(headers.get('idempotent-replayed'));
          return body;
        });
      }),
    );
    assert.equal(new Set(answers.map((answer) => answer.data.id)).size, 1);
    assert.equal((await renter.rest.allMessages(conversationId)).length, 2);
    assert.ok(overRest.filter((replayed) => replayed === 'true').length >= overRest.length - 1);
    await sleep(500);
    for (const client of [...clients, ...watchers]) assert.equal(client.inbox.all('message_received').length, 1);
    for (const client of clients) assert.equal(client.inbox.all('message_sent').length, 20, 'each resend is confirmed to its own connection');
    for (const client of watchers) assert.equal(client.inbox.all('message_sent').length, 0);
    const { body } = await owner.rest.expect(200, 'GET', '/api/conversations/unread/count');
    assert.equal(body.unread_count, 2);
  });

  it('a replay is 201 with the original and Idempotent-Replayed; another body under the same id is 409', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const body = { conversation_id: conversationId, content: world.text('original'), client_message_id: 'again' };
    const first = await renter.rest.expect(201, 'POST', '/api/messages', { body });
    assert.equal(first.headers.get('idempotent-replayed'), null);
    const second = await renter.rest.expect(201, 'POST', '/api/messages', { body });
    assert.equal(second.headers.get('idempotent-replayed'), 'true');
    assert.equal(second.body.data.id, first.body.data.id);
    await renter.rest.refused(409, 'CONFLICT', 'POST', '/api/messages', { body: { ...body, content: world.text('other') } });
    // The id is the sender's own: the same one of somebody else is another message.
    const others = await owner.rest.expect(201, 'POST', '/api/messages', { body });
    assert.notEqual(others.body.data.id, first.body.data.id);
  });

  it('REST and live are one path: a message sent by REST reaches every live connection', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const clients = [...(await connectEach(renter)), ...(await connectEach(owner))];
    const { body } = await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } });
    for (const client of clients) {
      const got = await client.inbox.next('message_received');
      assert.equal(got.message.id, body.data.id);
    }
    await owner.rest.expect(200, 'POST', `/api/conversations/${conversationId}/read`);
    for (const client of clients) {
      const read = await client.inbox.next('message_read');
      assert.equal(read.user_id, owner.id);
      assert.ok(read.message_ids.includes(body.data.id));
    }
  });

  it('every user’s log has the same numbers on all their connections', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const clients = await connectEach(owner);
    for (let at = 0; at < 5; at++) await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } });
    for (const client of clients) await eventually('five arrived', () => client.inbox.all('message_received').length === 5);
    const numbers = clients.map((client) => client.inbox.all('message_received').map((data) => [data.event_seq, data.message.id]));
    for (const own of numbers) assert.deepEqual(own, numbers[0]);
  });
});
