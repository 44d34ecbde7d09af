import { readFileSync } from 'node:fs';
import { UserError } from './errors.js';

/** fcntl.h: O_CLOEXEC, as /proc/PID/fdinfo shows it. */
const O_CLOEXEC = 0o2000000;
const FIRST = 3;

/**
 * The descriptors from 3 on that this process was given to hand on. Those that Node opens for itself are closed on exec, which
 * tells them apart.
 * @throws UserError where one of them is not open
 */
export function preservedFds(count: number): number[] {
  const fds: number[] = [];
  for (let fd = FIRST; fd < FIRST + count; fd++) {
    if (!isInherited(fd)) throw new UserError(`--preserve-fds ${count}: descriptor ${fd} is not open`);
    fds.push(fd);
  }
  return fds;
}

/** As many as the guest takes (docs/agent-protocol.md). */
const MOST = 64;

/**
 * The same as crun does it for a container's own process: one that is not open is no error, and its place has -1. systemd's
 * ({@link listenFds}) come first.
 * @throws UserError where they are too many
 */
export function inheritedFds(asked: number): number[] {
  const count = asked + listenFds(process.env);
  const fds = Array.from({ length: count }, (_, index) => (isInherited(FIRST + index) ? FIRST + index : -1));
  while (fds.at(-1) === -1) fds.pop();
  if (fds.length > MOST)
    throw new UserError(`--preserve-fds: ${fds.length} descriptors are too many, at most ${MOST}`);
  return fds;
}

/** What systemd's protocol tells the process of descriptors that came with it (sd_listen_fds(3)). */
export function listenVariables(): string[] {
  const count = listenFds(process.env);
  return count > 0 ? [`LISTEN_FDS=${count}`, 'LISTEN_PID=1'] : [];
}

function isInherited(fd: number): boolean {
  let info: string;
  try {
    info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  } catch {
    return false;
  }
  const flags = /^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '0';
  return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
}

/** What systemd's protocol adds (sd_listen_fds(3)): sockets for the process, before those that are asked for. */
export function listenFds(env: NodeJS.ProcessEnv): number {
  const { LISTEN_FDS: text = '' } = env;
  return /^\d{1,4}$/.test(text) ? Number(text) : 0;
}
