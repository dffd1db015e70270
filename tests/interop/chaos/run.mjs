// A run: three nodes over one PostgreSQL and one Redis, people who write to each other, and faults one after the other;
// at the end everybody's view is compared with what is kept. Called by scripts/chaos, which says how.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { sleep } from '../support/inbox.mjs';
import { MainApi } from '../support/main_api.mjs';
import { freePort, Service } from '../support/service.mjs';
import { unmovable, WallClock } from '../support/wall_clock.mjs';
import { check, get } from './check.mjs';
import { FAULTS } from './faults.mjs';
import { Person } from './person.mjs';
import { Proxy } from './proxy.mjs';
import { Random } from './random.mjs';
import { postgres, redis } from './servers.mjs';

const NODES = 3;
const PEOPLE = 12;
/** What the service promises after the return of Redis; the database's recovery comes on top, hence more for all. */
const HEALED_WITHIN_MS = 5_000;
const HEALED_WITH_DATABASE_MS = 15_000;

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string' },
    seconds: { type: 'string', default: '120' },
    only: { type: 'string' },
    long: { type: 'boolean', default: false },
  },
});
const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 32));
const random = new Random(seed);
const began = Date.now();
const say = (line) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}`);

console.log(`scripts/chaos --seed ${seed} --seconds ${options.seconds}${options.long ? ' --long' : ''}${options.only ? ` --only '${options.only}'` : ''}`);

if (unmovable) console.log(`skipped: the clock of a node jumps: ${unmovable}`);

const folder = mkdtempSync(join(tmpdir(), 'rented-chaos-'));
const world = { nodes: [], people: [], violations: [], random, long: options.long };
let failed = true;
try {
  await open();
  failed = !(await run());
} finally {
  await close();
}
process.exit(failed ? 1 : 0);

async function open() {
  const port = Number(process.env.CHAOS_POSTGRES_PORT);
  world.postgres = postgres(port, JSON.parse(process.env.CHAOS_POSTGRES_COMMAND));
  await world.postgres.start();
  world.redis = redis(await freePort(), folder);
  await world.redis.start();
  world.mainApi = await MainApi.start();
  await databaseAnswers();
  for (let number = 0; number < NODES; number++) {
    const [postgresProxy, redisProxy] = [await Proxy.to(port), await Proxy.to(world.redis.port)];
    const url = new URL(process.env.CHAOS_DATABASE_URL);
    url.port = String(postgresProxy.port);
    const clock = new WallClock(folder, `clock-${number}`);
    const node = await Service.start({
      env: {
        ...clock.env,
        DATABASE_URL: url.href,
        REDIS_URL: `redis://127.0.0.1:${redisProxy.port}`,
        MAIN_API_URL: world.mainApi.url,
        DB_TIMEOUT: '3000',
        LOG_LEVEL: 'info',
      },
    });
    world.nodes.push(Object.assign(node, { postgresProxy, redisProxy, clock }));
  }
  for (let number = 0; number < PEOPLE; number++) {
    const user = world.mainApi.addUser(`Person ${number}`);
    const person = new Person({ user, nodes: world.nodes, random: new Random(seed + number) });
    world.people.push(person);
    person.living = person.live();
  }
}

/** Accepting connections is not yet answering them. */
async function databaseAnswers() {
  const { execFileSync } = await import('node:child_process');
  for (let tries = 0; ; tries++) {
    try {
      execFileSync('psql', ['-X', '-q', '-d', process.env.CHAOS_DATABASE_URL, '-c', 'select 1'], { stdio: 'ignore' });
      return;
    } catch (error) {
      if (tries > 100) throw error;
      await sleep(100);
    }
  }
}

async function run() {
  const writing = { isOn: true, done: [] };
  for (const [index, person] of world.people.entries()) writing.done.push(write(person, index, writing));
  writing.done.push(disturb(writing));
  await sleep(2_000);

  const wanted = options.only ? options.only.split(',').map((name) => name.trim()) : Object.keys(FAULTS);
  const unknown = wanted.filter((name) => !FAULTS[name]);
  if (unknown.length > 0) throw new Error(`there is no fault «${unknown}»; there are: ${Object.keys(FAULTS).join(', ')}`);
  const deadline = began + Number(options.seconds) * 1000;
  const results = new Map();
  let queue = [];
  while (Date.now() < deadline) {
    if (queue.length === 0) queue = random.shuffled(wanted);
    await inject(queue.shift(), results);
  }

  say('quiet: no more faults, what is under way is finished');
  writing.isOn = false;
  await Promise.all(writing.done);
  const problems = [...world.violations, ...(await settle())];
  problems.push(...(await check(world.people, world.nodes[0])));
  report(results, problems);
  return problems.length === 0;
}

async function write(person, index, writing) {
  // Everybody has a partner and now and then somebody else.
  const partner = world.people[index ^ 1];
  for (let number = 0; writing.isOn; number++) {
    const to = person.random.next() < 0.85 ? partner : person.random.pick(world.people.filter((other) => other !== person));
    await person.send(to, `message ${number} of ${person.user.id}`);
    const last = person.heard.findLast(({ event, data }) => event === 'message_received' && data.message.sender_id !== person.user.id);
    if (last && person.random.next() < 0.2) {
      await person.ask('mark_read', { conversation_id: last.data.conversation_id, up_to_id: last.data.message.id });
    }
    await sleep(person.random.between(20, 200));
  }
}

/** People lose their network all the time. */
async function disturb(writing) {
  while (writing.isOn) {
    await sleep(random.between(200, 800));
    random.pick(world.people).drop();
  }
}

/** One fault, and how long it takes until a message crosses from any node to any other again. */
async function inject(name, results) {
  say(name);
  const before = world.violations.length;
  await FAULTS[name](world).catch((error) => world.violations.push(`${name}: ${error.stack}`));
  const healed = Date.now();
  const patience = /PostgreSQL|database|node|nodes/.test(name) ? HEALED_WITH_DATABASE_MS : HEALED_WITHIN_MS;
  await Promise.all(world.people.map((person, index) => probe(person, world.people[index ^ 1], healed + patience, name)));
  const took = Date.now() - healed;
  const result = results.get(name) ?? { times: 0, slowest: 0, problems: 0 };
  result.times += 1;
  result.slowest = Math.max(result.slowest, took);
  result.problems += world.violations.length - before;
  results.set(name, result);
  say(`  healed ${took} ms after its end`);
  await sleep(1_000);
}

async function probe(person, to, deadline, name) {
  const content = `probe ${Date.now()} ${person.user.id}`;
  const message = await person.send(to, content);
  const left = Math.max(0, deadline - Date.now());
  const heard = await to.hears(({ event, data }) => event === 'message_received' && data.message.content === content, left);
  if (!heard) world.violations.push(`after «${name}» a message from ${person.user.id} (confirmed: ${Boolean(message.confirmed)}) was not heard by ${to.user.id} in time`);
}

/** Everybody hears all there is; delivery marks of the last messages come a little later. */
async function settle() {
  const deadline = Date.now() + 20_000;
  for (let quiet = 0; Date.now() < deadline; await sleep(250)) {
    const heads = await Promise.all(
      world.people.map((person) => get(world.nodes[0], person, '/api/sync').then(({ data }) => data.last_event_seq, () => -1)),
    );
    quiet = heads.every((head, index) => head === world.people[index].since) ? quiet + 1 : 0;
    if (quiet >= 4) return [];
  }
  return world.people
    .map((person) => `user ${person.user.id} has not heard everything: last place ${person.since}`)
    .slice(0, 3);
}

function report(results, problems) {
  const confirmed = world.people.reduce((sum, { sent }) => sum + sent.filter((message) => message.confirmed).length, 0);
  const heard = world.people.reduce((sum, person) => sum + person.heard.length, 0);
  console.log(`\n${'fault'.padEnd(48)} times  slowest healing`);
  for (const [name, { times, slowest }] of results) {
    console.log(`${name.padEnd(48)} ${String(times).padStart(5)}  ${String(slowest).padStart(9)} ms`);
  }
  const refusals = new Map();
  for (const person of world.people) for (const [code, count] of person.refusals) refusals.set(code, (refusals.get(code) ?? 0) + count);
  console.log(`\n${confirmed} messages confirmed, ${heard} stored events heard by ${world.people.length} people`);
  console.log(`refused, to be tried again: ${[...refusals].map(([code, count]) => `${code} ${count}`).join(', ') || 'none'}`);
  for (const problem of problems.slice(0, 40)) console.log(`PROBLEM  ${problem}`);
  console.log(problems.length === 0 ? 'nothing lost, repeated or out of order' : `${problems.length} problems; seed ${seed}`);
}

async function close() {
  for (const person of world.people) person.leave();
  world.postgres?.signal('SIGCONT');
  world.redis?.signal('SIGCONT');
  for (const [number, node] of world.nodes.entries()) {
    if (node.pid) {
      try {
        process.kill(node.pid, 'SIGCONT');
      } catch {
        // It is gone.
      }
    }
    await node.discard(`chaos-${number}`);
    node.postgresProxy.close();
    node.redisProxy.close();
  }
  await world.mainApi?.stop();
  await world.redis?.stop();
  await world.postgres?.stop();
  rmSync(folder, { recursive: true, force: true });
}
