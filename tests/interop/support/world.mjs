// What a suite stands on: the main API's stand-in, a database, the service between them, and people. Opens with
// `onEachDatabase`, which runs a suite on SQLite and PostgreSQL and ends it with a look into the log.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';

import { createDatabase, DATABASES, unavailable } from './databases.mjs';
import { assertEventShapes } from './shapes.mjs';
import { MainApi } from './main_api.mjs';
import { Rest } from './rest.mjs';
import { Service } from './service.mjs';

/** The name of a suite that only holds tests together; reports leave it out. */
export const GROUP = '(together)';

// In every text that a test sends, so that a log that repeats one is found out.
const TEXT_MARK = 'Rhabarber';

export class World {
  #clients = new Set();
  #database = null;
  secrets = [];

  constructor({ database = 'sqlite', env = {}, name }) {
    Object.assign(this, { databaseKind: database, env, name });
  }

  async start() {
    this.mainApi = await MainApi.start();
    this.#database = await createDatabase(this.databaseKind);
    const env = { MAIN_API_URL: this.mainApi.url, ...this.#database.env, ...this.env };
    this.service = await Service.start({ env });
    this.firstPid = this.service.pid;
  }

  async stop() {
    for (const client of this.#clients) client.close();
    await this.service?.discard(this.name);
    await this.mainApi?.stop();
    await this.#database?.drop();
  }

  /** Two people and a product of the second one's. */
  pair() {
    const renter = this.person('Rita Renter');
    const owner = this.person('Omar Owner');
    return { renter, owner, product: this.mainApi.addProduct(owner) };
  }

  person(name) {
    const user = this.mainApi.addUser(name);
    return Object.assign(user, { rest: new Rest(this.service, user.token) });
  }

  /** A pair that already talks: its conversation's id, and the first message. */
  async talkingPair() {
    const pair = this.pair();
    const { body } = await pair.renter.rest.expect(201, 'POST', '/api/messages', {
      body: { receiver_id: pair.owner.id, product_id: pair.product.id, content: this.text('hello') },
    });
    return { ...pair, first: body.data, conversationId: body.data.conversation_id };
  }

  /** Connects with one of the `DIALECTS`; closed when the world ends. */
  async connect(dialect, user, options) {
    const client = await dialect(this.service, user.token, options);
    this.#clients.add(client);
    return client;
  }

  /** A text that no other test sends and that the log must not repeat. */
  text(words = 'hello') {
    return `${words} ${TEXT_MARK} ${randomBytes(4).toString('hex')}`;
  }

  /** Fails if any event of any client so far broke its shape, its order or came twice. */
  assertStreams() {
    for (const { inbox } of this.#clients) {
      assertEventShapes(inbox);
      inbox.assertLogHasNoGap();
    }
  }

  assertLogIsClean() {
    const { log } = this.service;
    assert.ok(!/panicked at/.test(log), `a panic: ${/.*panicked at[^]{0,500}/.exec(log)?.[0]}`);
    assert.ok(!log.includes(TEXT_MARK), `a message text: ${lineWith(log, TEXT_MARK)}`);
    for (const secret of [...this.mainApi.secrets, ...this.secrets]) {
      assert.ok(!log.includes(secret), `a token or an e-mail address: ${lineWith(log, secret)}`);
    }
  }
}

/**
 * A suite on a world of its own. `options.env` is what its service is told besides; `options.survives: false` for
 * suites that end the process themselves.
 */
export function withWorld(name, options, body) {
  const { concurrency, survives = true } = options;
  describe(name, () => {
    const world = new World({ ...options, name });
    before(() => world.start());
    after(() => world.stop());
    describe(GROUP, { concurrency }, () => body(world));
    it('gave every connection its events in shape, in order and once', () => world.assertStreams());
    it('keeps tokens, texts and addresses out of its log and never panics', () => world.assertLogIsClean());
    if (survives) {
      it('is the same process as at the start, still serving', async () => {
        assert.equal(world.service.pid, world.firstPid);
        const answer = await new Rest(world.service).expect(200, 'GET', '/health');
        assert.equal(answer.body.success, true);
      });
    }
  });
}

/** The suite on every database; one that is not there is skipped with its reason. */
export function onEachDatabase(name, options, body) {
  for (const database of DATABASES) {
    const title = `${name}, on ${database}`;
    const why = unavailable(database);
    if (why) it(title, { skip: why }, () => {});
    else withWorld(title, { ...options, database }, body);
  }
}

function lineWith(log, needle) {
  return log.split('\n').find((line) => line.includes(needle))?.slice(0, 600);
}
