// Two nodes behind nginx with deploy/nginx.conf as it is, but for addresses: REST, plain WebSocket and Socket.IO by
// WebSocket, polling and upgrade go through it, and what is sent at one node arrives at the other.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

import { io } from 'socket.io-client';
import { WebSocket } from 'ws';

import { createDatabase, unavailable } from './support/databases.mjs';
import { MainApi } from './support/main_api.mjs';
import { freePort, Service } from './support/service.mjs';

const CONFIGURATION = fileURLToPath(new URL('../../deploy/nginx.conf', import.meta.url));
// Debian keeps it out of PATH for people.
const NGINX = ['nginx', '/usr/sbin/nginx'].find((name) => spawnSync(name, ['-v']).status === 0);

const skip =
  unavailable('postgres') ?? (process.env.TEST_REDIS_URL ? null : 'TEST_REDIS_URL is not set') ?? (NGINX ? null : 'nginx is not installed');

describe('two nodes behind a load balancer', { skip: skip ?? false }, () => {
  const nodes = [];
  const sockets = [];
  let mainApi;
  let database;
  let proxy;
  let port;
  let folder;
  let renter;
  let owner;

  before(async () => {
    mainApi = await MainApi.start();
    database = await createDatabase('postgres');
    const env = {
      MAIN_API_URL: mainApi.url,
      ...database.env,
      REDIS_URL: process.env.TEST_REDIS_URL,
      REDIS_PREFIX: `balanced-${process.pid}:`,
      TRUSTED_PROXIES: '127.0.0.0/8',
      DB_POOL_MAX: '5',
      // The balancer's two passive checks need a moment; clients come from one machine here.
      MAX_UNAUTHENTICATED_PER_IP: '0',
    };
    for (let at = 0; at < 2; at++) nodes.push(await Service.start({ env }));
    renter = mainApi.addUser('Rita Renter');
    owner = mainApi.addUser('Omar Owner');
    folder = mkdtempSync(join(tmpdir(), 'rented-balancer-'));
    port = await freePort();
    const text = readFileSync(CONFIGURATION, 'utf8')
      .replace(/messaging-service:3001/g, `127.0.0.1:${nodes[0].port}`)
      .replace(/messaging-service-2:3001/g, `127.0.0.1:${nodes[1].port}`)
      .replace('listen 8080', `listen 127.0.0.1:${port}`)
      .replaceAll('/tmp/', `${folder}/`)
      // What stdout is here cannot be opened by its name.
      .replace('access_log /dev/stdout', `access_log ${folder}/access.log`)
      .replace('worker_processes auto', 'worker_processes 1')
      // Tests may have fewer descriptors than production.
      .replace('worker_connections 65536', 'worker_connections 512')
      .replace('worker_rlimit_nofile 131072;', '');
    assert.ok(!text.includes('messaging-service'), 'every address is replaced');
    writeFileSync(join(folder, 'nginx.conf'), text);
    proxy = spawn(NGINX, ['-c', join(folder, 'nginx.conf'), '-p', folder, '-g', 'daemon off;'], { stdio: ['ignore', 'ignore', 'pipe'] });
    proxy.log = '';
    proxy.stderr.on('data', (chunk) => (proxy.log += chunk));
    for (let tries = 0; ; tries++) {
      const answer = await fetch(`${url()}/health`).catch(() => null);
      if (answer?.status === 200) break;
      assert.ok(tries < 200 && proxy.exitCode === null, `nginx does not answer:\n${proxy.log}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });

  after(async () => {
    for (const socket of sockets) socket.close();
    if (proxy?.exitCode === null) {
      proxy.kill('SIGTERM');
      await once(proxy, 'exit');
    }
    for (const node of nodes) await node.discard(`balanced-${node.port}`);
    await database?.drop();
    await mainApi?.stop();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  const url = () => `http://127.0.0.1:${port}`;

  /** A Socket.IO client from an address of its own, 127.0.0.`host`; Linux has all of 127/8. */
  async function connect(user, transports, host) {
    const agent = new Agent({ localAddress: `127.0.0.${host}`, keepAlive: true });
    const socket = io(url(), { auth: { token: user.token }, transports, agent, forceNew: true, reconnection: false });
    sockets.push(socket);
    socket.heard = [];
    socket.on('message_received', ({ message }) => socket.heard.push(message.content));
    const authenticated = new Promise((resolve, reject) => {
      socket.on('authenticated', resolve);
      socket.on('connect_error', reject);
      setTimeout(() => reject(new Error(`${transports} from ${host} is not in after 15 s`)), 15_000).unref();
    });
    await authenticated;
    return socket;
  }

  async function rest(user, method, path, body) {
    const response = await fetch(`${url()}${path}`, {
      method,
      headers: { Authorization: `Bearer ${user.token}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  async function heardBy(socket, text) {
    const deadline = Date.now() + 15_000;
    while (!socket.heard.includes(text)) {
      assert.ok(Date.now() < deadline, `${text} did not arrive: ${socket.heard}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Live connections of each node. */
  async function load() {
    return Promise.all(
      nodes.map(async (node) => {
        const text = await (await fetch(`${node.url}/metrics`)).text();
        const lines = text.split('\n').filter((line) => line.startsWith('messaging_live_connections{'));
        return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
      }),
    );
  }

  it('carries polling, WebSocket and upgrade to both nodes, and everybody hears everything', async () => {
    const clients = [];
    // Sixteen addresses: that consistent hashing puts all on one node has a chance of one in 30,000.
    for (let host = 11; host < 27; host++) {
      const transports = [['polling'], ['websocket'], ['polling', 'websocket']][host % 3];
      clients.push(await connect(host % 2 ? renter : owner, transports, host));
    }
    const upgraded = clients.filter((client) => client.io.opts.transports.length === 2);
    for (const client of upgraded) {
      const deadline = Date.now() + 15_000;
      while (client.io.engine.transport.name !== 'websocket') {
        assert.ok(Date.now() < deadline, 'the upgrade did not happen');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    const spread = await load();
    assert.ok(spread.every((count) => count > 0), `both nodes are used: ${spread}`);
    assert.equal(spread[0] + spread[1], clients.length);

    const first = await rest(renter, 'POST', '/api/messages', { receiver_id: owner.id, content: 'by REST' });
    assert.equal(first.status, 201);
    const conversation_id = first.body.data.conversation_id;
    for (const client of clients) await heardBy(client, 'by REST');
    for (const client of clients.slice(0, 6)) {
      const content = `from ${client.id}`;
      const ack = await client.timeout(15_000).emitWithAck('send_message', { conversation_id, content });
      assert.equal(ack.success, true, JSON.stringify(ack));
      for (const other of clients) await heardBy(other, content);
    }
    for (const client of clients) assert.equal(client.heard.length, new Set(client.heard).size, 'nothing comes twice');
  });

  it('carries the plain dialect at the bare address, with the token in the query and out of the log', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/?token=${encodeURIComponent(owner.token)}`);
    const heard = [];
    socket.on('message', (bytes) => heard.push(JSON.parse(bytes).event));
    await once(socket, 'open');
    const deadline = Date.now() + 15_000;
    while (!heard.includes('authenticated')) {
      assert.ok(Date.now() < deadline);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    socket.close();
    await once(socket, 'close');
    const log = readFileSync(join(folder, 'access.log'), 'utf8');
    assert.match(log, /"GET \/" 101/);
    assert.ok(!log.includes(owner.token.split('|')[1]), 'a token is in the balancer’s log');
  });

  it('keeps metrics to the inside, and tells nodes who the client is', async () => {
    assert.equal((await fetch(`${url()}/metrics`)).status, 404);
    assert.equal((await fetch(`${nodes[0].url}/metrics`)).status, 200);
  });

  it('goes on when a node leaves', async () => {
    const [leaving, staying] = nodes;
    const socket = await connect(renter, ['websocket'], 40);
    socket.io.reconnection(true);
    assert.deepEqual(await leaving.end('SIGTERM'), { code: 0, signal: null });
    for (let at = 0; at < 10; at++) {
      const { status } = await rest(owner, 'GET', '/api/conversations');
      assert.equal(status, 200);
    }
    const again = await connect(renter, ['polling'], 41);
    const sent = await rest(owner, 'POST', '/api/messages', { receiver_id: renter.id, content: 'after the node left' });
    assert.equal(sent.status, 201);
    await heardBy(again, 'after the node left');
    assert.equal((await fetch(`${staying.url}/health`)).status, 200);
  });
});
