// The built service as a process: started on a free port in a folder of its own, with nothing of the caller's
// environment; killed, stopped and started again on the same data. Its log is kept to be read by the tests.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const BINARY = process.env.MESSAGING_BINARY ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'debug/rented-messaging');
/** Where screenshots and logs are kept for whoever reads a failure. */
export const ARTIFACTS = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'artifacts');

// Tests send faster than any person; those that are about limits set them themselves.
const NO_LIMITS = {
  RATE_LIMIT_MESSAGES: '0',
  RATE_LIMIT_TYPING: '0',
  RATE_LIMIT_READS: '0',
  RATE_LIMIT_UPLOADS: '0',
  RATE_LIMIT_CONVERSATIONS: '0',
};

// A suite that hangs ends itself; the longest takes two minutes on an idle machine.
const SUITE_MS = 15 * 60_000;
setTimeout(() => {
  console.error(`${process.argv[1]} is not done after ${SUITE_MS / 60_000} minutes`);
  process.exit(1);
}, SUITE_MS).unref();

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Service {
  #child = null;
  #log = '';

  constructor({ command = 'serve', env = {}, port, folder }) {
    this.command = command;
    this.port = port;
    this.folder = folder;
    this.env = env;
  }

  /** Starts the service and waits until it is ready. */
  static async start({ command, env } = {}) {
    const service = new Service({ command, env, port: await freePort(), folder: temporaryFolder() });
    await service.start();
    return service;
  }

  /** Runs the program to its end: `{code, stdout, stderr}`. For what must not start, and for one-off commands. */
  static async run(args, { env = {}, files = {}, port, timeoutMs = 15_000 } = {}) {
    const folder = temporaryFolder();
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const child = spawn(BINARY, args, { cwd: folder, env: environment({ PORT: String(port ?? (await freePort())), ...env }, folder) });
    running.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    const [code, signal] = await once(child, 'close');
    clearTimeout(timer);
    running.delete(child);
    rmSync(folder, { recursive: true, force: true });
    return { code, signal, stdout, stderr };
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get wsUrl() {
    return `ws://127.0.0.1:${this.port}`;
  }

  get pid() {
    return this.#child?.pid;
  }

  /** Everything that was printed so far, over all starts. */
  get log() {
    return this.#log;
  }

  async start() {
    const env = environment({ PORT: String(this.port), ...NO_LIMITS, ...this.env }, this.folder);
    const child = spawn(BINARY, [this.command], { cwd: this.folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    this.#child = child;
    this.exited = once(child, 'close').then(([code, signal]) => {
      running.delete(child);
      return { code, signal };
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (chunk) => (this.#log += chunk));
    }
    await this.#ready();
  }

  /** Sends the signal and waits for the end: `{code, signal}`. */
  async end(signal = 'SIGTERM', timeoutMs = 20_000) {
    if (!this.#child) return null;
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), timeoutMs);
    const exit = await this.exited;
    clearTimeout(timer);
    this.#child = null;
    return exit;
  }

  /** Ends it for good and keeps its log under that name. */
  async discard(name) {
    await this.end();
    const folder = join(ARTIFACTS, 'logs');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${name.replace(/[^\w]+/g, '-')}.log`), this.#log);
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #ready() {
    const deadline = Date.now() + 30_000;
    let ended = null;
    this.exited.then((exit) => (ended = exit));
    for (;;) {
      const answer = await fetch(`${this.url}/ready`).catch(() => null);
      if (answer?.status === 200) return;
      if (ended) throw new Error(`the service ended with ${JSON.stringify(ended)}:\n${this.#log.slice(-2000)}`);
      if (Date.now() > deadline) {
        this.#child.kill('SIGKILL');
        throw new Error(`the service is not ready after 30 s (${answer?.status}):\n${this.#log.slice(-2000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** A port that is free now. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function environment(own, folder) {
  const env = { PATH: process.env.PATH, HOME: folder, HOST: '127.0.0.1', LOG_LEVEL: 'debug', RUST_BACKTRACE: '1', ...own };
  // A variable that a test gives as null is not set at all.
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== null));
}

function temporaryFolder() {
  return mkdtempSync(join(tmpdir(), 'rented-interop-'));
}
