import { renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { reasonOf, UserError } from './errors.js';

/** Writes a process ID, without a newline as runc does; a reader never sees a part of it. @throws UserError */
export function writePidFile(path: string, pid: number): void {
  const temporary = `${dirname(path)}/.tsvmm-pid-${process.pid}`;
  try {
    writeFileSync(temporary, String(pid), { mode: 0o644 });
    renameSync(temporary, path);
  } catch (error) {
    throw new UserError(`${path}: the pid file cannot be written: ${reasonOf(error)}`);
  }
}
