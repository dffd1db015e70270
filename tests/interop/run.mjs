// Runs the suites of this folder and the page's own (web/tests), each in a process of its own, and closes with
// `N passed, N failed`.
//
//   node run.mjs [--browser | --all] [suite …]
//
// `suite` is the beginning of a file's name. Without any: all but the browser's, which `--browser` runs alone and
// `--all` with the others. A skipped test says why; with CI=true it counts as failed, since nothing may be skipped there.

import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';

import { GROUP } from './support/world.mjs';

const folders = ['.', '../../web/tests'].map((path) => fileURLToPath(new URL(path, import.meta.url))).filter(existsSync);
const args = process.argv.slice(2);
const wanted = args.filter((arg) => !arg.startsWith('--'));
const isBrowser = (file) => file.startsWith('browser');
const isWanted = (file) => (wanted.length > 0 ? wanted.some((name) => file.startsWith(name)) : args.includes('--all') || isBrowser(file) === args.includes('--browser'));
const files = folders
  .flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)))
  .filter((file) => isFile(file) && isWanted(basename(file)));

if (files.length === 0) {
  console.error(`no suite begins with ${wanted.join(' or ')}`);
  process.exit(1);
}

const strict = process.env.CI === 'true';
const tally = { passed: 0, failed: 0, skipped: 0 };
// Where the reports are in the tree of suites: Node tells only their depth, and never mixes those of two files.
const path = [];

const stream = run({ files, concurrency: 3 });
stream.on('test:start', ({ name, nesting }) => {
  path.length = nesting;
  path.push(name);
});
stream.on('test:pass', (report) => {
  if (isContainer(report)) return;
  if (report.skip !== undefined) return skipped(report);
  tally.passed += 1;
  console.log(`ok      ${title(report)} (${Math.round(report.details.duration_ms)} ms)`);
});
stream.on('test:fail', (report) => {
  const error = report.details.error;
  // What fails only because of the tests in it has been counted with them; a hook's failure has not.
  if (error?.failureType === 'subtestsFailed') return;
  tally.failed += 1;
  console.log(`FAILED  ${title(report)}`);
  console.log(`${error?.cause?.stack ?? error?.cause ?? error?.stack ?? error}`.replace(/^/gm, '        '));
});
stream.on('test:stderr', ({ message }) => process.stderr.write(message));
stream.on('test:stdout', ({ message }) => process.stdout.write(message));
stream.on('end', () => {
  if (strict && tally.skipped > 0) console.log(`CI=true: the ${tally.skipped} skipped tests count as failed`);
  console.log(`${tally.passed} passed, ${tally.failed + (strict ? tally.skipped : 0)} failed`);
  process.exitCode = tally.failed > 0 || tally.passed === 0 || (strict && tally.skipped > 0) ? 1 : 0;
});
stream.resume();

function skipped(report) {
  tally.skipped += 1;
  console.log(`skipped ${title(report)}: ${report.skip === true ? 'no reason given' : report.skip}`);
}

/** A suite, or the file around the tests, which some versions of Node report as a test too. */
function isContainer({ details, name }) {
  return details?.type === 'suite' || isFile(name);
}

function isFile(name) {
  return name?.endsWith('.test.mjs');
}

function title(report) {
  return [...path.slice(0, report.nesting), report.name].filter((name) => name !== GROUP && !isFile(name)).join(' › ');
}
