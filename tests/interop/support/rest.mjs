// REST as a strict caller sees it: every answer is JSON in the envelope of contract section 1, or an empty 204.

import assert from 'node:assert/strict';

import { assertShape, ERROR_BODY, time } from './shapes.mjs';

export class Rest {
  constructor(service, token) {
    this.service = service;
    this.token = token;
  }

  get(path, options) {
    return this.request('GET', path, options);
  }

  post(path, body, options) {
    return this.request('POST', path, { ...options, body });
  }

  /** `{status, headers, body}`; fails if the answer breaks the envelope. `raw` sends bytes instead of `body` as JSON. */
  async request(method, path, { body, raw, headers = {} } = {}) {
    const all = { Accept: 'application/json', 'Content-Type': 'application/json; charset=utf-8', ...headers };
    if (this.token && !('Authorization' in headers)) all.Authorization = `Bearer ${this.token}`;
    for (const [name, value] of Object.entries(all)) if (value === null) delete all[name];
    const sent = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const response = await fetch(`${this.service.url}${path}`, { method, headers: all, body: sent, redirect: 'manual' });
    const text = await response.text();
    const where = `${method} ${path} → ${response.status}`;
    if (response.status === 204) {
      assert.equal(text, '', `${where} has a body`);
      return { status: 204, headers: response.headers, body: null };
    }
    assert.equal(response.headers.get('content-type'), 'application/json; charset=utf-8', `${where}: ${text.slice(0, 200)}`);
    const parsed = JSON.parse(text);
    if (response.status < 400) {
      assert.equal(parsed.success, true, where);
      assert.ok('data' in parsed, `${where} has no data`);
      assertShape(parsed.meta, { timestamp: time }, `${where} meta`);
    } else {
      assertErrorBody(parsed, where);
    }
    return { status: response.status, headers: response.headers, body: parsed };
  }

  /** The answer of a call that must succeed with this status. */
  async expect(status, method, path, options) {
    const answer = await this.request(method, path, options);
    assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)?.slice(0, 500)}`);
    return answer;
  }

  /** A refusal: its status, its code, and that its two sentences are one. */
  async refused(status, code, method, path, options) {
    const answer = await this.expect(status, method, path, options);
    assert.equal(answer.body.error.code, code, JSON.stringify(answer.body));
    return answer;
  }

  /** All messages of the conversation, oldest first, by keyset pages. */
  async allMessages(conversationId) {
    const all = [];
    for (;;) {
      const after = all.at(-1)?.seq ?? 0;
      const { body } = await this.expect(200, 'GET', `/api/conversations/${conversationId}/messages?after=${after}&limit=100`);
      if (body.data.length === 0) return all;
      all.push(...body.data);
    }
  }
}

function assertErrorBody(body, where) {
  assertShape(body, ERROR_BODY, where);
  assert.equal(body.message, body.error.message, `${where}: two different sentences`);
  if (body.error.code === 'VALIDATION_FAILED') {
    const fields = Object.entries(body.errors ?? {});
    assert.ok(fields.length > 0, `${where}: VALIDATION_FAILED names no field`);
    for (const [field, sentences] of fields) {
      assert.ok(Array.isArray(sentences) && sentences.length > 0, `${where}: errors.${field} is no list`);
      for (const sentence of sentences) assert.equal(typeof sentence, 'string');
    }
  }
}
