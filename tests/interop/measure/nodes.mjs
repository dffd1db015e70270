// What a second node costs a message. One user writes on the first node; another one has a connection on the first and one
// on the last, so that the same message is heard locally and across, by one clock. Redis says how much was published.
//
//   node nodes.mjs --redis PORT [--messages N] [--rate N] [--first-user N] [--across-only] URL URL …
//
// Prints one `name: value` a line; ends with 1 if anything was lost, repeated or out of order.

import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { WebSocket } from 'ws';

import { eventually, sleep } from '../support/inbox.mjs';

const { values, positionals: urls } = parseArgs({
  allowPositionals: true,
  options: {
    redis: { type: 'string' },
    messages: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '100' },
    'first-user': { type: 'string', default: '900000' },
    'across-only': { type: 'boolean', default: false },
  },
});
const count = Number(values.messages);
const first = Number(values['first-user']);
const [here, there] = [urls[0], urls.at(-1)];
const WARM_UP = 20;

class Connection {
  heard = new Map();
  problems = [];
  last = 0;

  static async open(url, user) {
    const connection = new Connection();
    connection.socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws?token=user-${user}`);
    const ready = new Promise((resolve, reject) => {
      connection.socket.on('error', reject);
      connection.socket.on('message', (bytes) => connection.#take(performance.now(), JSON.parse(bytes.toString()), resolve));
    });
    await ready;
    return connection;
  }

  #take(now, { event, data }, isReady) {
    if (event === 'authenticated') isReady();
    if (data?.event_seq === undefined) return;
    if (this.last && data.event_seq !== this.last + 1) this.problems.push(`place ${data.event_seq} after ${this.last}`);
    this.last = data.event_seq;
    if (event === 'message_received') this.heard.set(data.message.content, now);
  }

  send(to, content) {
    this.socket.send(JSON.stringify({ event: 'send_message', data: { receiver_id: to, content } }));
  }
}

/** Messages published since Redis was started. */
function published() {
  const lines = execFileSync('redis-cli', ['-p', values.redis, 'INFO', 'commandstats'], { encoding: 'utf8' });
  const calls = [...lines.matchAll(/^cmdstat_s?publish:calls=(\d+)/gm)];
  return calls.reduce((sum, [, number]) => sum + Number(number), 0);
}

function quantile(numbers, share) {
  const sorted = numbers.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))].toFixed(3);
}

/** Sends at the rate, waits until all of it was heard, answers when each left. */
async function run(sender, to, hearers, prefix, messages) {
  const sent = new Map();
  const began = performance.now();
  for (let number = 0; number < messages; number++) {
    await sleep(Math.max(0, began + (number * 1000) / Number(values.rate) - performance.now()));
    const content = `${prefix} ${number}`;
    sent.set(content, performance.now());
    sender.send(to, content);
  }
  const all = () => hearers.every(({ heard }) => [...sent.keys()].every((content) => heard.has(content)));
  await eventually('everything is heard', all, 10_000);
  return sent;
}

/** What is published for messages that go on being sent when nothing else happens, once receipts are over. */
async function publishedBy(act, messages) {
  await sleep(1_500);
  const before = published();
  await act();
  await sleep(1_500);
  return ((published() - before) / messages).toFixed(2);
}

const sender = await Connection.open(here, first);
const across = await Connection.open(there, first + 1);
const open = [sender, across];
let latencies;
if (values['across-only']) {
  const sent = await run(sender, first + 1, [across], `across ${Date.now()}`, count);
  latencies = [...sent].map(([content, at]) => across.heard.get(content) - at);
  console.log(`across p50, ms: ${quantile(latencies, 0.5)}`);
  console.log(`across max, ms: ${quantile(latencies, 1)}`);
} else {
  const local = await Connection.open(here, first + 1);
  open.push(local);
  await run(sender, first + 1, [local, across], 'warm-up', WARM_UP);
  const sent = [...(await run(sender, first + 1, [local, across], 'both', count))];
  const of = (how) => sent.map(([content, at]) => how(content, at));
  for (const [name, numbers] of [
    ['local', of((content, at) => local.heard.get(content) - at)],
    ['across', of((content, at) => across.heard.get(content) - at)],
    ['across minus local', of((content) => across.heard.get(content) - local.heard.get(content))],
  ]) {
    console.log(`${name} p50, ms: ${quantile(numbers, 0.5)}`);
    console.log(`${name} p99, ms: ${quantile(numbers, 0.99)}`);
  }
  local.socket.terminate();
}
if (values.redis) {
  const messages = Math.min(count, 300);
  const crossing = await publishedBy(() => run(sender, first + 1, [across], `counted ${Date.now()}`, messages), messages);
  console.log(`publishes a message, receipts included: ${crossing}`);
  const toNobody = await publishedBy(async () => {
    for (let number = 0; number < 50; number++) {
      const headers = { authorization: `Bearer user-${first + 2}`, 'content-type': 'application/json' };
      const body = JSON.stringify({ receiver_id: first + 3, content: `unheard ${number}` });
      const { status } = await fetch(`${here}/api/messages`, { method: 'POST', headers, body });
      if (status !== 201) throw new Error(`a message was answered ${status}`);
    }
  }, 50);
  console.log(`publishes a message between users without a connection: ${toNobody}`);
}
const problems = open.flatMap((connection) => connection.problems);
for (const problem of problems) console.error(problem);
for (const { socket } of open) socket.terminate();
process.exit(problems.length > 0 ? 1 : 0);
