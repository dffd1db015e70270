// What a run breaks, one thing at a time (design section 5). Each breaks something, lasts, mends it, and leaves
// behind what it noticed by itself; whether anything was lost the checker says.

import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { WebSocket } from 'ws';

import { sleep } from '../support/inbox.mjs';
import { unmovable } from '../support/wall_clock.mjs';
import { redisCommand } from './servers.mjs';

/** `world`: `{nodes, postgres, redis, random, violations, long}`. */
export const FAULTS = {
  async 'a node is killed'(world) {
    const node = world.random.pick(world.nodes);
    await node.end('SIGKILL');
    await sleep(world.random.between(200, 2_000));
    await node.start();
  },

  async 'a node is told to leave'(world) {
    await leave(world, world.random.pick(world.nodes));
  },

  async 'all nodes are restarted one after the other'(world) {
    for (const node of world.nodes) {
      await leave(world, node);
      await sleep(500);
    }
  },

  async 'a node stands still'(world) {
    const node = world.random.pick(world.nodes);
    process.kill(node.pid, 'SIGSTOP');
    await sleep(world.long ? 90_000 : world.random.between(6_000, 14_000));
    process.kill(node.pid, 'SIGCONT');
  },

  async 'a node is cut off from Redis'(world) {
    const { redisProxy } = world.random.pick(world.nodes);
    redisProxy[world.random.pick(['hold', 'cut'])]();
    await sleep(world.random.between(4_000, 12_000));
    redisProxy.restore();
  },

  async 'a node is cut off from the database'(world) {
    const { postgresProxy } = world.random.pick(world.nodes);
    postgresProxy[world.random.pick(['hold', 'cut'])]();
    await sleep(world.random.between(3_000, 8_000));
    postgresProxy.restore();
  },

  async 'PostgreSQL is killed'(world) {
    await world.postgres.kill();
    await sleep(world.random.between(200, 1_000));
    await world.postgres.start();
  },

  async 'PostgreSQL is away for a while'(world) {
    await world.postgres.stop();
    await sleep(world.long ? 30_000 : 5_000);
    for (const node of world.nodes) {
      const ready = await fetch(`${node.url}/ready`, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
      if (ready?.status !== 503) world.violations.push(`/ready says ${ready?.status} without a database`);
    }
    await world.postgres.start();
  },

  async 'PostgreSQL stands still'(world) {
    world.postgres.signal('SIGSTOP');
    await sleep(world.long ? 20_000 : 7_000);
    world.postgres.signal('SIGCONT');
  },

  async 'Redis is killed'(world) {
    await world.redis.kill();
    await sleep(world.random.between(500, 4_000));
    await world.redis.start();
  },

  async 'Redis is emptied'(world) {
    redisCommand(world.redis.port, 'FLUSHALL');
    await sleep(1_000);
  },

  async 'Redis stands still'(world) {
    world.redis.signal('SIGSTOP');
    await sleep(world.random.between(3_000, 6_000));
    world.redis.signal('SIGCONT');
  },

  async 'publications are lost'(world) {
    for (let round = 0; round < 5; round++) {
      redisCommand(world.redis.port, 'CLIENT', 'KILL', 'TYPE', 'pubsub');
      await sleep(400);
    }
  },

  async 'a client stops reading'(world) {
    const node = world.random.pick(world.nodes);
    const user = world.people[0].user;
    const socket = new WebSocket(`${node.wsUrl}/ws?token=${encodeURIComponent(user.token)}&since=0`);
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('open', resolve).once('close', resolve));
    socket.pause();
    await sleep(5_000);
    socket.terminate();
  },

  async 'the clock of a node jumps'(world) {
    if (unmovable) return;
    const { clock } = world.random.pick(world.nodes);
    for (const seconds of [3_600, 0, -3_600, 0]) {
      clock.jump(seconds);
      await sleep(world.random.between(2_000, 4_000));
    }
  },

  async 'thousands connect and are gone'(world) {
    const node = world.random.pick(world.nodes);
    const descriptors = () => readdirSync(`/proc/${node.pid}/fd`).length;
    const before = descriptors();
    for (let round = 0; round < (world.long ? 20 : 4); round++) {
      const sockets = Array.from({ length: 500 }, () => {
        const socket = connect(node.port, '127.0.0.1');
        socket.on('error', () => {});
        socket.write('GET /ws?token=nobody HTTP/1.1\r\nHost: x\r\n');
        return socket;
      });
      await sleep(300);
      for (const socket of sockets) socket.resetAndDestroy();
    }
    await sleep(2_000);
    const after = descriptors();
    if (after > before + 50) world.violations.push(`${after} descriptors are open, ${before} were before the storm`);
  },
};

async function leave(world, node) {
  const began = Date.now();
  const { code, signal } = await node.end('SIGTERM', 15_000);
  const took = Date.now() - began;
  if (code !== 0) world.violations.push(`SIGTERM ended with code ${code}, signal ${signal}`);
  if (took > 10_500) world.violations.push(`SIGTERM took ${took} ms`);
  await node.start();
}
