// The page at /docs, in a browser: it shows every operation and every event, from its own service alone.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Browser, keepScreenshot } from './support/browser.mjs';
import { Service } from './support/service.mjs';

describe('the page of the contract', { skip: process.env.CHROMIUM ? false : 'CHROMIUM is not set: scripts/test finds it' }, () => {
  let service;
  let browser;
  before(async () => {
    service = await Service.start({ command: 'demo' });
    browser = await Browser.launch(process.env.CHROMIUM);
  });
  after(async () => {
    await browser?.close();
    await service?.discard('browser-documents');
  });

  const open = async (hash = '', options = {}) => {
    const page = await browser.open(`${service.url}/docs${hash}`, options);
    await page.locator('.entry').first().waitFor();
    return page;
  };

  it('shows every operation and every event, and asks nobody else', async () => {
    const page = await open();
    const rest = await (await fetch(`${service.url}/openapi.json`)).json();
    const live = await (await fetch(`${service.url}/asyncapi.json`)).json();
    const operations = Object.values(rest.paths).flatMap((path) => Object.values(path).map((one) => one.operationId));
    const events = Object.keys(live.channels.socketIo.messages).filter((name) => !name.endsWith('.ack'));
    const shown = await page.locator('.entry').evaluateAll((entries) => entries.map((entry) => entry.id));
    assert.deepEqual(shown.sort(), [...operations, ...events.map((name) => `event-${name}`)].sort());
    assert.equal(await page.locator('#error-codes tbody tr').count(), rest['x-errors'].length);
    browser.assertNoProblems();
    await keepScreenshot(page, 'documents');
  });

  it('opens what its address names, with both dialects', async () => {
    const page = await open('#event-send_message', { colorScheme: 'dark' });
    const entry = page.locator('#event-send_message');
    await entry.getByRole('tab', { name: 'Socket.IO' }).first().click();
    assert.match(await entry.locator('pre').first().innerText(), /^\[\s*"send_message"/);
    await keepScreenshot(page, 'documents-event');
    browser.assertNoProblems();
  });

  it('finds by words, and says where nothing does', async () => {
    const page = await open();
    await page.locator('#filter').fill('add_reaction');
    assert.deepEqual(await page.locator('.entry:visible .path').allInnerTexts(), ['/api/messages/{id}/reactions', 'add_reaction']);
    await page.locator('#filter').fill('rhubarb');
    await page.getByText('Nothing matches.').waitFor();
    browser.assertNoProblems();
  });

  it('keeps the scheme that was chosen, and fits a phone', async () => {
    const page = await open('', { viewport: { width: 390, height: 844 }, colorScheme: 'light' });
    await page.locator('#theme').click();
    await page.reload();
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'dark');
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'it scrolls sideways');
    await keepScreenshot(page, 'documents-phone');
    browser.assertNoProblems();
  });
});
