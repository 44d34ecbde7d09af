import { closeSync, readSync } from 'node:fs';
import { addon, packageRoot } from '../addon/index.js';
import type { SettingFlags } from './config/settings.js';
import { UserError } from './errors.js';
import { inheritedFds } from './preserved-fds.js';
import { outsideUid } from './user-namespace.js';

/** What `create` hands to the sandbox that it starts, as JSON in an argument. */
export interface CreateRequest {
  readonly root: string;
  readonly id: string;
  /** Absolute. */
  readonly bundle: string;
  readonly config?: string | undefined;
  readonly flags: SettingFlags;
  /** Absolute. */
  readonly consoleSocket?: string | undefined;
  /** Descriptors behind the status pipe. */
  readonly preserveFds: number;
}

/** A line of the status pipe. */
export type StatusLine =
  | { readonly warning: string }
  | { readonly error: string; readonly console?: readonly string[] }
  | { readonly created: true };

/** Where a sandbox tells how its creation goes. */
export const STATUS_FD = 3;
/**
 * The container's standard streams in the sandbox. They are none of the sandbox's own, which are /dev/null: as soon as nobody in the
 * container has one open any more it is closed, for who waits for its end.
 */
export const STREAM_FDS = [4, 5, 6] as const;

/**
 * Starts a container's sandbox, to which this process's standard streams go, and waits until the container is created.
 * @returns the sandbox's process ID
 * @throws UserError with the sandbox's reason
 */
export function createContainer(
  request: CreateRequest,
  warn: (message: string) => void,
  env: NodeJS.ProcessEnv = process.env,
): number {
  const preserved = inheritedFds(request.preserveFds);
  const made: CreateRequest = { ...request, preserveFds: preserved.length };
  const pipe = addon().pipe();
  if (typeof pipe === 'number') throw new UserError(`no pipe for the sandbox (errno ${-pipe})`);
  const [read, write] = pipe;
  const program = process.execPath;
  const pid = addon().spawn(
    program,
    [program, `${packageRoot()}/dist/tsvmm.cjs`, 'sandbox', request.id, JSON.stringify(made)],
    Object.entries(env).map(([name, value]) => `${name}=${value}`),
    { fds: [-1, -1, -1, write, 0, 1, 2, ...preserved], setsid: true, ownPids: isNamespaceRoot() },
  );
  closeSync(write);
  if (pid < 0) throw new UserError(`the sandbox cannot be started (errno ${-pid})`);
  let created = false;
  for (const line of lines(read)) {
    const status = JSON.parse(line) as StatusLine;
    if ('warning' in status) warn(status.warning);
    else if ('error' in status) throw failure(status.error, status.console);
    else created = true;
  }
  if (!created) throw new UserError('the sandbox ended while it made the container');
  return pid;
}

function failure(message: string, consoleLines: readonly string[] = []): UserError {
  return Object.assign(new UserError(message), { consoleLines });
}

/** Reads a pipe to its end, line by line. Waits without an event loop: there is nothing else to do. */
function* lines(fd: number): Generator<string> {
  const chunk = Buffer.allocUnsafe(4096);
  let rest = '';
  for (;;) {
    const length = readSync(fd, chunk);
    if (length === 0) break;
    rest += chunk.toString('latin1', 0, length);
    const parts = rest.split('\n');
    rest = parts.pop() ?? '';
    // Whole lines only, so that no character is cut.
    for (const part of parts) yield Buffer.from(part, 'latin1').toString('utf8');
  }
  closeSync(fd);
}

/**
 * Whoever enters the namespaces of a container's process, as `podman cp` does, enters its PID namespace as well, which root of a user
 * namespace may do with one that was made in there only.
 */
function isNamespaceRoot(): boolean {
  return process.geteuid?.() === 0 && outsideUid() !== undefined;
}
