// PostgreSQL and Redis of a run: processes of its own, to be killed, stopped, frozen and started again.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';

import { sleep } from '../support/inbox.mjs';

class Server {
  /** `command` is an argument list; it is up when it accepts connections on `port`. */
  constructor(name, port, command) {
    Object.assign(this, { name, port, command, child: null });
  }

  async start() {
    const deadline = Date.now() + 30_000;
    // Right after a crash PostgreSQL may find its last processes still there.
    while (Date.now() < deadline) {
      const [program, ...args] = this.command;
      this.child = spawn(program, args, { stdio: 'ignore' });
      const exited = once(this.child, 'exit').then(() => 'exited');
      const outcome = await Promise.race([exited, this.#accepts(deadline)]);
      if (outcome === 'accepts') return;
      await sleep(300);
    }
    throw new Error(`${this.name} does not start`);
  }

  async #accepts(deadline) {
    while (Date.now() < deadline) {
      const socket = connect(this.port, '127.0.0.1');
      const open = await Promise.race([once(socket, 'connect').then(() => true, () => false), sleep(500).then(() => false)]);
      socket.destroy();
      if (open) return 'accepts';
      await sleep(50);
    }
    return 'late';
  }

  /** Its own process and those that it started. */
  #pids() {
    const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(this.child.pid)], { encoding: 'utf8' });
    return [this.child.pid, ...children.split('\n').map(Number).filter(Boolean)];
  }

  signal(name) {
    let pids = [this.child.pid];
    try {
      pids = this.#pids();
    } catch {
      // It has no children.
    }
    for (const pid of pids) {
      try {
        process.kill(pid, name);
      } catch {
        // Gone in the meantime.
      }
    }
  }

  async kill() {
    const exited = once(this.child, 'exit');
    this.signal('SIGKILL');
    await exited;
  }

  /** Asks it to end; PostgreSQL takes INT as "now, cleanly". */
  async stop() {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGCONT');
    this.child.kill('SIGINT');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await exited;
    clearTimeout(timer);
  }
}

export function postgres(port, command) {
  return new Server('PostgreSQL', port, command);
}

export function redis(port, folder) {
  const command = ['redis-server', '--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
  return new Server('Redis', port, command);
}

export function redisCommand(port, ...words) {
  return execFileSync('redis-cli', ['-p', String(port), ...words], { encoding: 'utf8', timeout: 5_000 });
}
