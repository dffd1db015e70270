// Everything that is turned away: tokens, a main API in trouble, and input of every hostile kind. Each gets one clear
// refusal; the process goes on untouched (withWorld looks at its pid and its log).

import assert from 'node:assert/strict';
import { connect as connectTcp } from 'node:net';
import { describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { connectPlain, DIALECTS } from './support/live_clients.mjs';
import { signJwt } from './support/main_api.mjs';
import { BINARY, RawWebSocket, TEXT, frame } from './support/raw_websocket.mjs';
import { onEachDatabase, withWorld } from './support/world.mjs';

const JWT_SECRET = 'f3c1c9d07b6e4a4bb0d5e2a97c81d64b';
const now = () => Math.floor(Date.now() / 1000);

/** How every door answers a person's token: REST, validate-token and each kind of live client. */
async function everyDoor(world, user) {
  const answers = {};
  const rest = await user.rest.get('/api/conversations');
  answers.REST = { status: rest.status, code: rest.body.error?.code, retryAfter: rest.headers.get('retry-after') };
  const validated = await user.rest.post('/auth/validate-token', { token: user.token }, { headers: { Authorization: null } });
  answers['validate-token'] = { status: validated.status, code: validated.body.error?.code, valid: validated.body.valid };
  for (const [name, dialect] of Object.entries(DIALECTS)) {
    answers[name] = await world.connect(dialect, user).then(
      (client) => (client.close(), { code: 'let in' }),
      (refused) => ({ code: refused.code, closeCode: refused.closeCode }),
    );
  }
  return answers;
}

function assertUnauthenticated(answers) {
  assert.deepEqual([answers.REST.status, answers.REST.code], [401, 'UNAUTHENTICATED']);
  assert.deepEqual([answers['validate-token'].status, answers['validate-token'].valid], [200, false]);
  for (const name of Object.keys(DIALECTS)) assert.equal(answers[name].code, 'UNAUTHENTICATED', name);
  assert.equal(answers['plain WebSocket'].closeCode, 4401);
}

function assertUnavailable(answers) {
  assert.deepEqual([answers.REST.status, answers.REST.code], [503, 'AUTH_UNAVAILABLE']);
  assert.ok(Number(answers.REST.retryAfter) >= 1, `Retry-After: ${answers.REST.retryAfter}`);
  assert.deepEqual([answers['validate-token'].status, answers['validate-token'].code], [503, 'AUTH_UNAVAILABLE']);
  for (const name of Object.keys(DIALECTS)) assert.equal(answers[name].code, 'AUTH_UNAVAILABLE', name);
}

withWorld('tokens', { env: { MAIN_API_TIMEOUT: '700' } }, (world) => {
  const stranger = (token) => {
    world.secrets.push(token.split('|').at(-1));
    return Object.assign(world.person('Nobody'), { token, rest: Object.assign(world.person('Nobody').rest, { token }) });
  };

  it('a wrong token is UNAUTHENTICATED at every door, and asked for once', async () => {
    const user = stranger('77|wrongwrongwrongwrongwrongwrongwrongwrong');
    assertUnauthenticated(await everyDoor(world, user));
    assert.equal(world.mainApi.userCalls(user.token), 1, 'an invalid token is remembered briefly');
  });

  it('a valid token is asked for once, however many come with it at once', async () => {
    const { renter } = world.pair();
    await Promise.all(Array.from({ length: 50 }, () => renter.rest.expect(200, 'GET', '/api/conversations')));
    await world.connect(connectPlain, renter);
    assert.equal(world.mainApi.userCalls(renter.token), 1);
  });

  it('the main API is asked for JSON, with the caller’s bearer and nothing else of the caller', async () => {
    const { renter } = world.pair();
    await renter.rest.expect(200, 'GET', '/api/conversations', { headers: { Referer: 'http://localhost:3000/x', Cookie: 'session=1', Origin: 'http://localhost:3000' } });
    const call = world.mainApi.calls.find(({ token }) => token === renter.token);
    assert.match(call.headers.accept, /application\/json/);
    for (const name of ['origin', 'referer', 'cookie']) assert.equal(call.headers[name], undefined, name);
  });

  for (const [what, behaviour] of [
    ['down', 'down'],
    ['slower than MAIN_API_TIMEOUT', { mode: 'slow', delay_ms: 4_000 }],
    ['silent', 'hang'],
    ['answering HTML', 'html'],
    ...[302, 403, 419, 429, 500, 503].map((status) => [`answering ${status}`, { mode: 'status', status, headers: { 'retry-after': '3', location: '/login' } }]),
  ]) {
    it(`a main API that is ${what} is AUTH_UNAVAILABLE at every door, and forgotten when it is back`, async () => {
      const { renter } = world.pair();
      await world.mainApi.behave(behaviour);
      try {
        const started = Date.now();
        assertUnavailable(await everyDoor(world, renter));
        assert.ok(Date.now() - started < 12_000, 'six refusals take six time-outs at most');
      } finally {
        await world.mainApi.behave('ok');
      }
      await eventually('let in again', async () => (await renter.rest.get('/api/conversations')).status === 200, 6_000);
    });
  }

  it('whom it knows it serves on while the main API is away', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    await world.connect(connectPlain, owner);
    await world.mainApi.behave('down');
    try {
      const client = await world.connect(connectPlain, renter);
      const ack = await client.call('send_message', { conversation_id: conversationId, content: world.text() });
      assert.equal(ack.success, true);
      // A product that nobody could look up yet is no reason to lose a message.
      await owner.rest.expect(201, 'POST', '/api/messages', { body: { receiver_id: renter.id, product_id: 4_000, content: world.text() } });
      const { body } = await renter.rest.expect(200, 'GET', '/ready', { headers: { Authorization: null } });
      assert.notEqual(body.data.dependencies.main_api.status, 'ok');
    } finally {
      await world.mainApi.behave('ok');
    }
  });
});

withWorld('expiry', { env: { REDIS_TTL: '2' } }, (world) => {
  it('a live connection is cut when its token is refused later', { timeout: 30_000 }, async () => {
    const { renter } = world.pair();
    const clients = await Promise.all(Object.values(DIALECTS).map((dialect) => world.connect(dialect, renter)));
    await sleep(3_000);
    world.mainApi.revoke(renter.token);
    const ends = await Promise.all(
      clients.map(async (client) => {
        await client.closed;
        return client.inbox.all('error').map(({ code }) => code);
      }),
    );
    assert.deepEqual(Object.fromEntries(Object.keys(DIALECTS).map((name, at) => [name, ends[at]])), Object.fromEntries(Object.keys(DIALECTS).map((name) => [name, ['UNAUTHENTICATED']])));
    await eventually('REST refuses too', async () => (await renter.rest.get('/api/conversations')).status === 401);
  });

  it('a main API that is away for a while cuts nobody', async () => {
    const { renter } = world.pair();
    const client = await world.connect(connectPlain, renter);
    await world.mainApi.behave({ mode: 'status', status: 500 });
    await sleep(5_000);
    await world.mainApi.behave('ok');
    assert.equal((await client.call('presence_update', { status: 'online' })).success, true);
  });
});

withWorld('JSON web tokens', { env: { JWT_SECRET, JWT_ISSUER: 'rented-marketplace,http://main-api.example.test/login' } }, (world) => {
  const withToken = (claims, { secret = JWT_SECRET, algorithm, known = true } = {}) => {
    const person = world.person('Jo Jay');
    const token = signJwt({ sub: String(person.id), iss: 'rented-marketplace', iat: now(), ...claims }, secret, algorithm);
    if (known) world.mainApi.issueToken(person, token);
    else world.secrets.push(token);
    person.token = token;
    person.rest.token = token;
    return person;
  };

  it('one that is signed, in time and known to the main API is let in, still asked for', async () => {
    const person = withToken({ exp: now() + 600, iss: 'http://main-api.example.test/login' });
    await person.rest.expect(200, 'GET', '/api/conversations');
    assert.equal(world.mainApi.userCalls(person.token), 1);
  });

  for (const [what, claims, options] of [
    ['expired', { exp: now() - 60 }],
    ['not yet valid', { exp: now() + 600, nbf: now() + 300 }],
    ['of another issuer', { exp: now() + 600, iss: 'somebody-else' }],
    ['without an issuer', { exp: now() + 600, iss: undefined }],
    ['signed with another secret', { exp: now() + 600 }, { secret: 'another-secret-another-secret-12' }],
    ['unsigned', { exp: now() + 600 }, { algorithm: 'none' }],
    ['of another algorithm', { exp: now() + 600 }, { algorithm: 'RS256' }],
  ]) {
    it(`one that is ${what} is refused at every door without asking the main API`, async () => {
      const person = withToken(claims, options);
      assertUnauthenticated(await everyDoor(world, person));
      assert.equal(world.mainApi.userCalls(person.token), 0);
    });
  }

  it('one that the main API refuses is refused', async () => {
    assertUnauthenticated(await everyDoor(world, withToken({ exp: now() + 600 }, { known: false })));
  });

  it('one that ends soon is not believed for longer', async () => {
    const person = withToken({ exp: now() + 3 });
    const client = await world.connect(connectPlain, person);
    await person.rest.expect(200, 'GET', '/api/conversations');
    const told = await client.inbox.next('error', () => true, 20_000);
    assert.equal(told.code, 'UNAUTHENTICATED');
    await person.rest.refused(401, 'UNAUTHENTICATED', 'GET', '/api/conversations');
  });

  it('an opaque token is taken beside them', async () => {
    await world.person('Olaf Opaque').rest.expect(200, 'GET', '/api/conversations');
  });
});

withWorld('limits', { env: { RATE_LIMIT_MESSAGES: null, RATE_LIMIT_BURST: null } }, (world) => {
  it('a burst of 20 messages is let through, the rest told when to come back, on all transports together', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const client = await world.connect(connectPlain, renter);
    const body = () => ({ conversation_id: conversationId, content: world.text() });
    const answers = [];
    for (let at = 0; at < 12; at++) answers.push(await renter.rest.post('/api/messages', body()));
    const acks = [];
    for (let at = 0; at < 12; at++) acks.push(await client.call('send_message', body()));
    const sent = 1 + answers.filter(({ status }) => status === 201).length + acks.filter(({ success }) => success).length;
    assert.ok(sent >= 20 && sent <= 22, `${sent} were let through`);
    const refusedAck = acks.at(-1);
    assert.deepEqual([refusedAck.error.code, refusedAck.error.retryable], ['RATE_LIMITED', true]);
    assert.equal((await client.inbox.next('error')).code, 'RATE_LIMITED');

    const refused = await renter.rest.refused(429, 'RATE_LIMITED', 'POST', '/api/messages', { body: body() });
    for (const name of ['retry-after', 'x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset']) {
      assert.match(refused.headers.get(name) ?? '', /^\d+$/, name);
    }
    assert.equal(refused.headers.get('x-ratelimit-limit'), '60');
    assert.equal(refused.body.error.details.retryable, true);
    assert.equal((await renter.rest.allMessages(conversationId)).length, sent, 'what was refused is not there');
    await sleep(Number(refused.headers.get('retry-after')) * 1000 + 100);
    await renter.rest.expect(201, 'POST', '/api/messages', { body: body() });
  });
});

onEachDatabase('hostile input', { concurrency: 4 }, (world) => {
  it('REST refuses what is foreign, empty, too long, too large or too deep, with nothing stored', async () => {
    const { renter, conversationId } = await world.talkingPair();
    const stranger = world.person('Sam Stranger');
    const post = '/api/messages';
    await stranger.rest.refused(403, 'FORBIDDEN', 'POST', post, { body: { conversation_id: conversationId, content: world.text() } });
    await stranger.rest.refused(403, 'FORBIDDEN', 'GET', `/api/conversations/${conversationId}/messages`);
    await stranger.rest.refused(403, 'FORBIDDEN', 'POST', `/api/conversations/${conversationId}/read`);
    await renter.rest.refused(422, 'VALIDATION_FAILED', 'POST', post, { body: { conversation_id: conversationId, content: ' \n\t ' } });
    await renter.rest.refused(422, 'VALIDATION_FAILED', 'POST', post, { body: { conversation_id: conversationId, content: 'x'.repeat(6_000) } });
    const large = await renter.rest.post(post, { conversation_id: conversationId, content: 'x'.repeat(100_000) });
    assert.ok([413, 422].includes(large.status), `100 KB of JSON: ${large.status}`);
    const deep = await renter.rest.request('POST', post, { raw: `{"content":${'['.repeat(100_000)}` });
    assert.ok([400, 413].includes(deep.status), `100 KB of brackets: ${deep.status}`);
    for (const raw of ['', 'null', '[]', '"text"', '{"content":1}', '{"content":{}}', '\u0000', `{"conversation_id":1e400,"content":"x"}`, '{"conversation_id":-1,"content":"x"}', '{"conversation_id":9223372036854775808,"content":"x"}']) {
      const answer = await renter.rest.request('POST', post, { raw });
      assert.ok([400, 404, 422].includes(answer.status), `${raw}: ${answer.status}`);
    }
    for (const id of ['0', '-1', '1.5', '9223372036854775807', '9223372036854775808', '%00', "1'--", '../1']) {
      const answer = await renter.rest.get(`/api/conversations/${id}/messages`);
      assert.ok([404, 422].includes(answer.status), `${id}: ${answer.status}`);
    }
    // A path that is no UTF-8 cannot even be read.
    assert.ok([400, 404, 422].includes((await renter.rest.get('/api/conversations/%ff')).status));
    assert.equal((await renter.rest.allMessages(conversationId)).length, 1);
  });

  it('half a request, and a request that is none, hurt nobody', async () => {
    const { renter } = world.pair();
    for (const bytes of ['POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"con', 'GET / HT', '\x16\x03\x01\x02\x00\x01\x00', `GET /${'a'.repeat(200_000)} HTTP/1.1\r\n\r\n`, 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n']) {
      const socket = connectTcp(world.service.port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(Buffer.from(bytes, 'latin1'));
      await sleep(50);
      socket.destroy();
    }
    await renter.rest.expect(200, 'GET', '/api/conversations');
  });

  const open = async (path, user) => {
    const client = await RawWebSocket.open(world.service.port, path.replace('TOKEN', encodeURIComponent(user.token)));
    assert.equal(client.status, 101);
    return client;
  };

  /** What breaks the frame layer itself, with the close code that RFC 6455 gives it. */
  const BROKEN_FRAMES = [
    ['bad UTF-8', frame(TEXT, Buffer.from([0xff, 0xfe, 0xfd])), [1007]],
    ['bad UTF-8 over two fragments', Buffer.concat([frame(TEXT, Buffer.from([0xe2, 0x82]), { fin: false }), frame(0, Buffer.from([0x41]))]), [1007]],
    ['an unmasked frame', frame(TEXT, '{}', { masked: false }), [1002]],
    ['reserved bits', frame(TEXT, '{}', { reserved: 4 }), [1002]],
    ['an unknown opcode', frame(3, '{}'), [1002]],
    ['a continuation of nothing', frame(0, '{}'), [1002]],
    ['a fragmented ping', frame(9, 'x', { fin: false }), [1002]],
    ['a ping of 126 bytes', frame(9, 'x'.repeat(126)), [1002]],
    ['a frame that claims 2^62 bytes', frame(TEXT, 'x', { length: 2 ** 62 }), [1009, 1002]],
    ['a frame larger than MAX_PAYLOAD', frame(TEXT, `{"event":"send_message","data":{"content":"${'x'.repeat(100_000)}"}}`), [1009]],
  ];

  for (const [what, bytes, codes] of BROKEN_FRAMES) {
    it(`${what} closes that connection alone, on both dialects`, async () => {
      const { renter, owner } = world.pair();
      const bystander = await world.connect(connectPlain, owner);
      const plain = await open('/?token=TOKEN', renter);
      await plain.nextEvent('authenticated');
      plain.sendBytes(bytes);
      const end = await plain.untilClosed(5_000);
      assert.ok(codes.includes(end.code), `plain: closed with ${end.code}`);

      const socketIo = await open('/socket.io/?EIO=4&transport=websocket', renter);
      await socketIo.nextFrame();
      socketIo.sendBytes(bytes);
      const closed = await socketIo.untilSocketEnds();
      assert.ok(codes.includes(closed.code), `Socket.IO: closed with ${closed.code}`);
      assert.equal((await bystander.call('presence_update', { status: 'online' })).success, true);
    });
  }

  it('plain: text that is not JSON, and binary, are answered with an error and closed', async () => {
    const { renter } = world.pair();
    for (const [opcode, payload, codes] of [
      [TEXT, 'hello', [1007, 1008]],
      [TEXT, '{"event":"send_message","data":', [1007, 1008]],
      [TEXT, '', [1007, 1008]],
      [BINARY, Buffer.from([1, 2, 3]), [1003, 1007, 1008]],
    ]) {
      const client = await open('/?token=TOKEN', renter);
      await client.nextEvent('authenticated');
      client.send(opcode, payload);
      const end = await client.untilClosed(5_000);
      assert.ok(end.events.some(({ event, data }) => event === 'error' && data.code === 'BAD_REQUEST'), JSON.stringify(end));
      assert.ok(codes.includes(end.code), `${payload}: closed with ${end.code}`);
    }
  });

  it('plain: JSON that is not an event is answered with an error and stays', async () => {
    const { renter } = world.pair();
    const client = await open('/?token=TOKEN', renter);
    await client.nextEvent('authenticated');
    for (const text of ['[]', '1', 'null', '"x"', '{}', '{"data":{}}', '{"event":7}', '{"event":""}', '{"event":"typing","data":[]}', `{"event":"send_message","data":${'['.repeat(90)}${']'.repeat(90)}}`]) {
      client.send(TEXT, text);
      const told = await client.nextEvent('error', 5_000);
      assert.ok(told && ['BAD_REQUEST', 'VALIDATION_FAILED', 'NOT_FOUND'].includes(told.code), `${text}: ${JSON.stringify(told)}`);
    }
    client.sendEvent('presence_update', { status: 'online' }, 'still here');
    assert.equal((await client.nextEvent('ack'))?.success, true);
    client.destroy();
  });

  it('plain: half a frame is waited for, and forgotten when its sender goes', async () => {
    const { renter } = world.pair();
    const client = await open('/?token=TOKEN', renter);
    await client.nextEvent('authenticated');
    const whole = frame(TEXT, JSON.stringify({ event: 'presence_update', data: { status: 'online' }, ref: 1 }));
    for (const byte of whole.subarray(0, -1)) {
      client.sendBytes(Buffer.from([byte]));
      if (byte % 8 === 0) await sleep(1);
    }
    await sleep(200);
    client.sendBytes(whole.subarray(-1));
    assert.equal((await client.nextEvent('ack')).success, true);
    client.sendBytes(whole.subarray(0, 9));
    client.destroy();
    await renter.rest.expect(200, 'GET', '/api/conversations');
  });

  it('Socket.IO: a broken packet closes, an event without a proper name or argument is answered', async () => {
    const { renter } = world.pair();
    const connected = async () => {
      const client = await open('/socket.io/?EIO=4&transport=websocket', renter);
      await client.nextFrame();
      client.send(TEXT, `40${JSON.stringify({ token: renter.token })}`);
      await eventually('connected', async () => (await client.nextFrame()).payload.toString().startsWith('42["authenticated"'));
      return client;
    };
    for (const packet of ['42[', '42{}', '4', '49', '9', 'hello', '42["send_message",{"content":', '451-["x",{"_placeholder":true,"num":7}]']) {
      const client = await connected();
      client.send(TEXT, packet);
      // The attachment that the last one announces; no other packet is followed by any.
      if (packet.startsWith('45')) client.send(BINARY, Buffer.from([1]));
      await client.untilSocketEnds().catch((error) => assert.fail(`${packet}: ${error.message}`));
    }
    const client = await connected();
    for (const packet of ['42["no_such_event",{}]', '42["send_message"]', '42["send_message","text"]', '42["send_message",{},{}]', '42["typing",null]']) {
      client.send(TEXT, packet);
      for (;;) {
        const got = await client.nextFrame(5_000);
        assert.notEqual(got, null, `${packet} closed the connection`);
        if (got.payload.toString().startsWith('42["error",')) break;
      }
    }
    client.send(TEXT, '421["presence_update",{"status":"online"}]');
    await eventually('acked', async () => /^431\[\{"success":true/.test((await client.nextFrame()).payload.toString()));
    client.destroy();
  });

  it('a client that does not read is closed in the end, and nobody waits for it', { timeout: 90_000 }, async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const sleeper = await open('/?token=TOKEN', owner);
    await sleeper.nextEvent('authenticated');
    sleeper.socket.pause();
    const reader = await world.connect(connectPlain, owner);
    const sender = await world.connect(connectPlain, renter);
    const content = `${world.text()} ${'x'.repeat(4_000)}`;
    const started = Date.now();
    // Beyond what the kernel's buffers and the service's queue for one connection take.
    for (let round = 0; round < 40; round++) {
      await Promise.all(Array.from({ length: 50 }, () => sender.call('send_message', { conversation_id: conversationId, content })));
    }
    await eventually('the other phone has all', () => reader.inbox.all('message_received').length === 2_000, 30_000);
    assert.ok(Date.now() - started < 60_000);
    sleeper.socket.resume();
    await eventually('the sleeper was closed', () => sleeper.ended, 20_000);
  });
});
