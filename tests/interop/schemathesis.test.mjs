// PyPI's schemathesis against the service's own OpenAPI: requests that are right, and requests that are wrong in every
// way the schemas allow to think of. No 5xx, no status, header or body that the document does not have, and nothing
// accepted that breaks it. Bounded by the number of examples and fixed by a seed: schemathesis.toml.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { onEachDatabase } from './support/world.mjs';

const SCHEMATHESIS = fileURLToPath(new URL('.venv/bin/schemathesis', import.meta.url));
const CONFIG = fileURLToPath(new URL('schemathesis.toml', import.meta.url));

// Whatever it says of a failure comes at the end, after the progress.
const TAIL = 12_000;

if (!existsSync(SCHEMATHESIS)) {
  it('schemathesis', { skip: 'tests/interop/.venv is missing: scripts/test makes it' }, () => {});
} else {
  // With a key /internal is there, though not for those who come with a user's token.
  onEachDatabase('schemathesis', { env: { SERVICE_API_KEY: randomBytes(24).toString('hex') } }, (world) => {
    it('finds nothing that the document does not say', { timeout: 120_000 }, async () => {
      // Ids that exist: ids are small numbers, which is what it tries first.
      const { renter, owner, conversationId } = await world.talkingPair();
      await owner.rest.expect(201, 'POST', '/api/messages', { body: { conversation_id: conversationId, content: world.text() } });
      const args = ['--no-color', '--config-file', CONFIG, 'run', `${world.service.url}/openapi.json`];
      const run = promisify(execFile)(SCHEMATHESIS, [...args, '-H', `Authorization: Bearer ${renter.token}`], {
        cwd: world.service.folder,
        timeout: 110_000,
        maxBuffer: 64 * 1024 * 1024,
        env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
      });
      const { code = 0, stdout } = await run.catch((error) => error);
      assert.equal(code, 0, stdout.slice(-TAIL));
      const [, generated, passed] = /(\d+) generated, (\d+) passed/.exec(stdout) ?? [];
      assert.equal(generated, passed, stdout.slice(-TAIL));
      assert.ok(Number(generated) > 1000, `only ${generated} requests were made`);
    });
  });
}
