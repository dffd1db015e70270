// The stand-in is only worth something if it answers as the real main API does (contract section 5).

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { MainApi, signJwt } from './support/main_api.mjs';

describe('the stand-in main API', () => {
  let api;
  let user;
  before(async () => {
    api = await MainApi.start();
    user = api.addUser('Rita Renter');
  });
  after(() => api.stop());

  const ask = (path, token, headers = { Accept: 'application/json' }) =>
    fetch(`${api.url}${path}`, { headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) }, redirect: 'manual' });

  it('gives a user their own profile and counts the calls of each token', async () => {
    const answer = await ask('/user', user.token);
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).data.id, user.id);
    assert.equal(api.userCalls(user.token), 1);
    assert.match(user.token, /^\d+\|/);
  });

  it('refuses an unknown token, and sends a caller that does not ask for JSON to the login page', async () => {
    assert.equal((await ask('/user', '9|wrong')).status, 401);
    assert.equal((await ask('/user', '9|wrong', {})).status, 302);
  });

  it('shows an unapproved product to its owner only', async () => {
    const product = api.addProduct(user, { approved: false });
    assert.equal((await ask(`/products/${product.id}`)).status, 404);
    const answer = await ask(`/products/${product.id}`, user.token);
    assert.equal((await answer.json()).data.owner.email, user.email);
  });

  it('fails on demand, over HTTP too, and comes back', async () => {
    await api.behave({ mode: 'status', status: 429, headers: { 'retry-after': '7' } });
    const limited = await ask('/user', user.token);
    assert.deepEqual([limited.status, limited.headers.get('retry-after')], [429, '7']);
    await api.behave('html');
    assert.match(await (await ask('/user', user.token)).text(), /^<!DOCTYPE html>/);
    await api.behave('down');
    await assert.rejects(ask('/user', user.token));
    await api.behave('ok');
    const control = new URL('/_control', api.url);
    await fetch(control, { method: 'POST', body: JSON.stringify({ mode: 'status', status: 500 }) });
    assert.equal((await ask('/user', user.token)).status, 500);
    await fetch(control, { method: 'POST', body: JSON.stringify({ mode: 'ok' }) });
    const { calls } = await (await fetch(control)).json();
    assert.ok(calls[user.token] >= 4);
  });

  it('takes a JWT that it has issued', async () => {
    const jwt = api.issueToken(user, signJwt({ sub: user.id }, 'secret'));
    assert.equal((await ask('/user', jwt)).status, 200);
    assert.equal(jwt.split('.').length, 3);
  });
});
