// Mail about unread messages, through a mail server and a mail parser of others: once, to whom it is for, over each kind
// of connection; and once too when the service is killed between claiming and sending.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { eventually, sleep } from './support/inbox.mjs';
import { MAIL_CERTIFICATE, MailServer, mailSettings, USER } from './support/mail_server.mjs';
import { Service } from './support/service.mjs';
import { DATABASES, unavailable } from './support/databases.mjs';
import { World } from './support/world.mjs';

/** The body of a suite with a mail server and a world whose service sends there. */
function withMail(name, { mode, database }, body) {
  const why = unavailable(database);
  if (why) return it(name, { skip: why }, () => {});
  describe(name, () => {
    const stage = {};
    before(async () => {
      stage.server = await MailServer.start(mode);
      stage.world = new World({ database, name, env: mailSettings(stage.server) });
      await stage.world.start();
    });
    after(async () => {
      await stage.world?.stop();
      await stage.server?.stop();
    });
    body(stage);
    it('keeps texts and addresses out of its log', () => stage.world.assertLogIsClean());
  });
}

/** The renter writes to an owner whose address the service knows. */
async function write(world, words) {
  const { renter, owner, product } = world.pair();
  await owner.rest.expect(200, 'GET', '/api/conversations');
  const text = world.text(words);
  const body = { receiver_id: owner.id, product_id: product.id, content: text };
  const sent = await renter.rest.expect(201, 'POST', '/api/messages', { body });
  return { renter, owner, text, conversationId: sent.body.data.conversation_id };
}

for (const [mode, database] of [['plain', 'sqlite'], ['plain', 'postgres'], ['starttls', 'sqlite'], ['tls', 'sqlite']]) {
  withMail(`mail over ${mode}, on ${database}`, { mode, database }, (stage) => {
    it('arrives once, says what it should, and is stopped by one click', async () => {
      const { world, server } = stage;
      const { renter, owner, text, conversationId } = await write(world, 'Is it free on Friday? <b>كاميرا</b> & more');
      await eventually('the mail', () => server.to(owner.email).length > 0, 20_000);
      const [{ from, to, secure, user, mail }] = server.to(owner.email);
      assert.deepEqual([from, to], ['no-reply@rented.example.test', [owner.email]]);
      assert.deepEqual([secure, user], mode === 'plain' ? [false, null] : [true, USER]);
      assert.equal(mail.subject, 'Rita Renter about Camera');
      assert.deepEqual(mail.from, { address: 'no-reply@rented.example.test', name: 'Rented' });
      assert.equal(mail.attachments.length, 0);
      const shown = text.replace(/<\/?b>/g, '');
      assert.ok(mail.text.includes(shown), mail.text);
      assert.ok(mail.html.includes(shown.replace('&', '&amp;')), mail.html);
      assert.ok(mail.text.includes(`https://app.example.test/conversations/${conversationId}`), mail.text);
      const header = (name) => mail.headers.find(({ key }) => key === name)?.value;
      assert.equal(header('list-unsubscribe-post'), 'List-Unsubscribe=One-Click');
      assert.equal(header('auto-submitted'), 'auto-generated');
      assert.ok(Math.abs(Date.parse(mail.date) - Date.now()) < 120_000, mail.date);

      // What Rita writes now is told of only after Omar has read the rest.
      const body = { conversation_id: conversationId, content: world.text('more') };
      await renter.rest.expect(201, 'POST', '/api/messages', { body });
      await sleep(3000);
      assert.equal(server.to(owner.email).length, 1);
      assert.equal(server.to(renter.email).length, 0);

      const link = header('list-unsubscribe').replace(/^<https:\/\/chat\.example\.test|>$/g, '');
      const click = await fetch(world.service.url + link, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: 'List-Unsubscribe=One-Click',
      });
      assert.equal(click.status, 200);
      const preferences = await owner.rest.expect(200, 'GET', '/api/notifications/preferences');
      assert.equal(preferences.body.data.email, false);
    });
  });
}

for (const database of DATABASES) {
  withMail(`mail and kill -9, on ${database}`, { mode: 'plain', database }, (stage) => {
    it('is sent once by the process that comes after the one killed between claim and sending', async () => {
      const { world, server } = stage;
      server.hang(true);
      const { owner } = await write(world, 'hello');
      await eventually('an attempt', () => server.arrived > 0, 20_000);
      await world.service.end('SIGKILL');
      server.hang(false);
      await world.service.start();
      await eventually('the mail', () => server.to(owner.email).length > 0, 30_000);
      await sleep(3000);
      assert.equal(server.to(owner.email).length, 1);
    });
  });
}

it('a certificate that nobody vouches for gets no mail and no password', async () => {
  const server = await MailServer.start('tls');
  // A certificate, but not that of whoever signed the server's.
  const env = { ...mailSettings(server), SSL_CERT_FILE: MAIL_CERTIFICATE };
  const world = new World({ name: 'mail without trust', env });
  try {
    await world.start();
    await write(world, 'hello');
    await eventually('an attempt', () => world.service.log.includes('no connection to the mail server'), 20_000);
    assert.deepEqual([server.mails.length, server.arrived, server.signIns], [0, 0, 0]);
  } finally {
    await world.stop();
    await server.stop();
  }
});

it('what is missing beside SMTP_URL stops the start with one sentence and 78', async () => {
  const settings = { ...mailSettings({ url: 'smtp://localhost:1' }), MAIN_API_URL: 'http://localhost:1' };
  for (const name of ['EMAIL_FROM', 'APP_URL', 'PUBLIC_URL']) {
    const { code, stderr } = await Service.run(['serve'], { env: { ...settings, [name]: null } });
    assert.equal(code, 78, stderr);
    assert.match(stderr, new RegExp(`^rented-messaging: ${name} is not set, but SMTP_URL is: [^\\n]+\\.\\n$`));
  }
  const { code, stderr } = await Service.run(['check-config'], { env: { ...settings, EMAIL_TEMPLATES: '/nowhere' } });
  assert.deepEqual([code, stderr.split('\n').length], [78, 2], stderr);
});
