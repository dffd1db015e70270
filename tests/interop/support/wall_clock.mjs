// The wall clock of a service under test, moved with libfaketime (Debian: `libfaketime`): a file says by how much.
// Only the wall clock: what measures durations is left alone, as when an operator or NTP sets a machine's time.

import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const LIBRARY = findLibrary();

/** Why clocks cannot be moved here, or false. */
export const unmovable = LIBRARY ? false : 'libfaketime is not installed';

function findLibrary() {
  const folders = ['/usr/lib', ...readdirSync('/usr/lib').map((name) => `/usr/lib/${name}`)];
  return folders.map((folder) => join(folder, 'faketime/libfaketimeMT.so.1')).find(existsSync);
}

export class WallClock {
  constructor(folder, name = 'clock') {
    this.file = join(folder, name);
    this.jump(0);
  }

  /** What the service is told to follow it. */
  get env() {
    if (unmovable) return {};
    return {
      LD_PRELOAD: LIBRARY,
      FAKETIME_TIMESTAMP_FILE: this.file,
      FAKETIME_CACHE_DURATION: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    };
  }

  /** So many seconds from the real time; seen within a second. */
  jump(seconds) {
    writeFileSync(`${this.file}.new`, `${seconds < 0 ? '' : '+'}${seconds}s\n`);
    // At once: half a line would be another time.
    renameSync(`${this.file}.new`, this.file);
  }
}
