// The Flutter app's day, as its services would live it: the list, the chat, the live channel, and what it says when
// something is refused (contract sections 1, 2 and 4.2).

import assert from 'node:assert/strict';
import { it } from 'node:test';

import { ApiError, ConversationService, MessageService, WebSocketService } from './support/flutter_app.mjs';
import { eventually } from './support/inbox.mjs';
import { assertShape, CONVERSATION, MESSAGE, PAGE_META } from './support/shapes.mjs';
import { onEachDatabase } from './support/world.mjs';

onEachDatabase('the Flutter app', { concurrency: 4 }, (world) => {
  const app = (user) => ({
    conversations: new ConversationService(world.service.url, user.token),
    messages: new MessageService(world.service.url, user.token),
    live: new WebSocketService(world.service.wsUrl, user.token),
  });

  it('sends a first message, sees it in the list and in the chat', async () => {
    const { renter, owner, product } = world.pair();
    const [mine, theirs] = [app(renter), app(owner)];
    const content = world.text('Hello!');
    const sent = await mine.messages.sendMessage({ receiverId: owner.id, productId: product.id, content });
    assert.deepEqual([sent.sender.id, sent.content, sent.type], [renter.id, content, 'text']);

    const [own] = await mine.conversations.getConversations();
    assert.deepEqual([own.current_user_id, own.other_user.id, own.other_user.name, own.unread_count], [renter.id, owner.id, owner.name, 0]);
    assert.deepEqual([own.product.id, own.product.title, own.product.price_per_day], [product.id, product.title, 12.5]);
    assert.equal(own.product.thumbnail, own.product.thumbnail_url);
    assert.equal(own.product.images.length, 2);

    const [other] = await theirs.conversations.getConversations();
    assert.deepEqual([other.id, other.current_user_id, other.unread_count], [own.id, owner.id, 1]);
    assert.deepEqual([other.last_message.id, other.last_message.sender_id, other.last_message.content, other.last_message.is_read], [sent.id, renter.id, content, false]);
    assert.equal(await theirs.conversations.getUnreadCount(), 1);
    assert.equal(await mine.conversations.getUnreadCount(), 0);

    const chat = await theirs.conversations.getConversationMessages(own.id);
    assert.deepEqual(chat.map((message) => message.id), [sent.id]);
    await theirs.conversations.markConversationAsRead(own.id);
    assert.equal(await theirs.conversations.getUnreadCount(), 0);
    const [seen] = await mine.conversations.getConversationMessages(own.id);
    assert.deepEqual([seen.is_read, seen.status], [true, 'read']);
    const again = await theirs.conversations.getConversation(own.id);
    assert.equal(again.unread_count, 0);
  });

  it('chats live: authenticate behind the handshake, join, presence, typing, messages, receipts', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const [mine, theirs] = [app(renter).live, app(owner).live];
    for (const live of [mine, theirs]) {
      await live.connect();
      live.joinConversation(conversationId);
      live.updatePresence('online');
    }
    await mine.inbox.next('authenticated');
    await theirs.inbox.next('authenticated');

    mine.sendTyping(conversationId, true);
    assert.deepEqual(await theirs.inbox.next('user_typing'), { user_id: renter.id, conversation_id: conversationId, is_typing: true });
    mine.sendTyping(conversationId, false);
    assert.equal((await theirs.inbox.next('user_typing')).is_typing, false);

    const content = world.text('Friday?');
    mine.sendMessage(conversationId, content);
    // The app shows its own message from this event too.
    const shown = await mine.inbox.next('message_received');
    const arrived = await theirs.inbox.next('message_received');
    assert.deepEqual([shown.message.id, shown.conversation_id, arrived.message.content], [arrived.message.id, conversationId, content]);
    assert.equal((await mine.inbox.next('message_sent')).message_id, shown.message.id);

    theirs.markRead(conversationId, [shown.message.id]);
    const read = await mine.inbox.next('message_read');
    assert.deepEqual([read.message_ids, read.conversation_id, read.user_id], [[shown.message.id], conversationId, owner.id]);
    await mine.inbox.next('user_presence', (data) => data.user_id === owner.id);
    assert.deepEqual([...mine.inbox.all('error'), ...theirs.inbox.all('error')], []);
    mine.disconnect();
    theirs.disconnect();
    // The app's close frame carries no code; it is answered in kind or with "normal".
    assert.ok([1000, 1005].includes(await mine.closed));
  });

  it('comes back after the network was away and misses nothing', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const live = app(owner).live;
    await live.connect();
    await live.inbox.next('authenticated');
    const sent = [];
    for (let at = 0; at < 3; at++) sent.push(await app(renter).messages.sendMessage({ conversationId, content: world.text() }));
    await eventually('three arrived', () => live.inbox.all('message_received').length === 3);
    live.socket.terminate();
    for (let at = 0; at < 3; at++) sent.push(await app(renter).messages.sendMessage({ conversationId, content: world.text() }));
    const back = app(owner).live;
    await back.connect();
    await back.inbox.next('authenticated');
    const chat = await app(owner).conversations.getConversationMessages(conversationId);
    assert.deepEqual(chat.slice(-6).map((message) => message.id), sent.map((message) => message.id));
  });

  it('shows the first error of a field, or the message', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const failure = (promise) => promise.then(assert.fail, (error) => error);
    const empty = await failure(app(renter).messages.sendMessage({ conversationId, content: '' }));
    assert.ok(empty instanceof ApiError, empty.stack);
    assert.equal(empty.statusCode, 422);
    assert.ok(empty.errors.content, 'errors names the field');
    assert.equal(empty.firstError, empty.errors.content[0]);

    const stranger = world.person('Sam Stranger');
    const foreign = await failure(app(stranger).conversations.getConversation(conversationId));
    assert.equal(foreign.statusCode, 403);
    const unknown = await failure(app(owner).conversations.getConversation(999_999_999));
    assert.equal(unknown.statusCode, 404);
    const nobody = await failure(app({ token: '1|wrong' }).conversations.getUnreadCount());
    assert.deepEqual([nobody.statusCode, nobody.errors], [401, null]);
  });

  it('validates a token, enveloped and flat; a wrong one is valid:false', async () => {
    const { renter } = world.pair();
    const { rest } = world.person('Somebody Else');
    const good = await rest.expect(200, 'POST', '/auth/validate-token', { body: { token: renter.token }, headers: { Authorization: null } });
    for (const answer of [good.body, good.body.data]) {
      assert.deepEqual([answer.valid, answer.user_id, answer.user.id, answer.user.name], [true, renter.id, renter.id, renter.name]);
    }
    const bad = await rest.expect(200, 'POST', '/auth/validate-token', { body: { token: '1|wrong' } });
    for (const answer of [bad.body, bad.body.data]) assert.equal(answer.valid, false);
    await rest.refused(422, 'VALIDATION_FAILED', 'POST', '/auth/validate-token', { body: {} });
  });

  it('pages conversations, newest activity first', async () => {
    const renter = world.person('Rita Renter');
    const conversationIds = [];
    for (let at = 0; at < 5; at++) {
      const owner = world.person(`Owner ${at}`);
      const product = world.mainApi.addProduct(owner);
      const { body } = await renter.rest.expect(201, 'POST', '/api/messages', { body: { receiver_id: owner.id, product_id: product.id, content: world.text() } });
      conversationIds.unshift(body.data.conversation_id);
    }
    const first = await renter.rest.expect(200, 'GET', '/api/conversations?page=1&limit=2');
    assertShape(first.body.meta, PAGE_META);
    assert.deepEqual(first.body.data.map((conversation) => conversation.id), conversationIds.slice(0, 2));
    assert.deepEqual(pick(first.body.meta), [1, 2, 5, 3, true]);
    const last = await renter.rest.expect(200, 'GET', '/api/conversations?page=3&limit=2');
    assert.deepEqual(last.body.data.map((conversation) => conversation.id), conversationIds.slice(4));
    assert.equal(last.body.meta.has_more, false);
    const beyond = await renter.rest.expect(200, 'GET', '/api/conversations?page=9&limit=2');
    assert.deepEqual(beyond.body.data, []);
    const clamped = await renter.rest.expect(200, 'GET', '/api/conversations?limit=5000');
    assert.equal(clamped.body.meta.per_page, 200);
    assert.equal((await renter.rest.expect(200, 'GET', '/api/conversations')).body.meta.per_page, 100);
    for (const query of ['page=0', 'limit=0', 'limit=-1', 'page=1.5', 'page=two']) {
      await renter.rest.refused(422, 'VALIDATION_FAILED', 'GET', `/api/conversations?${query}`);
    }
    await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationIds[4], content: world.text() } });
    const moved = await renter.rest.expect(200, 'GET', '/api/conversations?limit=1');
    assert.equal(moved.body.data[0].id, conversationIds[4]);
  });

  it('pages messages: page 1 is the newest window, oldest first inside; keysets reach the rest', async () => {
    const { renter, conversationId } = await world.talkingPair();
    for (let at = 2; at <= 12; at++) await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } });
    const seqs = async (query) => {
      const { body } = await renter.rest.expect(200, 'GET', `/api/conversations/${conversationId}/messages?${query}`);
      return body.data.map((message) => message.seq);
    };
    assert.deepEqual(await seqs('page=1&limit=5'), [8, 9, 10, 11, 12]);
    assert.deepEqual(await seqs('page=2&limit=5'), [3, 4, 5, 6, 7]);
    assert.deepEqual(await seqs('page=3&limit=5'), [1, 2]);
    assert.deepEqual(await seqs('page=4&limit=5'), []);
    assert.deepEqual(await seqs('before=8&limit=3'), [5, 6, 7]);
    assert.deepEqual(await seqs('after=8&limit=3'), [9, 10, 11]);
    assert.deepEqual(await seqs('after=12'), []);
    const around = await seqs('around=6&limit=5');
    assert.ok(around.includes(6) && around.length === 5, String(around));
    const { body } = await renter.rest.expect(200, 'GET', `/api/conversations/${conversationId}/messages`);
    assertShape(body.meta, PAGE_META);
    assert.deepEqual(pick(body.meta), [1, 50, 12, 1, false]);
    for (const query of ['limit=0', 'page=-1', 'before=x', 'after=1.5']) {
      await renter.rest.refused(422, 'VALIDATION_FAILED', 'GET', `/api/conversations/${conversationId}/messages?${query}`);
    }
  });

  it('marks a conversation as read with an empty JSON body, and says how much', async () => {
    const { renter, owner, conversationId, first } = await world.talkingPair();
    const second = (await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } })).body.data;
    const { body } = await owner.rest.expect(200, 'POST', `/api/conversations/${conversationId}/read`);
    assert.deepEqual(body.data, { conversation_id: conversationId, count: 2, message_ids: [first.id, second.id], unread_count: 0 });
    assert.equal(body.count, 2);
    assert.equal(typeof body.message, 'string');
    const again = await owner.rest.expect(200, 'POST', `/api/conversations/${conversationId}/read`, { body: {} });
    assert.deepEqual([again.body.count, again.body.data.message_ids], [0, []]);
  });

  it('keeps text as typed, and only the text of HTML', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const cases = [
      ['a < b && c > d', 'a < b && c > d'],
      ['I <3 it', 'I <3 it'],
      ['x<y', 'x<y'],
      ['  two\r\nlines  ', 'two\nlines'],
      ['tab\tstays', 'tab\tstays'],
      ['nul\u0000 bell\u0007 bidi\u202e gone\u007f', 'nul bell bidi gone'],
      ['<b>bold</b> word', 'bold word'],
      ['<script>alert(1)</script>safe', 'safe'],
      ['<img src=x onerror=alert(1)>picture', 'picture'],
      ['👩‍👩‍👧 Straße 日本', '👩‍👩‍👧 Straße 日本'],
    ];
    for (const [typed, kept] of cases) {
      const { body } = await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: typed } });
      assert.equal(body.data.content, kept, JSON.stringify(typed));
    }
    const longest = '💬'.repeat(5_000);
    const { body } = await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: longest } });
    assert.equal(body.data.content, longest);
  });

  it('answers what it does not know in JSON: 404, 405, 413, 415, bad JSON', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const { rest } = renter;
    await rest.refused(404, 'NOT_FOUND', 'GET', '/api/nothing');
    await rest.refused(404, 'NOT_FOUND', 'GET', '/nothing/at/all', { headers: { Authorization: null } });
    const wrongMethod = await rest.refused(405, 'METHOD_NOT_ALLOWED', 'DELETE', '/api/conversations');
    assert.match(wrongMethod.headers.get('allow') ?? '', /GET/);
    await rest.refused(405, 'METHOD_NOT_ALLOWED', 'PATCH', '/api/messages');
    await rest.refused(413, 'PAYLOAD_TOO_LARGE', 'POST', '/api/messages', { body: { conversation_id: conversationId, content: 'x'.repeat(3_000_000) } });
    await rest.refused(415, 'UNSUPPORTED_MEDIA_TYPE', 'POST', '/api/messages', { raw: 'hello', headers: { 'Content-Type': 'text/plain' } });
    await rest.refused(400, 'BAD_REQUEST', 'POST', '/api/messages', { raw: '{"content":' });
    await rest.refused(400, 'BAD_REQUEST', 'POST', '/api/messages', { raw: Buffer.from('{"content":"\xff\xfe"}', 'latin1') });
    await rest.refused(422, 'VALIDATION_FAILED', 'POST', '/api/messages', { body: { content: 'x' } });
    await rest.refused(422, 'VALIDATION_FAILED', 'POST', '/api/messages');
    await rest.refused(422, 'VALIDATION_FAILED', 'GET', '/api/conversations/seven');
    await rest.refused(404, 'CONVERSATION_NOT_FOUND', 'GET', '/api/conversations/999999999');
    await rest.refused(401, 'UNAUTHENTICATED', 'GET', '/api/conversations', { headers: { Authorization: null } });
    await rest.refused(401, 'UNAUTHENTICATED', 'GET', '/api/conversations', { headers: { Authorization: 'Basic abc' } });
  });

  it('tells the field: receiver, product, file_url, client_message_id, oneself', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const field = async (name, body) => {
      const answer = await renter.rest.refused(422, 'VALIDATION_FAILED', 'POST', '/api/messages', { body });
      assert.ok(name in answer.body.errors, `${name} in ${JSON.stringify(answer.body.errors)}`);
    };
    await field('content', { conversation_id: conversationId });
    await field('content', { conversation_id: conversationId, content: 'x'.repeat(5_001) });
    await field('receiver_id', { receiver_id: renter.id, content: 'me' });
    await field('receiver_id', { receiver_id: -5, content: 'x' });
    await field('product_id', { receiver_id: owner.id, product_id: 999_999, content: world.text() });
    await field('file_url', { conversation_id: conversationId, type: 'file', file_url: 'ftp://example.test/x' });
    await field('file_url', { conversation_id: conversationId, type: 'image', file_url: `http://example.test/${'x'.repeat(500)}` });
    await field('client_message_id', { conversation_id: conversationId, content: 'x', client_message_id: 'x'.repeat(65) });
    await field('type', { conversation_id: conversationId, content: 'x', type: 'system' });
    await field('metadata', { conversation_id: conversationId, content: 'x', metadata: { a: { b: 1 } } });
    const picture = await renter.rest.expect(201, 'POST', '/api/messages', {
      body: { conversation_id: conversationId, type: 'image', file_url: 'https://example.test/a.jpg', metadata: { w: 3 } },
    });
    assertShape(picture.body.data, MESSAGE);
    assert.deepEqual([picture.body.data.type, picture.body.data.content, picture.body.data.metadata], ['image', '', { w: 3 }]);
  });

  it('says that it is alive and can serve, with its dependencies', async () => {
    const { rest } = world.person('Anybody');
    const alive = await rest.expect(200, 'GET', '/health', { headers: { Authorization: null } });
    assert.equal(alive.body.success, true);
    const ready = await rest.expect(200, 'GET', '/ready', { headers: { Authorization: null } });
    const { database, main_api } = ready.body.data.dependencies;
    for (const dependency of [database, main_api]) {
      assert.equal(typeof dependency.status, 'string');
      assert.equal(typeof dependency.latency_ms, 'number');
    }
  });

  it('gives one conversation, as each of the two sees it', async () => {
    const { renter, owner, product, conversationId } = await world.talkingPair();
    const mine = (await renter.rest.expect(200, 'GET', `/api/conversations/${conversationId}`)).body.data;
    const theirs = (await owner.rest.expect(200, 'GET', `/api/conversations/${conversationId}`)).body.data;
    assertShape(mine, CONVERSATION);
    assertShape(theirs, CONVERSATION);
    assert.deepEqual([mine.current_user_id, mine.other_user.id, mine.unread_count], [renter.id, owner.id, 0]);
    assert.deepEqual([theirs.current_user_id, theirs.other_user.id, theirs.unread_count], [owner.id, renter.id, 1]);
    assert.equal(theirs.product.id, product.id);
  });
});

function pick(meta) {
  return [meta.current_page, meta.per_page, meta.total, meta.total_pages, meta.has_more];
}
