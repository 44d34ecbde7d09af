import { readFileSync, readlinkSync } from 'node:fs';

/** Who root of this user namespace is outside of it; undefined in the first one, and where root is nobody. */
export function outsideUid(): number | undefined {
  const map = readFileSync('/proc/self/uid_map', 'utf8');
  const [, outside, count] = /^\s*0\s+(\d+)\s+(\d+)$/m.exec(map) ?? [];
  // proc_pid_uid_map(5): the first namespace maps all ids to themselves.
  if (outside === undefined || (outside === '0' && count === '4294967295')) return undefined;
  return Number(outside);
}

let pid: number | undefined;

/** This process's ID for those who started it, though it may be the first of a PID namespace of its own (native/launch). */
export function ownPid(): number {
  // /proc is theirs.
  pid ??= process.pid === 1 ? Number(readlinkSync('/proc/self')) : process.pid;
  return pid;
}
