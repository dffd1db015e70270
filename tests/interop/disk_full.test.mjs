// SQLite on a disk that fills up under load: whoever sends is told to try again, whoever reads is served, nothing that
// was confirmed is lost, and room is enough for all to go on, without a restart or after a `kill -9`.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, closeSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { connectPlain } from './support/live_clients.mjs';
import { MainApi } from './support/main_api.mjs';
import { Rest } from './support/rest.mjs';
import { Service } from './support/service.mjs';

const DISK_MB = 16;
const SENDERS = 6;
const WORDS = 'Is it still free on Friday? '.repeat(40).trim();

/** A file system of its own in memory; null where mounting is not allowed. */
function mountDisk() {
  const folder = mkdtempSync(join(tmpdir(), 'rented-disk-'));
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m`, 'tmpfs', folder]);
  if (status === 0) return folder;
  rmSync(folder, { recursive: true });
  return null;
}

const disk = mountDisk();
const skip = disk ? false : 'only root may mount a disk of a given size';

/** Takes whatever room there is left, to the last byte. */
function fill() {
  const file = openSync(join(disk, 'filler'), 'a');
  try {
    for (let bytes = 1 << 16; bytes >= 1; ) {
      try {
        if (writeSync(file, Buffer.alloc(bytes)) < bytes) bytes >>= 1;
      } catch (error) {
        if (error.code !== 'ENOSPC') throw error;
        bytes >>= 1;
      }
    }
  } finally {
    closeSync(file);
  }
}

const makeRoom = () => rmSync(join(disk, 'filler'), { force: true });

/** Sends one message after the other, each with the same id until it is confirmed. */
class Sender {
  confirmed = new Map();
  refused = 0;
  wrong = [];
  isOn = true;

  constructor(service, user, to, number) {
    Object.assign(this, { service, user, to, number });
    this.done = this.#run();
  }

  async #run() {
    for (let next = 0; this.isOn; next++) {
      const client_message_id = `${this.number}-${next}`;
      const body = { receiver_id: this.to.id, content: `${client_message_id} ${WORDS}`, client_message_id };
      while (!(await this.#post(body)) && this.isOn) await sleep(20);
    }
  }

  async #post(body) {
    const headers = { authorization: `Bearer ${this.user.token}`, 'content-type': 'application/json' };
    const url = `${this.service.url}/api/messages`;
    const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) }).catch(() => null);
    // No answer is none: the process was killed.
    const answer = await response?.json().catch(() => null);
    if (!answer) return false;
    if (answer.success) {
      if (answer.data.content !== body.content) this.wrong.push(answer);
      this.confirmed.set(body.client_message_id, { id: answer.data.id, seq: answer.data.seq });
      return true;
    }
    this.refused += 1;
    if (response.status !== 503 || answer.error.details.retryable !== true) this.wrong.push(answer);
    return false;
  }
}

describe('a full disk under SQLite', { skip }, () => {
  let mainApi, service, people, senders, listener;
  const sum = (of) => senders.reduce((total, sender) => total + of(sender), 0);
  const confirmed = () => sum((sender) => sender.confirmed.size);
  const refused = () => sum((sender) => sender.refused);
  const ready = () => fetch(`${service.url}/ready`).then(async (answer) => ({ code: answer.status, ...(await answer.json()).data }));
  const database = async () => (await ready()).dependencies.database.status;

  // A small change may find room where a message does not.
  const saysItIsFull = () => eventually('/ready says that it is full', async () => (await database()) === 'full');

  const nothingIsStored = async () => {
    await eventually('sends are refused', () => refused() > 0, 20_000);
    const before = refused();
    await eventually('and go on to be', () => refused() > before + 3 * SENDERS, 20_000);
  };

  const allIsThere = async () => {
    const rest = new Rest(service, people[1].token);
    const { body } = await rest.expect(200, 'GET', '/api/conversations');
    const messages = await rest.allMessages(body.data[0].id);
    assert.deepEqual(messages.map(({ seq }) => seq), messages.map((_, place) => place + 1), 'seq has no gap');
    const kept = new Map(messages.map((message) => [message.client_message_id, message]));
    assert.equal(kept.size, messages.length, 'nothing is stored twice');
    const rows = senders.filter(({ user }) => user === people[0]).flatMap((sender) => [...sender.confirmed]);
    for (const [id, { id: stored, seq }] of rows) {
      assert.deepEqual({ id: kept.get(id)?.id, seq: kept.get(id)?.seq }, { id: stored, seq }, `${id} was confirmed`);
    }
    return messages;
  };

  before(async () => {
    mainApi = await MainApi.start();
    people = ['Rita Renter', 'Omar Owner'].map((name) => mainApi.addUser(name));
    service = await Service.start({ env: { MAIN_API_URL: mainApi.url, DATA_DIR: disk, LOG_LEVEL: 'info' } });
    listener = await connectPlain(service, people[1].token);
    senders = Array.from({ length: SENDERS }, (_, number) => new Sender(service, people[0], people[1], number));
    await eventually('messages are confirmed', () => confirmed() > 50);
  });

  after(async () => {
    for (const sender of senders ?? []) sender.isOn = false;
    listener?.close();
    await service?.discard('disk-full');
    await mainApi?.stop();
    spawnSync('umount', [disk]);
    rmSync(disk, { recursive: true, force: true });
  });

  it('refuses sends with an error to be tried again, serves reads and says so', async () => {
    fill();
    await nothingIsStored();
    const before = confirmed();
    assert.ok((await allIsThere()).length >= before);
    await new Rest(service, people[0].token).expect(200, 'GET', '/api/sync');
    await saysItIsFull();
    const { code, status } = await ready();
    assert.deepEqual([code, status], [200, 'degraded']);
    assert.match(service.log, /the database's disk is full/);
  });

  it('goes on by itself once there is room', async () => {
    const before = confirmed();
    makeRoom();
    await eventually('messages are confirmed again', () => confirmed() > before + 50, 10_000);
    assert.equal(await database(), 'up');
    await allIsThere();
  });

  it('survives kill -9 while it is full, starts and serves reads without room, and goes on with it', async () => {
    fill();
    await nothingIsStored();
    listener.close();
    const since = listener.inbox.all('message_received').at(-1).event_seq;
    assert.equal((await service.end('SIGKILL')).signal, 'SIGKILL');
    await service.start();
    await allIsThere();
    await nothingIsStored();
    const before = confirmed();
    await saysItIsFull();
    makeRoom();
    await eventually('messages are confirmed again', () => confirmed() > before + 50, 10_000);
    listener.inbox.events.length = 0;
    listener = await connectPlain(service, people[1].token, { since });
    await eventually('the listener goes on where it was', () => listener.inbox.all('message_received').length > 50);
    listener.inbox.assertLogHasNoGap();
  });

  it('notices room without traffic', async () => {
    fill();
    await nothingIsStored();
    for (const sender of senders) sender.isOn = false;
    await Promise.all(senders.map((sender) => sender.done));
    const rest = new Rest(service, people[0].token);
    await eventually('/ready says that it is full', async () => {
      const { status } = await rest.post('/api/messages', { receiver_id: people[1].id, content: WORDS });
      assert.equal(status, 503);
      return (await database()) === 'full';
    });
    makeRoom();
    assert.equal(await database(), 'up');
  });

  it('lost nothing, repeated nothing and refused nobody for good', async () => {
    assert.deepEqual(senders.flatMap((sender) => sender.wrong), []);
    const messages = await allIsThere();
    // Up to one per sender was left unconfirmed, and may have been stored.
    assert.ok(messages.length - confirmed() <= SENDERS, `${messages.length} are stored, ${confirmed()} were confirmed`);
    assert.ok(!/panicked at/.test(service.log));
    console.log(`${confirmed()} confirmed, ${refused()} refused`);
  });
});
