import { closeSync, lstatSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { addon } from '../addon/index.js';
import { reasonOf, UserError } from './errors.js';
import { outsideUid } from './user-namespace.js';

const EAGAIN = 11;
const EACCES = 13;

/** Of the host, as far as it decides where state lies; for tests. */
export interface StateHost {
  readonly uid: number;
  /** Who the root of this user namespace is outside of it; undefined in the first one. */
  outsideUid(): number | undefined;
  /** Whose the folder is; undefined where there is none. */
  ownerOf(path: string): number | undefined;
  /** Makes a folder for its owner alone; one that is there stays as it is. */
  makeFolder(path: string): void;
}

const HOST: StateHost = {
  uid: process.geteuid?.() ?? 0,
  outsideUid,
  ownerOf(path) {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats?.isDirectory() === true ? stats.uid : undefined;
  },
  makeFolder(path) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  },
};

/**
 * Where the state of this user's containers lies: `/run/tsvmm` for root; for others, and for root of a user namespace that is not called
 * so (as podman makes it), `tsvmm` in XDG_RUNTIME_DIR or `/run/user/UID`, or `/tmp/tsvmm-UID`.
 * @throws UserError where somebody else has made the last
 */
export function stateRoot(env: NodeJS.ProcessEnv = process.env, host: StateHost = HOST): string {
  const { XDG_RUNTIME_DIR: runtime = '', USER: name } = env;
  const { uid } = host;
  // Root in a user namespace that a service made has a /run of its own.
  const namespaced = uid === 0 && name !== 'root' && (runtime !== '' || name !== undefined);
  const outside = namespaced ? host.outsideUid() : undefined;
  if (uid === 0 && outside === undefined) return '/run/tsvmm';
  if (runtime.startsWith('/')) return join(runtime, 'tsvmm');
  const session = `/run/user/${outside ?? uid}`;
  if (host.ownerOf(session) === uid) return `${session}/tsvmm`;
  const path = `/tmp/tsvmm-${outside ?? uid}`;
  try {
    host.makeFolder(path);
  } catch (error) {
    throw new UserError(`${path}: ${reasonOf(error)}`);
  }
  if (host.ownerOf(path) !== uid) {
    throw new UserError(
      `${path} is somebody else's: set XDG_RUNTIME_DIR to a folder of yours, or use --root`,
    );
  }
  return path;
}

/**
 * Claims a container ID until this process ends, however it does: the kernel lets go of the lock by itself, and a
 * killed run leaves nothing behind. The lock is on one byte of `root`/lock, at a place that the ID gives: one file
 * for all IDs, whose content nobody reads.
 * @returns a function that gives it up
 * @throws UserError where another process has the ID.
 */
export function lockContainerId(root: string, id: string): () => void {
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
    closeSync(fd);
    throw new UserError(`container with given ID already exists: ${id}`);
  }
  if (result < 0) throw new UserError(`${path}: cannot be locked (errno ${-result})`);
  return () => closeSync(fd);
}

/** FNV-1a of 64 bits, cut to what a file offset can be. */
function placeOf(id: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(id)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash >> 2n;
}
