// The stand-in main API: users, tokens and products in the shapes of the real one (Laravel with Sanctum), and a
// switch for each way in which the real one fails. Tests hold it as an object; other programs steer the same switch
// over HTTP (`POST /_control`). It knows nothing of messaging.

import { createHmac, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const NOW = '2025-12-05T10:30:00.000000Z';

export class MainApi {
  #server = null;
  #port = 0;
  #users = new Map();
  #tokens = new Map();
  #products = new Map();
  #nextUser = 1;
  #nextProduct = 5;
  #behaviour = { mode: 'ok' };
  /** Every call so far: `{method, path, token, headers}`. */
  calls = [];

  static async start(port = 0) {
    const api = new MainApi();
    await api.#listen(port);
    return api;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}/api/v1`;
  }

  /** A new user with a Sanctum-like token of their own. */
  addUser(name) {
    const id = this.#nextUser++;
    const user = {
      id,
      name,
      email: `user${id}-${randomBytes(4).toString('hex')}@people.example.test`,
      avatar_url: id % 2 ? `http://main-api.example.test/avatars/${id}.png` : null,
    };
    this.#users.set(id, user);
    return { ...user, token: this.issueToken(user) };
  }

  /** A further token of the user: the given one, or `<number>|<40 characters>` as Sanctum writes them. */
  issueToken(user, token = `${this.#tokens.size + 1}|${randomBytes(20).toString('hex')}`) {
    this.#tokens.set(token, user.id);
    return token;
  }

  revoke(token) {
    this.#tokens.delete(token);
  }

  /** Everything that must never show up in a log: tokens (without Sanctum's public number) and e-mail addresses. */
  get secrets() {
    return [
      ...[...this.#tokens.keys()].map((token) => token.split('|').at(-1)),
      ...[...this.#users.values()].map((user) => user.email),
    ];
  }

  /** A new product; one that is not approved is shown to its owner only. */
  addProduct(owner, { title = 'Camera', approved = true } = {}) {
    const id = this.#nextProduct++;
    const product = { id, title, approved, owner_id: owner.id };
    this.#products.set(id, product);
    return product;
  }

  /**
   * How it answers from now on: `{mode: 'ok'}`, `{mode: 'slow', delay_ms}`, `{mode: 'hang'}`, `{mode: 'html'}`,
   * `{mode: 'status', status, headers?}` or `{mode: 'down'}` (the port is closed).
   */
  async behave(behaviour) {
    const wasDown = this.#behaviour.mode === 'down';
    this.#behaviour = typeof behaviour === 'string' ? { mode: behaviour } : behaviour;
    if (this.#behaviour.mode === 'down') await this.#close();
    else if (wasDown) await this.#listen(this.#port);
  }

  /** How often `GET /user` was asked with this token. */
  userCalls(token) {
    return this.calls.filter((call) => call.path === '/user' && call.token === token).length;
  }

  async stop() {
    await this.#close();
  }

  async #listen(port) {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    await new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
    this.#port = this.#server.address().port;
  }

  async #close() {
    if (!this.#server) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
    this.#server = null;
  }

  async #answer(request, response) {
    const url = new URL(request.url, 'http://main-api');
    if (url.pathname === '/_control') return this.#control(request, response);

    const path = url.pathname.replace(/^\/api\/v1/, '') || '/';
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? null;
    this.calls.push({ method: request.method, path, token, headers: request.headers });

    const { mode, delay_ms, status, headers } = this.#behaviour;
    if (mode === 'hang') return;
    if (mode === 'slow') await new Promise((resolve) => setTimeout(resolve, delay_ms));
    if (mode === 'html') return send(response, 200, '<!DOCTYPE html><title>Maintenance</title>', { 'content-type': 'text/html' });
    if (mode === 'status') return send(response, status, { message: 'Server Error' }, headers);
    this.#route(request, path, token, response);
  }

  #route(request, path, token, response) {
    const caller = this.#users.get(this.#tokens.get(token));
    const product = /^\/products\/(\d+)$/.exec(path);
    if (request.method === 'GET' && product) {
      const found = this.#products.get(Number(product[1]));
      if (!found || (!found.approved && found.owner_id !== caller?.id)) {
        return send(response, 404, { message: 'Product not found' });
      }
      return send(response, 200, { data: this.#productBody(found) });
    }
    if (request.method === 'GET' && path === '/user') {
      if (caller) return send(response, 200, { data: userBody(caller) });
      // Laravel sends a caller that does not ask for JSON to its login page.
      if (!/\bapplication\/json\b/.test(request.headers.accept ?? '')) {
        return send(response, 302, '', { location: '/login' });
      }
      return send(response, 401, { message: 'Unauthenticated.' });
    }
    return send(response, 404, { message: 'Not Found' });
  }

  #productBody(product) {
    return {
      id: product.id,
      title: product.title,
      description: `A ${product.title} to rent.`,
      price_per_day: 12.5,
      is_for_sale: false,
      sale_price: null,
      is_available: true,
      thumbnail_url: `http://main-api.example.test/products/${product.id}/thumbnail.jpg`,
      image_urls: [1, 2].map((n) => `http://main-api.example.test/products/${product.id}/${n}.jpg`),
      category: { id: 1, name: 'Things' },
      owner: userBody(this.#users.get(product.owner_id)),
      created_at: NOW,
      updated_at: NOW,
    };
  }

  async #control(request, response) {
    if (request.method === 'POST') {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      send(response, 200, { ok: true });
      return this.behave(JSON.parse(Buffer.concat(chunks).toString()));
    }
    const calls = {};
    for (const call of this.calls) calls[call.token] = (calls[call.token] ?? 0) + 1;
    return send(response, 200, { calls });
  }
}

function userBody(user) {
  return {
    id: user.id,
    name: user.name,
    email: user.email,
    avatar_url: user.avatar_url,
    email_verified_at: NOW,
    verification_status: 'verified',
    verified_at: NOW,
    created_at: NOW,
    updated_at: NOW,
  };
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

/** A JWT of these claims; `algorithm: 'none'` leaves it unsigned. */
export function signJwt(claims, secret, algorithm = 'HS256') {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${encode({ alg: algorithm, typ: 'JWT' })}.${encode(claims)}`;
  if (algorithm === 'none') return `${signed}.`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

// By hand: `node main_api.mjs [port]` prints its address and two users with a product between them.
if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const api = await MainApi.start(Number(process.argv[2] ?? 0));
  const renter = api.addUser('Rita Renter');
  const owner = api.addUser('Omar Owner');
  console.log(JSON.stringify({ url: api.url, renter, owner, product: api.addProduct(owner) }, null, 2));
}
