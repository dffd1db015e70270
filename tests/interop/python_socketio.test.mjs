// PyPI's python-socketio against the service. The scenarios are Python's (python_socketio_scenarios.py); here the
// world is made, they are run in the virtual environment, and each of their results becomes a test of its own.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { onEachDatabase } from './support/world.mjs';

const PYTHON = fileURLToPath(new URL('.venv/bin/python', import.meta.url));
const SCENARIOS = fileURLToPath(new URL('python_socketio_scenarios.py', import.meta.url));

if (!existsSync(PYTHON)) {
  it('python-socketio', { skip: 'tests/interop/.venv is missing: scripts/test makes it' }, () => {});
} else {
  onEachDatabase('python-socketio', { concurrency: 3 }, (world) => {
    for (const transport of ['websocket', 'polling', 'upgrade']) {
      it(`by ${transport}`, { timeout: 120_000 }, async (test) => {
        const people = Array.from({ length: 12 }, () => {
          const { renter, owner, product } = world.pair();
          return { renter: plain(renter), owner: plain(owner), product_id: product.id };
        });
        const input = { url: world.service.url, transport, text: world.text('from Python'), people };
        const { stdout } = await promisify(execFile)(PYTHON, ['-B', SCENARIOS, JSON.stringify(input)], { timeout: 110_000 }).catch((error) => error);
        const results = stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line));
        assert.ok(results.length >= 7, `only ${results.length} scenarios ran`);
        for (const { name, problem } of results) {
          await test.test(name, () => assert.equal(problem, null, problem));
        }
      });
    }
  });
}

function plain({ id, name, token }) {
  return { id, name, token };
}
