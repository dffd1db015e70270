// Databases for the services under test: a folder for SQLite, a database of its own on the throw-away PostgreSQL.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

const run = promisify(execFile);

export const DATABASES = ['sqlite', 'postgres'];

/** Why the database cannot be tested here, or null. */
export function unavailable(kind) {
  if (kind === 'postgres' && !process.env.TEST_DATABASE_URL) return 'TEST_DATABASE_URL is not set';
  return null;
}

/** A fresh database: `{env, drop}`, where `env` is what the service is told. */
export async function createDatabase(kind) {
  if (kind === 'sqlite') return { env: {}, drop: async () => {} };
  const name = `interop_${randomBytes(6).toString('hex')}`;
  await sql(`create database ${name}`);
  const url = new URL(process.env.TEST_DATABASE_URL);
  url.pathname = `/${name}`;
  return { env: { DATABASE_URL: url.href }, drop: () => sql(`drop database if exists ${name} with (force)`) };
}

async function sql(statement) {
  await run('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', process.env.TEST_DATABASE_URL, '-c', statement]);
}
