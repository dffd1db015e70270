// Metrics scraped while the load generator is at work, and what they came to afterwards against what it counted itself.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';

import { createDatabase, DATABASES, unavailable } from './support/databases.mjs';
import { eventually } from './support/inbox.mjs';
import { BINARY, freePort, Service } from './support/service.mjs';

const LOADTEST = join(dirname(BINARY), 'loadtest');
const skip = existsSync(LOADTEST) ? false : `${LOADTEST} is not built`;
const PAIRS = 10;

for (const database of DATABASES) {
  describe(`the counts of a load, on ${database}`, { skip: unavailable(database) ?? skip }, () => {
    let mainApi;
    let service;
    let kept;

    before(async () => {
      const port = await freePort();
      mainApi = spawn(LOADTEST, ['main-api', '--port', String(port)], { stdio: 'ignore' });
      await eventually('the main API', async () => (await fetch(`http://127.0.0.1:${port}/api/v1/user`).catch(() => null)) !== null);
      kept = await createDatabase(database);
      const env = { MAIN_API_URL: `http://127.0.0.1:${port}/api/v1`, LOG_LEVEL: 'info', ...kept.env };
      service = await Service.start({ env });
    });

    after(async () => {
      await service?.discard(`counts-${database}`);
      mainApi?.kill();
      await kept?.drop();
    });

    /** Every series and its value. */
    async function scrape() {
      const text = await (await fetch(`${service.url}/metrics`)).text();
      const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
      return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
    }

    /** The sum of the series that begin like this. */
    function sum(series, beginning) {
      return [...series].reduce((total, [name, value]) => (name.startsWith(beginning) ? total + value : total), 0);
    }

    it('are those of the load generator, and never go back meanwhile', async () => {
      const args = ['send', '--url', service.url, '-n', String(2 * PAIRS), '--transport', 'mixed', '--rate', '60', '--warm-up', '0', '--duration', '4', '--quiet', '--json', '-'];
      const load = spawn(LOADTEST, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      let text = '';
      load.stdout.on('data', (chunk) => (text += chunk));
      let problems = '';
      load.stderr.on('data', (chunk) => (problems += chunk));
      const ended = once(load, 'close');
      let last = await scrape();
      let scrapes = 0;
      let most = 0;
      while (load.exitCode === null) {
        const now = await scrape();
        for (const [name, value] of last) {
          const counts = /_total(\{|$)|_count(\{|$)|_bucket\{/.test(name);
          if (counts) assert.ok(now.get(name) >= value, `${name} went back from ${value} to ${now.get(name)}`);
        }
        most = Math.max(most, sum(now, 'messaging_live_connections{'));
        last = now;
        scrapes += 1;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const [code] = await ended;
      assert.equal(code, 0, `${problems}\n${text.slice(-2000)}`);
      const { total, faults } = JSON.parse(text);
      assert.deepEqual([faults.lost, faults.repeated, total.refused], [0, 0, 0]);
      assert.ok(scrapes > 10, `${scrapes} scrapes`);
      assert.equal(most, 2 * PAIRS, 'connections at once');

      // Marks of delivery follow a moment later, and connections a moment after their clients.
      await eventually('quiet counts', async () => {
        const now = await scrape();
        return sum(now, 'messaging_receipts_total{kind="delivered"}') === total.delivered && sum(now, 'messaging_live_connections{') === 0;
      });
      const end = await scrape();
      const counted = (beginning) => sum(end, beginning);
      assert.ok(total.confirmed > 100, `${total.confirmed} messages`);
      assert.equal(counted('messaging_messages_total{type="text",outcome="stored"}'), total.confirmed);
      assert.equal(counted('messaging_messages_total{'), total.sent);
      assert.equal(counted('messaging_live_events_total{event="send_message",outcome="ok"}'), total.sent);
      assert.equal(counted('messaging_delivery_seconds_count'), total.confirmed);
      assert.equal(counted('messaging_delivery_seconds_bucket{le="+Inf"}'), total.confirmed);
      // Messages and marks: each message is in one batch, and marks cover several.
      const commands = counted('messaging_batch_commands_sum');
      assert.ok(commands > total.confirmed && commands <= 2 * total.confirmed, `${commands} commands in batches`);
      assert.equal(counted('messaging_live_handshakes_total{outcome="accepted"}'), 2 * PAIRS);
      assert.equal(counted('messaging_main_api_requests_total{outcome="ok"}') >= 2 * PAIRS, true, 'one question for each token at least');
      for (const zero of ['messaging_messages_total{type="text",outcome="failed"}', 'messaging_drift_repairs_total', 'messaging_panics_total', 'messaging_rate_limited_total{', 'messaging_queue_depth']) {
        assert.equal(counted(zero), 0, zero);
      }
    });
  });
}
