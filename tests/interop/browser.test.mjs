// The demo as a stranger sees it: `rented-messaging demo`, a browser, two people who talk.
// The page's `data-testid`s are listed at the top of web/app/main.js.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Browser, keepScreenshot } from './support/browser.mjs';
import { sleep } from './support/inbox.mjs';
import { Service } from './support/service.mjs';

const MARK = 'Rhabarber';

/** A phone on a page: the whole of it, and what is in it by `data-testid`. */
class Phone {
  constructor(page, role) {
    this.page = page;
    this.all = page.getByTestId(`phone-${role}`);
  }

  get(testid) {
    return this.all.getByTestId(testid);
  }

  message(text) {
    return this.get('message').filter({ hasText: text });
  }

  async until(testid, attribute, value) {
    await this.all.locator(`[data-testid="${testid}"][data-${attribute}="${value}"]`).first().waitFor({ timeout: 15_000 });
  }

  /** Waits until the tick of one's own message says so. */
  async untilTick(text, status) {
    await this.message(text).locator(`[data-testid="tick"][data-status="${status}"]`).waitFor({ timeout: 15_000 });
  }

  async online() {
    await this.page.locator(`${await testIdSelector(this.all)}[data-connection="online"]`).waitFor();
  }

  async askAbout(productAt, text) {
    await this.get('tab-explore').click();
    await this.get('product').nth(productAt).click();
    await this.get('message-owner').click();
    await this.send(text);
  }

  /** Opens the conversation whose last message is this one. */
  async openChat(text) {
    await this.get('conversation').filter({ hasText: text }).click();
    await this.message(text).waitFor();
  }

  async send(text) {
    await this.get('composer').fill(text);
    await this.get('send').click();
    await this.message(text).waitFor();
  }
}

async function testIdSelector(locator) {
  return `[data-testid="${await locator.getAttribute('data-testid')}"]`;
}

if (!process.env.CHROMIUM) {
  it('the demo in a browser', { skip: 'CHROMIUM is not set: scripts/test finds or installs it' }, () => {});
} else {
  describe('the demo in a browser', () => {
    let service;
    let browser;
    before(async () => {
      service = await Service.start({ command: 'demo' });
      browser = await Browser.launch(process.env.CHROMIUM);
    });
    after(async () => {
      await browser?.close();
      await service?.discard('the demo');
    });

    it('two windows: what is typed in one appears in the other, and the ticks go from sent to read', async () => {
      const [first, second] = await Promise.all([browser.open(`${service.url}/?phone=renter`), browser.open(`${service.url}/?phone=owner`)]);
      const [renter, owner] = [new Phone(first, 'renter'), new Phone(second, 'owner')];
      await Promise.all([renter.online(), owner.online()]);
      const question = `Is it free on Friday? ${MARK} 1`;
      await renter.askAbout(0, question);
      // The other phone is online, its chat not open: delivered, and not yet read.
      await renter.untilTick(question, 'delivered');
      await owner.get('conversation').filter({ hasText: question }).waitFor();
      assert.equal(await owner.get('conversation').first().getByTestId('badge').innerText(), '1');
      assert.equal(await owner.get('total-badge').innerText(), '1');
      await keepScreenshot(second, 'owner-list-with-badge');
      await sleep(300);
      assert.equal(await renter.message(question).getByTestId('tick').getAttribute('data-status'), 'delivered');

      await owner.openChat(question);
      await renter.untilTick(question, 'read');
      await owner.get('total-badge').waitFor({ state: 'hidden' });
      await owner.get('product-card').waitFor();
      await renter.until('presence', 'status', 'online');

      const answer = `Yes, from ten o’clock on. ${MARK} 2`;
      await owner.get('composer').pressSequentially(answer.slice(0, 12), { delay: 30 });
      await renter.get('typing').waitFor({ state: 'visible' });
      await keepScreenshot(first, 'renter-sees-typing');
      await owner.send(answer);
      await renter.message(answer).waitFor();
      await renter.get('typing').waitFor({ state: 'hidden' });
      await owner.untilTick(answer, 'read');
      await keepScreenshot(first, 'renter-chat');
      await keepScreenshot(second, 'owner-chat');

      // No grace is endless: a closed window is offline in the end.
      await second.context().close();
      await renter.until('presence', 'status', 'offline');
      const later = `Then until Friday! ${MARK} 3`;
      await renter.send(later);
      await renter.untilTick(later, 'sent');
      const again = new Phone(await browser.open(`${service.url}/?phone=owner`), 'owner');
      await again.online();
      await again.openChat(later);
      await renter.untilTick(later, 'read');
      await Promise.all([first, again.page].map((page) => page.context().close()));
    });

    it('one page: two phones side by side, in light and dark, and one at a time on a narrow screen', async () => {
      for (const colorScheme of ['light', 'dark']) {
        const page = await browser.open(service.url, { colorScheme });
        const [renter, owner] = [new Phone(page, 'renter'), new Phone(page, 'owner')];
        await Promise.all([renter.online(), owner.online()]);
        const text = `In the ${colorScheme} ${MARK}`;
        await renter.askAbout(1, text);
        await owner.openChat(text);
        await renter.untilTick(text, 'read');
        const [left, right] = await Promise.all([renter.all.boundingBox(), owner.all.boundingBox()]);
        assert.ok(left.x + left.width <= right.x, 'side by side');
        await keepScreenshot(page, `two-phones-${colorScheme}`);
        await page.context().close();
      }
      const narrow = await browser.open(service.url, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
      const [renter, owner] = [new Phone(narrow, 'renter'), new Phone(narrow, 'owner')];
      await renter.online();
      assert.ok(await renter.all.isVisible());
      assert.ok(!(await owner.all.isVisible()), 'one phone at a time');
      const width = await narrow.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= 390, `nothing is wider than the screen: ${width}`);
      await keepScreenshot(narrow, 'narrow-renter');
      await narrow.getByTestId('switch-owner').click();
      await owner.all.waitFor({ state: 'visible' });
      await keepScreenshot(narrow, 'narrow-owner');
      await narrow.context().close();
    });

    it('a locked phone gets pushes: one notification that is updated, and opening it catches up', async () => {
      const page = await browser.open(service.url);
      const [renter, owner] = [new Phone(page, 'renter'), new Phone(page, 'owner')];
      await Promise.all([renter.online(), owner.online()]);
      await page.getByTestId('lock-owner').click();
      await owner.all.locator('[data-testid="lock-screen"][data-reachable="true"]').waitFor();
      const first = `Is it waterproof? ${MARK}`;
      await renter.askAbout(3, first);
      const notification = owner.get('notification').filter({ hasText: MARK });
      await notification.filter({ hasText: first }).waitFor({ timeout: 15_000 });
      assert.match(await notification.innerText(), /^Nadia Benali\n/);
      const badge = Number(await owner.get('lock-badge').innerText());
      assert.ok(badge >= 1);
      await keepScreenshot(page, 'locked-with-a-notification');
      await renter.untilTick(first, 'sent');
      for (const text of ['And light?', 'And in stock?']) await renter.send(`${text} ${MARK}`);
      await owner.get('notification').filter({ hasText: `Nadia Benali (3)` }).waitFor({ timeout: 15_000 });
      assert.equal(await notification.count(), 1, 'one notification, updated');
      assert.match(await notification.innerText(), /And in stock\?/);
      assert.equal(await notification.getAttribute('data-times'), '2', 'three messages, two pushes');
      assert.equal(Number(await owner.get('lock-badge').innerText()), badge + 2);
      await keepScreenshot(page, 'locked-with-an-update');

      await notification.click();
      await owner.online();
      await owner.message('And in stock?').waitFor();
      await renter.untilTick('And in stock?', 'read');
      await owner.get('lock-screen').waitFor({ state: 'hidden' });
      await owner.send(`Yes, three times. ${MARK}`);
      await renter.message('Yes, three times.').waitFor();
      await page.context().close();
    });

    it('the service is killed and comes back: a banner, no message lost, none twice', async () => {
      const page = await browser.open(service.url);
      const [renter, owner] = [new Phone(page, 'renter'), new Phone(page, 'owner')];
      await Promise.all([renter.online(), owner.online()]);
      await renter.askAbout(2, `Before ${MARK}`);
      await owner.openChat(`Before ${MARK}`);

      const written = `While it was away ${MARK}`;
      await browser.expecting(/./, async () => {
        await service.end('SIGKILL');
        await renter.get('banner').waitFor({ state: 'visible' });
        await owner.get('banner').waitFor({ state: 'visible' });
        await renter.send(written);
        await keepScreenshot(page, 'reconnecting');
        await service.start();
        await Promise.all([renter.online(), owner.online()]);
        await owner.message(written).waitFor({ timeout: 30_000 });
      });
      await renter.untilTick(written, 'read');
      await sleep(500);
      assert.equal(await owner.message(written).count(), 1);
      assert.equal(await renter.message(written).count(), 1);
      await renter.until('presence', 'status', 'online');
      await keepScreenshot(page, 'reconnected');
      await page.context().close();
    });

    it('speaks as the header says: nothing from elsewhere, no error on the console', async () => {
      browser.assertNoProblems();
      const answer = await fetch(service.url);
      assert.match(answer.headers.get('content-type'), /^text\/html/);
      assert.match(answer.headers.get('content-security-policy'), /default-src 'self'/);
      assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
    });

    it('keeps texts and tokens out of its log and never panics', async () => {
      const { users } = await (await fetch(`${service.url}/demo/config.json`)).json();
      assert.ok(!/panicked at/.test(service.log));
      assert.ok(!service.log.includes(MARK));
      for (const { token } of users) assert.ok(!service.log.includes(token.split('|').at(-1)));
    });
  });
}
