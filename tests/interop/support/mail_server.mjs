// A mail server that this project did not write (npm smtp-server), whose mail a parser of others reads (postal-mime).
// With a user and a password, and encrypted by a certificate of `keys/`, which exist for tests alone.

import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import PostalMime from 'postal-mime';
import { SMTPServer } from 'smtp-server';

const key = (name) => fileURLToPath(new URL(`../keys/${name}`, import.meta.url));

/** What the service needs to trust the server's certificate. */
export const CA_FILE = key('test-ca.pem');
export const MAIL_CERTIFICATE = key('test-mail.pem');
export const USER = 'rented@example.test';
export const PASSWORD = 'not/a:secret@all';

export class MailServer {
  /** Every mail that was taken: `{from, to, secure, user, mail}`, parsed. */
  mails = [];
  /** How many contents arrived, taken or not. */
  arrived = 0;
  /** How often somebody introduced themselves. */
  signIns = 0;
  #server = null;
  #hangs = false;

  /** `mode`: `plain`, `starttls` or `tls`. */
  static async start(mode) {
    const mails = new MailServer();
    const encrypted = mode !== 'plain';
    mails.#server = new SMTPServer({
      secure: mode === 'tls',
      ...(encrypted && { key: readFileSync(key('test-mail.key')), cert: readFileSync(key('test-mail.pem')) }),
      disabledCommands: mode === 'starttls' ? [] : ['STARTTLS'],
      authOptional: !encrypted,
      logger: false,
      onAuth({ username, password }, _session, done) {
        mails.signIns += 1;
        const fits = username === USER && password === PASSWORD;
        done(fits ? null : new Error('no such user'), { user: username });
      },
      onData: (stream, session, done) => mails.#take(stream, session, done),
    });
    mails.#server.on('error', () => {});
    mails.#server.listen(0, '127.0.0.1');
    await once(mails.#server.server, 'listening');
    const { port } = mails.#server.server.address();
    const user = `${encodeURIComponent(USER)}:${encodeURIComponent(PASSWORD)}@`;
    mails.url = {
      plain: `smtp://127.0.0.1:${port}`,
      starttls: `smtp://${user}localhost:${port}?tls=required`,
      tls: `smtps://${user}localhost:${port}`,
    }[mode];
    return mails;
  }

  /** From now on contents are not answered, and not taken. */
  hang(hangs) {
    this.#hangs = hangs;
  }

  to(address) {
    return this.mails.filter((mail) => mail.to.includes(address));
  }

  async stop() {
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #take(stream, session, done) {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    this.arrived += 1;
    if (this.#hangs) return;
    const mail = await PostalMime.parse(Buffer.concat(chunks));
    const { mailFrom, rcptTo } = session.envelope;
    const to = rcptTo.map(({ address }) => address);
    this.mails.push({ from: mailFrom.address, to, secure: session.secure, user: session.user ?? null, mail });
    done();
  }
}

/** What the service is told to send mail there soon. */
export function mailSettings(server, delaySeconds = 1) {
  return {
    SMTP_URL: server.url,
    SMTP_TIMEOUT: '1000',
    SSL_CERT_FILE: CA_FILE,
    EMAIL_FROM: 'Rented <no-reply@rented.example.test>',
    EMAIL_DELAY: String(delaySeconds),
    APP_URL: 'https://app.example.test/conversations/{conversation_id}',
    PUBLIC_URL: 'https://chat.example.test',
  };
}
