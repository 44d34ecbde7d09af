import { closeSync, fstatSync, openSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import { codeOf, reasonOf, reasonOfErrno, UserError } from '../errors.js';

const CLONE_NEWNET = 0x40000000;
/** The calling thread's, as long as that is the process's first. */
const OWN = '/proc/self/ns/net';

/** An open network namespace. Its file is what those take a lock on who change something in it. */
export class NetworkNamespace {
  private constructor(readonly fd: number) {}

  /** The one that the calling thread is in. */
  static current(): NetworkNamespace {
    return new NetworkNamespace(openSync(OWN, 'r'));
  }

  /** @returns undefined where there is nothing of that name */
  static open(path: string): NetworkNamespace | undefined {
    try {
      return new NetworkNamespace(openSync(path, 'r'));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw new UserError(`network namespace ${path}: ${reasonOf(error)}`);
    }
  }

  /** What tells it from every other that there is at the same time: the numbers of its file. */
  identity(): string {
    const { dev, ino } = fstatSync(this.fd);
    return `${dev}:${ino}`;
  }

  /** Runs `work` while no other process changes this namespace. */
  locked<Result>(work: () => Result): Result {
    addon().lockFile(this.fd, true);
    try {
      return work();
    } finally {
      addon().lockFile(this.fd, false);
    }
  }

  /** Runs `work` with the calling thread in this namespace. @throws UserError where it may not be entered */
  within<Result>(path: string, work: () => Result): Result {
    const before = NetworkNamespace.current();
    try {
      const status = addon().setns(this.fd, CLONE_NEWNET);
      if (status !== 0) throw new UserError(`network namespace ${path}: ${reasonOfErrno(status)}`);
      try {
        return work();
      } finally {
        addon().setns(before.fd, CLONE_NEWNET);
      }
    } finally {
      before.close();
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
