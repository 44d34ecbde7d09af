import { lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { UserError } from './errors.js';

const FIRST = 3;

/**
 * The descriptors from 3 on that this process was given to hand on.
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

/**
 * Whether a descriptor is open, and none of Node's own. Node makes all that it inherits close on exec, as its own are; but its own are
 * epoll instances, event counters, and pipes to itself of which it has both ends.
 */
function isInherited(fd: number): boolean {
  const target = targetOf(String(fd));
  if (target === undefined || /^anon_inode:\[(eventpoll|eventfd|io_uring)\]$/.test(target)) return false;
  if (!target.startsWith('pipe:')) return true;
  const ends = readdirSync('/proc/self/fd').filter((name) => targetOf(name) === target);
  return new Set(ends.map((name) => lstatSync(`/proc/self/fd/${name}`).mode & 0o700)).size === 1;
}

function targetOf(name: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${name}`);
  } catch {
    return undefined;
  }
}

/** What systemd's protocol adds (sd_listen_fds(3)): sockets for the process, before those that are asked for. */
export function listenFds(env: NodeJS.ProcessEnv): number {
  const { LISTEN_FDS: text = '' } = env;
  return /^\d{1,4}$/.test(text) ? Number(text) : 0;
}
