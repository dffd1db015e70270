// Headless Chromium by playwright-core, watched: what a page writes to its console, and what it asks of other hosts.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

import { ARTIFACTS } from './service.mjs';

const QUIET = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export class Browser {
  #problems = [];
  #expected = () => false;

  /** `executablePath` is Debian's Chromium, found by scripts/test. */
  static async launch(executablePath) {
    const browser = new Browser();
    // Chromium's sandbox refuses to run as root.
    const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];
    browser.chromium = await chromium.launch({ executablePath, args: [...QUIET, ...sandbox] });
    return browser;
  }

  /** A window of its own, with its own storage. */
  async open(url, options = {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    const own = new URL(url).host;
    page.on('console', (message) => {
      if (message.type() === 'error') this.#note(`console: ${message.text()}`);
    });
    page.on('pageerror', (error) => this.#note(`uncaught: ${error.stack}`));
    page.on('request', (request) => {
      const { protocol, host } = new URL(request.url());
      if (!['data:', 'blob:'].includes(protocol) && host !== own) this.#note(`asks another host: ${request.url()}`);
    });
    await page.goto(url);
    return page;
  }

  /** While `during` runs, such lines on the console are no problem: a service that is killed cannot be reached. */
  async expecting(pattern, during) {
    this.#expected = (line) => pattern.test(line);
    try {
      return await during();
    } finally {
      this.#expected = () => false;
    }
  }

  assertNoProblems() {
    assert.deepEqual(this.#problems, []);
  }

  #note(line) {
    if (!this.#expected(line)) this.#problems.push(line);
  }

  close() {
    return this.chromium.close();
  }
}

/** Keeps a picture of the page as build output. */
export async function keepScreenshot(page, name) {
  const folder = join(ARTIFACTS, 'screenshots');
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
