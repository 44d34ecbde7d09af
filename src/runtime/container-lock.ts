import { mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { addon } from '../addon/index.js';
import { reasonOf, UserError } from './errors.js';

const EAGAIN = 11;
const EACCES = 13;

/** Where the state of this user's containers lives: `/run/tsvmm`, or `$XDG_RUNTIME_DIR/tsvmm` for others than root. */
export function stateRoot(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  if (uid === 0) return '/run/tsvmm';
  return join(env.XDG_RUNTIME_DIR ?? `/tmp/tsvmm-${uid}`, env.XDG_RUNTIME_DIR === undefined ? '' : 'tsvmm');
}

/**
 * Claims a container ID until this process ends, however it does: the kernel lets go of the lock by itself, and a
 * killed run leaves nothing behind. The lock is on one byte of `root`/lock, at a place that the ID gives: one file
 * for all IDs, whose content nobody reads.
 * @throws UserError where another process has the ID.
 */
export function lockContainerId(root: string, id: string): void {
  const path = join(root, 'lock');
  let fd: number;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    // Stays open: the lock lives as long as the descriptor.
    fd = openSync(path, 'a', 0o600);
  } catch (error) {
    throw new UserError(`${path}: ${reasonOf(error)}`);
  }
  const result = addon().lockRange(fd, placeOf(id), 1n);
  if (result === -EAGAIN || result === -EACCES) {
    throw new UserError(`container ${JSON.stringify(id)} exists already: a process of this user runs it`);
  }
  if (result < 0) throw new UserError(`${path}: cannot be locked (errno ${-result})`);
}

/** FNV-1a of 64 bits, cut to what a file offset can be. */
function placeOf(id: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(id)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash >> 2n;
}
