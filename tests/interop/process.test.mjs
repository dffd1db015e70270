// The program as its operator meets it: how it starts, how it ends, and what it says when it cannot.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { describe, it } from 'node:test';

import { sleep } from './support/inbox.mjs';
import { connectPlain, DIALECTS } from './support/live_clients.mjs';
import { Service } from './support/service.mjs';
import { onEachDatabase, withWorld } from './support/world.mjs';

const MAIN_API_URL = 'http://127.0.0.1:9/api/v1';

describe('a configuration that cannot be', { concurrency: 4 }, () => {
  const CASES = [
    ['PORT', { PORT: 'abc' }],
    ['PORT', { PORT: '70000' }],
    ['HOST', { HOST: 'not a host' }],
    ['DATABASE_URL', { DATABASE_URL: 'mysql://user:hunter2@localhost/db' }],
    ['DATABASE_URL', { DATABASE_URL: 'hunter2' }],
    ['REDIS_URL', { REDIS_URL: 'http://:hunter2@localhost' }],
    ['REDIS_TTL', { REDIS_TTL: '-1' }],
    ['MAIN_API_URL', { MAIN_API_URL: 'main-api' }],
    ['MAIN_API_URL', { MAIN_API_URL: 'ftp://main-api/api' }],
    ['MAIN_API_TIMEOUT', { MAIN_API_TIMEOUT: 'soon' }],
    ['RATE_LIMIT_MESSAGES', { RATE_LIMIT_MESSAGES: 'many' }],
    ['SHUTDOWN_TIMEOUT', { SHUTDOWN_TIMEOUT: '1.5.2' }],
    ['DB_POOL_MAX', { DB_POOL_MAX: '0' }],
    ['NODE_ENV', { NODE_ENV: 'prod?' }],
    ['LOG_LEVEL', { LOG_LEVEL: 'shouting' }],
    ['LOG_FORMAT', { LOG_FORMAT: 'xml' }],
    ['JWT_SECRET', { JWT_SECRET: '' }],
    ['JWT_SECRET', { JWT_SECRET: 'your_jwt_secret' }],
    ['MAX_PAYLOAD', { MAX_PAYLOAD: '-5' }],
    ['CORS_ORIGIN', { NODE_ENV: 'production', CORS_ORIGIN: '*' }],
    ['CORS_ORIGIN', { APP_ENV: 'production', CORS_ORIGIN: '*' }],
    ['MAIN_API_URL', { NODE_ENV: 'production', MAIN_API_URL: null }],
    ['TLS_KEY_PATH', { TLS_CERT_PATH: '/nonexistent/cert.pem', TLS_KEY_PATH: '/nonexistent/key.pem' }],
  ];
  for (const [variable, env] of CASES) {
    for (const command of ['serve', 'check-config']) {
      it(`${command} names ${variable} and exits 78: ${JSON.stringify(env)}`, async () => {
        const { code, stdout, stderr } = await Service.run([command], { env: { MAIN_API_URL, ...env } });
        assert.equal(code, 78, `${stdout}\n${stderr}`);
        const pattern = variable.startsWith('TLS') ? /TLS_(CERT|KEY)_PATH/ : new RegExp(`\\b${variable}\\b`);
        assert.match(stderr, pattern);
        assert.equal(stderr.trim().split('\n').length, 1, `one sentence: ${stderr}`);
        assert.ok(!`${stdout}${stderr}`.includes('hunter2'), stderr);
      });
    }
  }

  it('serve without MAIN_API_URL in development says that demo exists', async () => {
    const { code, stderr } = await Service.run(['serve']);
    assert.equal(code, 78);
    assert.match(stderr, /\bdemo\b/);
    assert.match(stderr, /MAIN_API_URL/);
  });

  it('serve is the default command', async () => {
    const { code, stderr } = await Service.run([]);
    assert.equal(code, 78);
    assert.match(stderr, /MAIN_API_URL/);
  });
});

describe('a configuration that can be', { concurrency: 4 }, () => {
  it('check-config prints the effective values and masks the secrets', async () => {
    const secrets = { JWT_SECRET: 'b6f1e0c25a8d4b7c9e3f', DATABASE_URL: 'postgresql://user:hunter2hunter2@localhost:5432/messaging' };
    const { code, stdout, stderr } = await Service.run(['check-config'], { env: { MAIN_API_URL, RATE_LIMIT_MESSAGES: '7', ...secrets } });
    assert.equal(code, 0, stderr);
    for (const name of ['PORT', 'MAIN_API_URL', 'DATABASE_URL', 'RATE_LIMIT_MESSAGES', 'JWT_SECRET', 'SHUTDOWN_TIMEOUT']) assert.match(stdout, new RegExp(`^\\W*${name}\\b`, 'm'));
    assert.match(stdout, /RATE_LIMIT_MESSAGES\W+7\b/);
    for (const secret of [secrets.JWT_SECRET, 'hunter2hunter2']) assert.ok(!stdout.includes(secret), stdout);
  });

  it('is read from a .env file, over which the environment wins', async () => {
    const files = { '.env': `MAIN_API_URL=${MAIN_API_URL}\nREDIS_TTL=77\nSHUTDOWN_TIMEOUT=3\n` };
    const { code, stdout, stderr } = await Service.run(['check-config'], { files, env: { SHUTDOWN_TIMEOUT: '4' } });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /REDIS_TTL\W+77\b/);
    assert.match(stdout, /SHUTDOWN_TIMEOUT\W+4\b/);
  });

  it('migrate makes the database and ends with 0, twice', async () => {
    const { code, stderr } = await Service.run(['migrate'], { env: { MAIN_API_URL } });
    assert.equal(code, 0, stderr);
  });

  it('a port in use is said in one sentence', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { code, stderr, stdout } = await Service.run(['serve'], { env: { MAIN_API_URL, RUST_BACKTRACE: null }, port: server.address().port });
    server.close();
    assert.notEqual(code, 0);
    assert.ok(!/panicked/.test(stderr + stdout), stderr);
    assert.match(stderr + stdout, new RegExp(String(server.address()?.port ?? 'in use|address', 'i')));
  });
});

onEachDatabase('the end', { survives: false, env: { SHUTDOWN_TIMEOUT: '5' } }, (world) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    it(`${signal} ends it with 0 in time; clients are told to come back, and find everything`, async () => {
      const { renter, owner, conversationId } = await world.talkingPair();
      const clients = await Promise.all(Object.values(DIALECTS).map((dialect) => world.connect(dialect, renter)));
      const sender = await world.connect(connectPlain, owner);
      const confirmed = [];
      let stop = false;
      const sending = (async () => {
        for (let at = 0; !stop; at++) {
          const ack = await sender.call('send_message', { conversation_id: conversationId, content: world.text(`${at}`) }).catch(() => null);
          if (!ack) return;
          if (ack.success) confirmed.push(ack.data.id);
          else assert.equal(ack.error.retryable, true, JSON.stringify(ack));
        }
      })();
      await sleep(300);
      const started = Date.now();
      const exit = await world.service.end(signal);
      const took = Date.now() - started;
      stop = true;
      await sending;
      assert.deepEqual(exit, { code: 0, signal: null });
      assert.ok(took < 6_500, `it took ${took} ms`);
      for (const [at, name] of Object.keys(DIALECTS).entries()) {
        const { code, reason } = await clients[at].closed;
        // 'io server disconnect' would keep Socket.IO clients from reconnecting by themselves.
        if (name.startsWith('Socket.IO')) assert.ok(['transport close', 'transport error'].includes(reason), `${name}: ${reason}`);
        else assert.ok([1001, 1012].includes(code), `${name}: ${code}`);
      }
      await world.service.start();
      assert.ok(confirmed.length > 0);
      const stored = new Set((await owner.rest.allMessages(conversationId)).map((message) => message.id));
      assert.deepEqual(confirmed.filter((id) => !stored.has(id)), []);
    });
  }
});

withWorld('idle connections at the end', { survives: false }, (world) => {
  it('do not hold it up: it ends well before SHUTDOWN_TIMEOUT', async () => {
    const { renter } = world.pair();
    await Promise.all(Array.from({ length: 10 }, () => world.connect(connectPlain, renter)));
    const started = Date.now();
    assert.deepEqual(await world.service.end('SIGTERM'), { code: 0, signal: null });
    assert.ok(Date.now() - started < 11_000);
    await world.service.start();
  });
});
