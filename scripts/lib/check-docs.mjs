// Holds the documentation against the service: scripts/check-docs [FILE …]
//
// 1. Every ```sh block of README.md, CONTRIBUTING.md, SECURITY.md and docs/*.md is run, and must end with 0.
//    What a block may use:
//      - localhost:3001   the demo, running on SQLite on a free port (the address is replaced)
//      - $TOKEN, $OWNER_TOKEN, $OWNER_ID   the demo's renter and owner; $SERVICE_API_KEY, the main API's key
//      - rented-messaging, `cargo run …`   the debug build that the tests use (nothing is compiled here)
//      - the repository's files, by their paths from its root
//    A comment in the line before the block says otherwise:
//      <!-- not run: why -->   it is not run
//      <!-- serves -->         it starts the service and goes on: it is run until /health answers, then told to
//                              stop, and must end with 0
// 2. Every relative link and anchor in all *.md leads somewhere.
// 3. Every variable that is named there (in `code`, or set in an sh block) is in .env.example.
//
// It fails when one of them does not hold. Part of scripts/test, which builds the program first.

import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
const BINARY = process.env.MESSAGING_BINARY ?? join(TARGET, 'debug/rented-messaging');
const BLOCK_MS = 60_000;

// Names in the documentation that look like variables of ours and are others'.
const OTHERS = new Set([
  // of the tests and of building
  'TEST_DATABASE_URL', 'TEST_REDIS_URL', 'CARGO_TARGET_DIR', 'UPDATE_ENV_EXAMPLE', 'MESSAGING_BINARY', 'RUST_BACKTRACE', 'SSL_CERT_FILE',
  // of what scripts/check-docs hands to blocks
  'OWNER_TOKEN', 'OWNER_ID',
  // of compose files
  'POSTGRES_PASSWORD',
  // a bucket's, which its library reads
  'AWS_ENDPOINT', 'AWS_REGION', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY',
  // of Socket.IO
  'CONNECT_ERROR',
]);

const tally = { passed: 0, failed: 0 };
const wanted = process.argv.slice(2).map((file) => resolve(file));

function passed(what) {
  tally.passed += 1;
  console.log(`ok      ${what}`);
}

function failed(what, why) {
  tally.failed += 1;
  console.log(`FAILED  ${what}\n${`${why}`.trimEnd().replace(/^/gm, '        ')}`);
}

function markdownFiles() {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.md'], { cwd: ROOT, encoding: 'utf8' });
  const files = listed.status === 0 ? listed.stdout.split('\n').filter(Boolean) : readdirSync(ROOT).filter((name) => name.endsWith('.md'));
  return files.map((file) => join(ROOT, file)).filter((file) => existsSync(file));
}

/** The fenced blocks of a text: `{language, text, line, before}`, and the text without them. */
function parse(source) {
  const blocks = [];
  const prose = [];
  let block = null;
  let before = '';
  for (const [at, line] of source.split('\n').entries()) {
    const fence = /^\s*```+\s*(\S*)/.exec(line);
    if (block) {
      if (fence && !fence[1]) {
        blocks.push(block);
        block = null;
      } else block.text += `${line}\n`;
      prose.push('');
    } else if (fence) {
      block = { language: fence[1], text: '', line: at + 1, before };
      prose.push('');
    } else {
      prose.push(line);
      before = line.trim() || before;
    }
    if (block === null && line.trim()) before = line.trim();
  }
  return { blocks, prose: prose.join('\n') };
}

/** The anchor that a heading gets where Markdown is shown. */
function slug(heading) {
  const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '');
  return text.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-');
}

function anchors(file) {
  const counts = new Map();
  const found = new Set();
  for (const line of parse(readFileSync(file, 'utf8')).prose.split('\n')) {
    const heading = /^#{1,6}\s+(.*?)\s*#*$/.exec(line);
    if (!heading) continue;
    const base = slug(heading[1]);
    const count = counts.get(base) ?? 0;
    counts.set(base, count + 1);
    found.add(count ? `${base}-${count}` : base);
  }
  return found;
}

function checkLinks(file, prose) {
  const broken = [];
  const withoutCode = prose.replace(/`[^`\n]*`/g, '');
  for (const [, target] of withoutCode.matchAll(/\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g)) {
    if (/^[a-z][a-z0-9+.-]*:/i.test(target)) continue;
    const [path, anchor] = target.split('#');
    const to = path ? resolve(dirname(file), decodeURIComponent(path)) : file;
    if (!existsSync(to)) broken.push(`${target}: there is no such file`);
    else if (anchor && to.endsWith('.md') && !anchors(to).has(anchor)) broken.push(`${target}: there is no such heading`);
  }
  return broken;
}

function checkVariables(blocks, prose, known, codes) {
  const named = new Set();
  const add = (text) => {
    for (const [name] of text.matchAll(/(?<![\w.$/-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w…(]|\/|_?\{)/g)) named.add(name);
  };
  for (const [, code] of prose.matchAll(/`([^`\n]+)`/g)) add(code);
  for (const { language, text } of blocks) {
    if (language !== 'sh') continue;
    for (const [, name] of text.matchAll(/(?:^|[\s;&|])(?:export\s+)?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)=/g)) named.add(name);
  }
  return [...named].filter((name) => !known.has(name) && !codes.has(name) && !OTHERS.has(name));
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

const running = new Set();
const work = mkdtempSync(join(tmpdir(), 'rented-docs-'));
process.on('exit', () => {
  for (const child of running) {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It is gone already.
    }
  }
  rmSync(work, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** A folder to run in: the repository's files, and room beside them. */
function workFolder(name) {
  const folder = join(work, name);
  mkdirSync(folder);
  const left = new Set(['.git', 'target', 'data', 'uploads', '.env']);
  for (const entry of readdirSync(ROOT)) if (!left.has(entry)) symlinkSync(join(ROOT, entry), join(folder, entry));
  return folder;
}

function start(command, args, folder, env) {
  const child = spawn(command, args, { cwd: folder, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  child.output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (child.output += chunk));
  child.ended = once(child, 'close').then(([code, signal]) => {
    running.delete(child);
    return signal ?? code;
  });
  return child;
}

async function answers(url, child, ms = 30_000) {
  const deadline = Date.now() + ms;
  while (Date.now() < deadline && running.has(child)) {
    if ((await fetch(url).catch(() => null))?.ok) return true;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  return false;
}

function environment(folder, more) {
  const env = { PATH: `${join(work, 'bin')}:/usr/sbin:${process.env.PATH}`, HOME: folder, LANG: 'C.UTF-8', HOST: '127.0.0.1', ...more };
  return env;
}

/** `cargo run … -- arguments` is the built program. */
function rewrite(text, port) {
  return text
    .replace(/\bcargo run(?:\s+(?:--release|-p\s+\S+))*(?:\s+--(?=\s)|(?=\s*(?:$|#)))/gm, 'rented-messaging')
    .replace(/(?:localhost|127\.0\.0\.1):3001\b/g, `127.0.0.1:${port}`);
}

async function runBlock(block, number, demo) {
  const folder = workFolder(`block-${number}`);
  const serves = /^<!--\s*serves\s*-->$/.test(block.before);
  const port = serves ? await freePort() : demo.port;
  const env = environment(folder, { ...demo.variables, ...(serves && { PORT: `${port}` }) });
  const child = start('bash', ['-euo', 'pipefail', '-c', rewrite(block.text, port)], folder, env);
  const timer = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), BLOCK_MS);
  if (serves) {
    const isUp = await answers(`http://127.0.0.1:${port}/health`, child);
    if (running.has(child)) process.kill(-child.pid, 'SIGTERM');
    const end = await child.ended;
    clearTimeout(timer);
    // The shell ends by the signal where the service ended with 0 before it.
    return isUp && (end === 0 || end === 'SIGTERM') ? null : `it ${isUp ? `ended with ${end}` : 'did not answer /health'}\n${child.output}`;
  }
  const end = await child.ended;
  clearTimeout(timer);
  return end === 0 ? null : `it ended with ${end}\n${child.output.slice(-3000)}`;
}

async function main() {
  if (!existsSync(BINARY)) {
    console.error(`scripts/check-docs: ${relative(ROOT, BINARY)} is missing: cargo build -p messaging`);
    process.exit(2);
  }
  mkdirSync(join(work, 'bin'));
  symlinkSync(BINARY, join(work, 'bin/rented-messaging'));

  const files = markdownFiles().filter((file) => wanted.length === 0 || wanted.includes(file));
  const known = new Set([...readFileSync(join(ROOT, '.env.example'), 'utf8').matchAll(/^#?([A-Z][A-Z0-9_]*)=/gm)].map(([, name]) => name));
  const errors = readFileSync(join(ROOT, 'crates/messaging/src/errors.rs'), 'utf8');
  const codes = new Set([...errors.matchAll(/=> "([A-Z_]+)"/g)].map(([, code]) => code));

  const blocks = [];
  for (const file of files) {
    const name = relative(ROOT, file);
    const parsed = parse(readFileSync(file, 'utf8'));
    const broken = checkLinks(file, parsed.prose);
    if (broken.length > 0) failed(`links of ${name}`, broken.join('\n'));
    else passed(`links of ${name}`);
    if (!/^(README|CONTRIBUTING|SECURITY|CHANGELOG|ARCHITECTURE)\.md$|^docs\/[^/]+\.md$/.test(name)) continue;
    const unknown = checkVariables(parsed.blocks, parsed.prose, known, codes);
    if (unknown.length > 0) failed(`variables of ${name}`, `not in .env.example: ${unknown.join(', ')}`);
    else passed(`variables of ${name}`);
    for (const block of parsed.blocks.filter(({ language }) => language === 'sh')) blocks.push({ ...block, name: `${name}:${block.line}` });
  }

  const isLeftOut = ({ before }) => /^<!--\s*not run: \S.*-->$/.test(before);
  const port = await freePort();
  const folder = workFolder('demo');
  const SERVICE_API_KEY = randomBytes(24).toString('hex');
  const program = start(BINARY, ['demo'], folder, environment(folder, { PORT: `${port}`, RATE_LIMIT_MESSAGES: '0', SERVICE_API_KEY }));
  if (!(await answers(`http://127.0.0.1:${port}/health`, program))) {
    failed('the demo', `it does not answer:\n${program.output}`);
  } else {
    const { users } = await (await fetch(`http://127.0.0.1:${port}/demo/config.json`)).json();
    const [renter, owner] = users;
    const demo = { port, variables: { TOKEN: renter.token, OWNER_TOKEN: owner.token, OWNER_ID: `${owner.id}`, SERVICE_API_KEY } };
    for (const [number, block] of blocks.entries()) {
      if (isLeftOut(block)) {
        console.log(`not run ${block.name}: ${block.before.replace(/^<!--\s*not run: |\s*-->$/g, '')}`);
        continue;
      }
      const why = await runBlock(block, number, demo);
      if (why) failed(`the commands at ${block.name}`, why);
      else passed(`the commands at ${block.name}`);
    }
    process.kill(-program.pid, 'SIGTERM');
    await program.ended;
  }
  console.log(`${tally.passed} passed, ${tally.failed} failed`);
  process.exit(tally.failed > 0 || tally.passed === 0 ? 1 : 0);
}

await main();
