// At the door: every way to say who one is, on every kind of client, and every way to be turned away
// (contract 4.1 and 4.2).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { connectPlain, connectSocketIo, DIALECTS, Refused } from './support/live_clients.mjs';
import { RawWebSocket, TEXT } from './support/raw_websocket.mjs';
import { onEachDatabase, withWorld } from './support/world.mjs';

const SOCKET_IO = Object.entries(DIALECTS).filter(([name]) => name.startsWith('Socket.IO'));

onEachDatabase('connecting', { concurrency: 4 }, (world) => {
  for (const [name, dialect] of SOCKET_IO) {
    describe(name, { concurrency: 4 }, () => {
      for (const via of ['payload', 'header', 'query']) {
        it(`takes the token from the ${via}`, async () => {
          const { renter } = world.pair();
          const client = await world.connect(dialect, renter, { via });
          assert.equal((await client.inbox.next('authenticated')).user_id, renter.id);
        });
      }

      it('takes a token with a leading Bearer', async () => {
        const { renter } = world.pair();
        const client = await world.connect(dialect, { token: `Bearer ${renter.token}` });
        assert.equal((await client.inbox.next('authenticated')).user_id, renter.id);
      });

      it('takes the token by authenticate, later', async () => {
        const { renter, owner } = world.pair();
        const client = await world.connect(dialect, renter, { via: 'nowhere' });
        const early = await client.call('send_message', { receiver_id: owner.id, content: world.text() });
        assert.equal(early.error.code, 'UNAUTHENTICATED');
        const ack = await client.call('authenticate', { token: renter.token });
        assert.equal(ack.success, true, JSON.stringify(ack));
        assert.equal((await client.inbox.next('authenticated')).user_id, renter.id);
        assert.equal((await client.call('presence_update', { status: 'online' })).success, true);
      });

      it('answers a wrong token with CONNECT_ERROR, a sentence and a code', async () => {
        const refused = await world.connect(dialect, { token: '1|wrong' }).then(assert.fail, (error) => error);
        assert.ok(refused instanceof Refused, refused.stack);
        assert.equal(refused.data.code, 'UNAUTHENTICATED');
        assert.ok(refused.message.length > 0);
      });

      it('answers a wrong token in authenticate, and lets one try again', async () => {
        const { renter } = world.pair();
        const client = await world.connect(dialect, renter, { via: 'nowhere' });
        const ack = await client.call('authenticate', { token: '1|wrong' });
        assert.equal(ack.error.code, 'UNAUTHENTICATED');
        assert.equal((await client.inbox.next('error')).code, 'UNAUTHENTICATED');
        assert.equal((await client.call('authenticate', { token: renter.token })).success, true);
      });

      it('lets nobody wait for more than ten seconds', async () => {
        const { renter } = world.pair();
        const started = Date.now();
        const client = await world.connect(dialect, renter, { via: 'nowhere' });
        const told = await client.inbox.next('error', () => true, 14_000);
        assert.equal(told.code, 'UNAUTHENTICATED');
        await client.closed;
        const waited = Date.now() - started;
        assert.ok(waited > 8_500 && waited < 14_000, `closed after ${waited} ms`);
      });
    });
  }

  describe('plain WebSocket', { concurrency: 4 }, () => {
    for (const path of ['/', '/ws']) {
      it(`takes the token from the address and the header, at ${path}`, async () => {
        const { renter } = world.pair();
        for (const via of ['query', 'header']) {
          const client = await world.connect(connectPlain, renter, { via, path });
          assert.equal(client.inbox.all('authenticated')[0].user_id, renter.id);
        }
      });
    }

    it('takes a token with its | raw or percent-encoded in the address', async () => {
      const { renter } = world.pair();
      assert.ok(renter.token.includes('|'));
      for (const token of [renter.token, encodeURIComponent(renter.token), `Bearer%20${encodeURIComponent(renter.token)}`]) {
        const client = await RawWebSocket.open(world.service.port, `/?token=${token}`);
        assert.equal(client.status, 101);
        assert.equal((await client.nextEvent('authenticated')).user_id, renter.id);
        client.destroy();
      }
    });

    it('takes the token from the first frame', async () => {
      const { renter } = world.pair();
      const client = await world.connect(connectPlain, renter, { via: 'nowhere' });
      assert.equal((await client.call('authenticate', { token: renter.token })).success, true);
      assert.equal((await client.inbox.next('authenticated')).user_id, renter.id);
    });

    it('answers a wrong token with an error and 4401, after the upgrade', async () => {
      for (const via of ['query', 'header']) {
        const refused = await world.connect(connectPlain, { token: '1|wrong' }, { via }).then(assert.fail, (error) => error);
        assert.deepEqual([refused.code, refused.closeCode], ['UNAUTHENTICATED', 4401]);
      }
    });

    it('lets nobody wait for more than ten seconds', async () => {
      const { renter } = world.pair();
      const started = Date.now();
      const client = await world.connect(connectPlain, renter, { via: 'nowhere' });
      const { code } = await client.closed;
      const waited = Date.now() - started;
      assert.equal(client.inbox.all('error')[0].code, 'UNAUTHENTICATED');
      assert.equal(code, 4401);
      assert.ok(waited > 8_500 && waited < 14_000, `closed after ${waited} ms`);
    });

    it('takes since from the address', async () => {
      const { renter, owner, first } = await world.talkingPair();
      const client = await world.connect(connectPlain, owner, { since: 0 });
      assert.equal((await client.inbox.next('message_received')).message.id, first.id);
    });
  });

  it('a Socket.IO client may send since in the query', async () => {
    const { owner, first } = await world.talkingPair();
    const client = await world.connect(DIALECTS['Socket.IO over WebSocket'], owner, { since: 0, sinceInQuery: true });
    assert.equal((await client.inbox.next('message_received')).message.id, first.id);
  });

  it('Dart’s handshake, a WebSocket with transport=polling and no sid, is a WebSocket connection', async () => {
    const { renter } = world.pair();
    for (const path of ['/socket.io/', '/socket.io']) {
      const client = await RawWebSocket.open(world.service.port, `${path}?EIO=4&transport=polling`);
      assert.equal(client.status, 101, client.head);
      const open = (await client.nextFrame()).payload.toString();
      assert.equal(open[0], '0');
      const handshake = JSON.parse(open.slice(1));
      assert.ok(['pingInterval', 'pingTimeout', 'maxPayload'].every((name) => Number.isInteger(handshake[name])), open);
      assert.deepEqual([handshake.pingInterval, handshake.pingTimeout, handshake.maxPayload], [25_000, 20_000, 100_000]);
      assert.ok(!/[0-9]\.[0-9]/.test(open), `numbers must be written as integers: ${open}`);
      client.send(TEXT, `40${JSON.stringify({ token: renter.token })}`);
      const reply = (await client.nextFrame()).payload.toString();
      assert.match(reply, /^40\{"sid":"[^"]+"\}$/, 'the CONNECT reply comes first, with nothing but the sid');
      assert.match((await client.nextFrame()).payload.toString(), /^42\["authenticated",\{.*\}\]$/s);
      client.destroy();
    }
  });

  it('really upgrades from polling', async () => {
    const { renter, owner, conversationId } = await world.talkingPair();
    const client = await world.connect(DIALECTS['Socket.IO upgrading'], renter);
    const watcher = await world.connect(DIALECTS['Socket.IO upgrading'], owner);
    // Sends during the upgrade lose nothing and keep their order.
    const acks = [];
    for (let at = 0; at < 40; at++) {
      acks.push(client.call('send_message', { conversation_id: conversationId, content: world.text() }));
      await sleep(5);
    }
    const seqs = (await Promise.all(acks)).map((ack) => ack.data.seq);
    assert.deepEqual(seqs, Array.from({ length: 40 }, (_, at) => at + 2));
    await eventually('both upgraded', () => client.transport === 'websocket' && watcher.transport === 'websocket');
    await eventually('all arrived', () => watcher.inbox.all('message_received').length === 40);
    assert.deepEqual(watcher.inbox.all('message_received').map((data) => data.message.seq), seqs);
  });

  it('other namespaces are refused', async () => {
    const { renter } = world.pair();
    const client = await RawWebSocket.open(world.service.port, '/socket.io/?EIO=4&transport=websocket');
    await client.nextFrame();
    client.send(TEXT, `40/admin,${JSON.stringify({ token: renter.token })}`);
    assert.match((await client.nextFrame()).payload.toString(), /^44\/admin,\{/);
    client.destroy();
  });
});

const OPEN_TO = 'http://app.example.test';

withWorld('origins', { env: { CORS_ORIGIN: `${OPEN_TO},http://other.example.test` } }, (world) => {
  const foreign = 'http://evil.example.test';

  for (const [name, dialect] of Object.entries(DIALECTS)) {
    it(`${name}: an origin of CORS_ORIGIN is let in, another one is refused, none is fine`, async () => {
      const { renter } = world.pair();
      await world.connect(dialect, renter, { origin: OPEN_TO });
      await world.connect(dialect, renter);
      await assert.rejects(world.connect(dialect, renter, { origin: foreign }));
    });
  }

  it('the refusal is 403, on both transports and on the plain one', async () => {
    const { renter } = world.pair();
    const polling = await fetch(`${world.service.url}/socket.io/?EIO=4&transport=polling`, { headers: { Origin: foreign } });
    assert.equal(polling.status, 403);
    for (const path of ['/socket.io/?EIO=4&transport=websocket', `/?token=${renter.token}`, `/ws?token=${renter.token}`]) {
      const client = await RawWebSocket.open(world.service.port, path, { Origin: foreign });
      assert.equal(client.status, 403, path);
      client.destroy();
    }
  });

  it('a browser’s preflight is answered for origins of CORS_ORIGIN only', async () => {
    const ask = (origin) =>
      fetch(`${world.service.url}/api/messages`, {
        method: 'OPTIONS',
        headers: { Origin: origin, 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type' },
      });
    const allowed = await ask(OPEN_TO);
    assert.ok(allowed.status < 300, String(allowed.status));
    assert.equal(allowed.headers.get('access-control-allow-origin'), OPEN_TO);
    assert.match(allowed.headers.get('access-control-allow-headers').toLowerCase(), /authorization/);
    assert.equal((await ask(foreign)).headers.get('access-control-allow-origin'), null);
  });
});

withWorld('origins by default', {}, (world) => {
  it('in development any localhost is let in, and nothing else', async () => {
    const { renter } = world.pair();
    for (const origin of ['http://localhost:3000', 'http://127.0.0.1:8080']) await world.connect(connectPlain, renter, { origin });
    for (const origin of ['http://localhost.evil.example.test', 'http://evil.example.test', 'null']) {
      await assert.rejects(world.connect(connectPlain, renter, { origin }), origin);
    }
  });

  it('nothing more than MAX_CONNECTIONS_PER_USER connections live', async () => {
    const { renter } = world.pair();
    const results = await Promise.allSettled(Array.from({ length: 25 }, () => world.connect(connectSocketIo, renter, { transports: ['websocket'] })));
    await sleep(500);
    const live = results.filter((result) => result.status === 'fulfilled' && result.value.socket.connected);
    assert.equal(live.length, 20);
  });
});

