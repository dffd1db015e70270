// Two people talk over every kind of live connection: each event of contract 4.3 and 4.4 that the service has, to
// whom it goes and to whom it does not. One suite, held by all clients alike.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { DIALECTS } from './support/live_clients.mjs';
import { assertShape, MESSAGE, REFUSED_ACK } from './support/shapes.mjs';
import { onEachDatabase } from './support/world.mjs';

onEachDatabase('live', { concurrency: 2 }, (world) => {
  for (const [name, dialect] of Object.entries(DIALECTS)) {
    describe(name, { concurrency: 6 }, () => liveSuite(world, dialect));
  }
});

function liveSuite(world, dialect) {
  const connect = (user, options) => world.connect(dialect, user, options);
  const connectAll = (...users) => Promise.all(users.map((user) => connect(user)));

  it('says who one is, first of all', async () => {
    const { renter } = world.pair();
    const client = await connect(renter);
    const said = await client.inbox.next('authenticated');
    assert.equal(said.user_id, renter.id);
    assert.equal(said.user.id, renter.id);
    assert.equal(said.user.name, renter.name);
    assert.equal(client.inbox.events[0].event, 'authenticated');
  });

  it('carries a first message to every live connection of both users, once', async () => {
    const { renter, owner, product } = world.pair();
    const all = await connectAll(renter, renter, owner, owner, owner);
    const [sender, second, ...owners] = all;
    const content = world.text('Is it free on Friday?');

    const ack = await sender.call('send_message', {
      receiver_id: owner.id,
      product_id: product.id,
      content,
      client_message_id: 'first',
    });
    assert.equal(ack.success, true, JSON.stringify(ack));
    assertShape(ack.data, MESSAGE, 'the ack');
    const { id, conversation_id } = ack.data;
    assert.deepEqual([ack.data.sender_id, ack.data.content, ack.data.seq, ack.data.client_message_id], [renter.id, content, 1, 'first']);
    assert.equal(ack.data.sender.name, renter.name);

    for (const client of all) {
      const got = await client.inbox.next('message_received');
      assert.deepEqual([got.message.id, got.conversation_id, got.message.content], [id, conversation_id, content]);
    }
    const sent = await sender.inbox.next('message_sent');
    assert.deepEqual([sent.message_id, sent.message.id, sent.client_message_id], [id, id, 'first']);

    for (const client of all) {
      const receipt = await client.inbox.next('message_delivered');
      assert.deepEqual([receipt.message_ids, receipt.user_id, receipt.conversation_id], [[id], owner.id, conversation_id]);
    }
    for (const client of [sender, second]) {
      const { conversation } = await client.inbox.next('conversation_updated', (data) => data.conversation.last_message !== null);
      assert.deepEqual([conversation.id, conversation.current_user_id, conversation.other_user.id, conversation.unread_count], [conversation_id, renter.id, owner.id, 0]);
      assert.equal(conversation.product.id, product.id);
    }
    for (const client of owners) {
      const { conversation } = await client.inbox.next('conversation_updated', (data) => data.conversation.unread_count === 1);
      assert.deepEqual([conversation.current_user_id, conversation.other_user.id, conversation.other_user.name], [owner.id, renter.id, renter.name]);
      assert.equal((await client.inbox.next('unread_count', (data) => data.unread_count === 1)).unread_count, 1);
    }

    await sleep(500);
    for (const client of all) {
      assert.equal(client.inbox.all('message_received').length, 1);
      assert.equal(client.inbox.all('message_delivered').length, 1);
    }
    assert.equal(second.inbox.all('message_sent').length, 0, 'message_sent is for the sending connection only');
    assert.deepEqual(sender.inbox.all('error'), []);
  });

  it('confirms after the commit: what the ack tells, REST has', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const client = await connect(renter);
    const ack = await client.call('send_message', { conversation_id: conversationId, content: world.text() });
    const stored = (await renter.rest.allMessages(conversationId)).at(-1);
    assert.deepEqual([stored.id, stored.seq, stored.content, stored.created_at], [ack.data.id, ack.data.seq, ack.data.content, ack.data.created_at]);
  });

  it('marks as delivered only what reached somebody', async () => {
    const { renter, owner, conversationId, first } = await world.talkingPair();
    const sender = await connect(renter);
    assert.equal((await renter.rest.allMessages(conversationId))[0].status, 'sent');
    await connect(owner);
    const { body } = await owner.rest.expect(200, 'GET', `/api/conversations/${conversationId}/messages`);
    assert.equal(body.data[0].id, first.id);
    const receipt = await sender.inbox.next('message_delivered');
    assert.deepEqual([receipt.message_ids, receipt.user_id], [[first.id], owner.id]);
    assert.equal((await renter.rest.allMessages(conversationId))[0].status, 'delivered');
  });

  it('tells both users what was read, by ids and up to an id', async () => {
    const { renter, owner, conversationId, first } = await world.talkingPair();
    const [sender, reader, otherPhone] = await connectAll(renter, owner, owner);
    const second = (await sender.call('send_message', { conversation_id: conversationId, content: world.text() })).data;
    const third = (await sender.call('send_message', { conversation_id: conversationId, content: world.text() })).data;

    const ack = await reader.call('mark_read', { conversation_id: conversationId, message_ids: [first.id] });
    assert.equal(ack.success, true, JSON.stringify(ack));
    for (const client of [sender, reader, otherPhone]) {
      const read = await client.inbox.next('message_read');
      assert.deepEqual([read.message_ids, read.user_id, read.conversation_id], [[first.id], owner.id, conversationId]);
    }
    for (const client of [reader, otherPhone]) await client.inbox.next('unread_count', (data) => data.unread_count === 2);

    await reader.call('mark_read', { conversation_id: conversationId, up_to_id: third.id });
    for (const client of [sender, reader, otherPhone]) {
      const read = await client.inbox.next('message_read');
      assert.deepEqual(read.message_ids, [second.id, third.id]);
    }
    for (const client of [reader, otherPhone]) await client.inbox.next('unread_count', (data) => data.unread_count === 0);
    await reader.inbox.next('conversation_updated', (data) => data.conversation.unread_count === 0);

    const stored = await renter.rest.allMessages(conversationId);
    assert.ok(stored.every((message) => message.status === 'read' && message.is_read && message.read_at !== null));
    await sleep(300);
    assert.deepEqual(sender.inbox.all('unread_count', (data) => data.unread_count !== 0), [], 'the badge is the reader’s own');
  });

  it('reads no message of one’s own and says nothing twice', async () => {
    const { renter, owner, conversationId, first } = await world.talkingPair();
    const [sender, reader] = await connectAll(renter, owner);
    await sender.call('mark_read', { conversation_id: conversationId, message_ids: [first.id] });
    assert.equal((await renter.rest.allMessages(conversationId))[0].is_read, false);
    await reader.call('mark_read', { conversation_id: conversationId, message_ids: [first.id] });
    await reader.call('mark_read', { conversation_id: conversationId, message_ids: [first.id] });
    await sleep(400);
    assert.equal(sender.inbox.all('message_read').length, 1);
  });

  it('shows typing to the other user alone, and ends it by itself', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const [typist, ownPhone, watcher] = await connectAll(renter, renter, owner);
    const ack = await typist.call('typing', { conversation_id: conversationId, is_typing: true });
    assert.equal(ack.success, true, JSON.stringify(ack));
    const started = Date.now();
    const on = await watcher.inbox.next('user_typing');
    assert.deepEqual(on, { user_id: renter.id, conversation_id: conversationId, is_typing: true });
    const off = await watcher.inbox.next('user_typing', (data) => !data.is_typing, 9_000);
    assert.equal(off.user_id, renter.id);
    const lasted = Date.now() - started;
    assert.ok(lasted > 5_000, `typing ended after ${lasted} ms`);
    assert.deepEqual([...typist.inbox.all('user_typing'), ...ownPhone.inbox.all('user_typing')], []);
  });

  it('ends typing when told, and when the typist goes away', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const [typist, watcher] = await connectAll(renter, owner);
    typist.emit('typing', { conversation_id: conversationId, is_typing: true });
    typist.emit('typing', { conversation_id: conversationId, is_typing: false });
    await watcher.inbox.next('user_typing', (data) => data.is_typing);
    await watcher.inbox.next('user_typing', (data) => !data.is_typing, 3_000);
    await typist.call('typing', { conversation_id: conversationId, is_typing: true });
    await watcher.inbox.next('user_typing', (data) => data.is_typing);
    typist.close();
    await watcher.inbox.next('user_typing', (data) => !data.is_typing, 4_000);
  });

  it('tells presence to whom it concerns: online, away, offline with the time', async () => {
    const { renter, owner } = await world.talkingPair();
    const stranger = world.person('Sam Stranger');
    const [watcher, outsider] = await connectAll(owner, stranger);
    const of = (status) => (data) => data.user_id === renter.id && data.status === status;

    const phone = await connect(renter);
    assert.equal((await watcher.inbox.next('user_presence', of('online'))).last_seen, null);
    const ack = await phone.call('presence_update', { status: 'away' });
    assert.equal(ack.success, true, JSON.stringify(ack));
    await watcher.inbox.next('user_presence', of('away'));

    const laptop = await connect(renter);
    await watcher.inbox.next('user_presence', of('online'));
    laptop.close();
    phone.close();
    const left = Date.now();
    const gone = await watcher.inbox.next('user_presence', of('offline'), 12_000);
    assert.ok(Date.now() - left > 3_500, 'there is a grace of five seconds');
    assert.ok(Math.abs(Date.parse(gone.last_seen) - left) < 8_000, `last seen ${gone.last_seen}`);
    assert.deepEqual(outsider.inbox.all('user_presence', (data) => data.user_id === renter.id), []);
    const { body } = await owner.rest.expect(200, 'GET', '/api/conversations');
    assert.equal(body.data[0].other_user.status, 'offline');
    assert.notEqual(body.data[0].other_user.last_seen, null);
  });

  it('does not call somebody offline who comes back at once', async () => {
    const { renter, owner } = await world.talkingPair();
    const watcher = await connect(owner);
    const phone = await connect(renter);
    await watcher.inbox.next('user_presence', (data) => data.user_id === renter.id && data.status === 'online');
    phone.drop();
    await sleep(1_000);
    await connect(renter);
    await sleep(6_500);
    assert.deepEqual(watcher.inbox.all('user_presence', (data) => data.user_id === renter.id && data.status === 'offline'), []);
  });

  it('lets participants join and leave, and nobody else', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const stranger = world.person('Sam Stranger');
    const [client, outsider] = await connectAll(renter, stranger);
    assert.equal((await client.call('join_conversation', { conversation_id: conversationId })).success, true);
    assert.equal((await client.call('leave_conversation', { conversation_id: conversationId })).success, true);
    for (const [event, more] of [
      ['join_conversation', {}],
      ['typing', { is_typing: true }],
      ['mark_read', { message_ids: [1] }],
      ['send_message', { content: world.text() }],
    ]) {
      const ack = await outsider.call(event, { conversation_id: conversationId, ...more });
      assertShape(ack, REFUSED_ACK, event);
      assert.equal(ack.error.code, 'FORBIDDEN', event);
      const told = await outsider.inbox.next('error');
      assert.equal(told.code, 'FORBIDDEN', event);
      assert.equal(told.event, event);
    }
    const unknown = await outsider.call('join_conversation', { conversation_id: 999_999_999 });
    assert.equal(unknown.error.code, 'CONVERSATION_NOT_FOUND');
  });

  it('answers what it cannot do by ack and error event, and stays', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const client = await connect(renter);
    const cases = [
      ['fly_to_the_moon', {}, ['BAD_REQUEST', 'NOT_FOUND']],
      ['send_message', { conversation_id: conversationId }, ['VALIDATION_FAILED']],
      ['send_message', { conversation_id: conversationId, content: '   ' }, ['VALIDATION_FAILED']],
      ['send_message', { conversation_id: conversationId, content: 'x'.repeat(6_000) }, ['VALIDATION_FAILED']],
      ['send_message', { conversation_id: 'seven', content: world.text() }, ['VALIDATION_FAILED', 'BAD_REQUEST']],
      ['send_message', { content: world.text() }, ['VALIDATION_FAILED']],
      ['mark_read', { conversation_id: conversationId, message_ids: 'all' }, ['VALIDATION_FAILED', 'BAD_REQUEST']],
      ['typing', { conversation_id: conversationId, is_typing: 'yes' }, ['VALIDATION_FAILED', 'BAD_REQUEST']],
      ['presence_update', { status: 'sleeping' }, ['VALIDATION_FAILED']],
    ];
    for (const [event, data, codes] of cases) {
      const ack = await client.call(event, data);
      assertShape(ack, REFUSED_ACK, `${event} ${JSON.stringify(data).slice(0, 80)}`);
      assert.ok(codes.includes(ack.error.code), `${event}: ${JSON.stringify(ack)}`);
      assert.equal(ack.error.retryable, false);
      const told = await client.inbox.next('error');
      assert.equal(told.code, ack.error.code);
    }
    const refused = await client.call('send_message', { conversation_id: conversationId, content: '', client_message_id: 'mine' });
    assert.equal(refused.success, false);
    const told = await client.inbox.next('error');
    assert.deepEqual([told.event, told.client_message_id, told.conversation_id], ['send_message', 'mine', conversationId]);

    // Without an ack the error event is still there.
    client.emit('send_message', { conversation_id: conversationId, content: '' });
    await client.inbox.next('error');
    const ack = await client.call('send_message', { conversation_id: conversationId, content: world.text() });
    assert.equal(ack.success, true);
  });

  it('trusts nothing that a client says of itself', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const client = await connect(renter);
    const { data } = await client.call('send_message', {
      conversation_id: conversationId,
      content: world.text(),
      sender_id: owner.id,
      id: 1,
      seq: 99,
      is_read: true,
      status: 'read',
      created_at: '2001-01-01T00:00:00.000Z',
    });
    assert.deepEqual([data.sender_id, data.seq, data.is_read], [renter.id, 2, false]);
    assert.ok(data.created_at.startsWith(String(new Date().getUTCFullYear())));
  });

  it('keeps the order of 200 quick sends, once per connection, on five connections', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const all = await connectAll(renter, renter, owner, owner, owner);
    const contents = Array.from({ length: 200 }, (_, at) => world.text(`#${at}`));
    const acks = await Promise.all(contents.map((content) => all[0].call('send_message', { conversation_id: conversationId, content })));
    assert.deepEqual(acks.map((ack) => ack.data?.seq), contents.map((_, at) => at + 2));
    for (const client of all) {
      await eventually('all 200 arrived', () => client.inbox.all('message_received').length >= 200, 20_000);
    }
    await sleep(500);
    for (const client of all) {
      assert.deepEqual(client.inbox.all('message_received').map((data) => data.message.content), contents);
    }
    assert.deepEqual(all[0].inbox.all('message_sent').map((data) => data.message.seq), contents.map((_, at) => at + 2));
    const { body } = await owner.rest.expect(200, 'GET', '/api/conversations/unread/count');
    assert.equal(body.unread_count, 201);
  });

  for (const [where, how] of [
    ['since at the door', { since: true }],
    ['the sync event', {}],
  ]) {
    it(`gives exactly the missed events by ${where}`, async () => {
      const { renter, owner, conversationId } = await world.talkingPair();
      const [sender, before] = await connectAll(renter, owner);
      await sender.call('send_message', { conversation_id: conversationId, content: world.text('before') });
      await before.inbox.next('message_received');
      await before.inbox.next('message_delivered');
      await sleep(300);
      const seen = before.inbox.assertLogHasNoGap().at(-1);
      before.drop();
      await before.closed;
      await eventually('the service noticed', async () => {
        const { body } = await renter.rest.get(`/api/conversations/${conversationId}`);
        return body.data.other_user.status === 'offline';
      }, 12_000);

      const missed = [];
      for (let at = 0; at < 30; at++) missed.push((await sender.call('send_message', { conversation_id: conversationId, content: world.text(`${at}`) })).data.id);
      const after = await connect(owner, how.since ? { since: seen } : {});
      if (!how.since) {
        const ack = await after.call('sync', { since: seen });
        assert.equal(ack.success, true, JSON.stringify(ack));
        assert.equal(ack.data.has_more, false);
        assert.ok(ack.data.last_event_seq >= seen + 30);
        assert.equal(after.inbox.all('message_received').length, 30, 'the missed events come before the ack');
      }
      const live = (await sender.call('send_message', { conversation_id: conversationId, content: world.text('live') })).data.id;
      await after.inbox.next('message_received', (data) => data.message.id === live);
      await sleep(400);
      assert.deepEqual(after.inbox.all('message_received').map((data) => data.message.id), [...missed, live]);
      const seqs = after.inbox.assertLogHasNoGap();
      assert.equal(seqs[0], seen + 1);
      assert.equal(after.inbox.events[0].event, 'authenticated');
    });
  }

  it('answers authenticate by the same user, and refuses another, on a connection that has one', async () => {
    const { renter, owner } = world.pair();
    const client = await connect(renter);
    assert.equal((await client.call('authenticate', { token: renter.token })).success, true);
    const ack = await client.call('authenticate', { token: owner.token });
    assert.equal(ack.error.code, 'FORBIDDEN');
    assert.equal((await client.inbox.next('error')).code, 'FORBIDDEN');
    assert.equal((await client.call('presence_update', { status: 'online' })).success, true);
  });
}
