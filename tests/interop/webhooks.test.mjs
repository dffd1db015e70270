// Webhooks as their receiver gets them, with the public library of Standard Webhooks (npm `standardwebhooks`) checking
// every signature; and `kill -9` in the middle of telling.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, it } from 'node:test';
import { randomBytes } from 'node:crypto';

import { Webhook, WebhookVerificationError } from 'standardwebhooks';

import { DATABASES, unavailable } from './support/databases.mjs';
import { eventually } from './support/inbox.mjs';
import { withWorld } from './support/world.mjs';

const secret = () => `whsec_${randomBytes(32).toString('base64')}`;

class Receiver {
  /** Attempts that came: `{id, body, headers, payload, status}`; the status is null until they are answered. */
  attempts = [];
  /** The status to answer an attempt with; a promise of one makes the sender wait. */
  answer = () => 204;

  constructor(secrets) {
    this.secrets = secrets;
    this.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const payload = Buffer.concat(chunks).toString();
      const { headers } = request;
      const attempt = { id: headers['webhook-id'], headers, payload, body: JSON.parse(payload), status: null };
      this.attempts.push(attempt);
      response.statusCode = await this.answer(attempt);
      attempt.status = response.statusCode;
      response.end('ok');
    });
  }

  async start() {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.url = `http://127.0.0.1:${this.server.address().port}/hooks`;
    return this;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }

  of(type, about = () => true) {
    return this.attempts.filter(({ body }) => body.type === type && about(body.data));
  }
}

for (const database of DATABASES) {
  const title = `webhooks, on ${database}`;
  const why = unavailable(database);
  if (why) {
    it(title, { skip: why }, () => {});
    continue;
  }
  const secrets = [secret(), secret()];
  const receiver = await new Receiver(secrets).start();
  const serviceKey = randomBytes(24).toString('hex');
  const env = {
    WEBHOOK_URL: receiver.url,
    WEBHOOK_SECRET: secrets[0],
    WEBHOOK_SECRET_PREVIOUS: secrets[1],
    WEBHOOK_RETRY_BASE: '50',
    WEBHOOK_TIMEOUT: '1000',
    SERVICE_API_KEY: serviceKey,
  };
  withWorld(title, { database, env, survives: false }, (world) => {
    world.secrets.push(...secrets, serviceKey);
    after(() => receiver.stop());

    it('the public library takes every event by either secret, and none by another or changed', async () => {
      const { renter, owner, conversationId } = await world.talkingPair();
      await owner.rest.expect(200, 'POST', `/api/conversations/${conversationId}/read`);
      await owner.rest.expect(200, 'POST', `/api/users/${renter.id}/block`);
      await owner.rest.expect(200, 'DELETE', `/api/users/${renter.id}/block`);
      await eventually('every event', () => receiver.attempts.length === 5);
      // Of one conversation they come in order, of several beside each other.
      const types = receiver.attempts.map(({ body }) => body.type);
      assert.deepEqual(types.filter((type) => !type.startsWith('user')), ['conversation.created', 'message.created', 'message.read']);
      assert.deepEqual(types.sort(), ['conversation.created', 'message.created', 'message.read', 'user.blocked', 'user.unblocked']);
      for (const { payload, headers, body } of receiver.attempts) {
        for (const known of secrets) assert.deepEqual(new Webhook(known).verify(payload, headers), body);
        assert.throws(() => new Webhook(secret()).verify(payload, headers), WebhookVerificationError);
        assert.throws(() => new Webhook(secrets[0]).verify(payload.replace('"', "'"), headers), WebhookVerificationError);
        assert.throws(() => new Webhook(secrets[0]).verify(payload, { ...headers, 'webhook-id': 'evt_other' }), WebhookVerificationError);
      }
      const [{ data }] = receiver.of('message.created').map(({ body }) => body);
      assert.deepEqual([data.sender_id, data.recipient_id, data.conversation_id], [renter.id, owner.id, conversationId]);
    });

    it('kill -9 in the middle of telling loses nothing', async () => {
      const { renter, conversationId } = await world.talkingPair();
      const isOurs = (data) => data.conversation_id === conversationId;
      await eventually('the first message', () => receiver.of('message.created', isOurs).length === 1);
      const sent = new Set();
      // From the fifth on nobody is answered any more; then the process dies.
      let taken = 0;
      let isDead = false;
      receiver.answer = () => ((taken += 1) <= 5 || isDead ? 200 : new Promise(() => {}));
      for (let number = 0; number < 40; number += 1) {
        const { body } = await renter.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } });
        sent.add(body.data.id);
      }
      await eventually('one that hangs', () => taken > 5);
      await world.service.end('SIGKILL');
      isDead = true;
      await world.service.start();
      const arrived = () => new Set(receiver.of('message.created', isOurs).filter(({ status }) => status === 200).map(({ body }) => body.data.message.id));
      await eventually('all messages', () => [...sent].every((id) => arrived().has(id)), 30_000);
      // What was answered before is not told again; what was cut off is, under the same id.
      const ids = new Map();
      for (const { id, body } of receiver.of('message.created', isOurs)) ids.set(body.data.message.id, (ids.get(body.data.message.id) ?? new Set()).add(id));
      for (const [message, events] of ids) assert.equal(events.size, 1, `message ${message} under ${[...events]}`);
      for (const { payload, headers } of receiver.attempts) new Webhook(secrets[0]).verify(payload, headers);
    });
  });
}
