import { closeSync, readFileSync, readSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { addon, packageRoot } from '../addon/index.js';
import { reasonOf, UserError } from '../runtime/errors.js';
import { type ExactProcess, parseProcess, processFrom } from '../runtime/exec-process.js';
import { logWarning } from '../runtime/log.js';
import { listenFds, listenVariables, preservedFds } from '../runtime/preserved-fds.js';
import { stringifyExactJson } from '../runtime/spec/exact-json.js';
import { ContainerStore } from '../runtime/state/store.js';
import { Terminal } from '../runtime/terminal.js';
import { type Parsed, parseArguments, parseInteger, UsageError } from './arguments.js';
import type { Globals } from './globals.js';
import { keepCompiledCode } from './keep-code.js';

export const usage = `usage: tsvmm exec [OPTIONS] ID COMMAND [ARGUMENT...]
       tsvmm exec [OPTIONS] --process FILE ID

Runs another process in a container, on this command's standard streams, and ends with its status. It is like the container's
own process (its environment, user, capabilities, ...) but for the options.

  --process, -p FILE        all of it: an OCI process as JSON. Options about the process are ignored
  --cwd DIR                 its working directory
  --env, -e NAME=VALUE      one more variable; may be repeated
  --user, -u UID[:GID]      its user and group
  --additional-gids, -g GID one more group; may be repeated
  --cap, -c NAME            one more capability; may be repeated
  --no-new-privs            it gains no privileges
  --tty, -t                 on a terminal of its own
  --detach, -d              does not wait for its end
  --pid-file FILE           gets the ID of the process that stands for it on this host
  --console-socket PATH     a Unix socket that gets the master of its terminal
  --preserve-fds N          the process gets N more descriptors of this command, from 3 on
  --ignore-paused           in a paused container too, in which it waits
  --apparmor NAME, --process-label LABEL
                            accepted, without effect: the guest has neither AppArmor nor SELinux
  --cgroup PATH             in this group below the container's (in the guest)

Status: the process's; 128 + n where signal n has ended it; 255 where tsvmm failed.`;

const OPTIONS = {
  process: 'value',
  cwd: 'value',
  env: 'list',
  user: 'value',
  'additional-gids': 'list',
  cap: 'list',
  'no-new-privs': 'flag',
  tty: 'flag',
  detach: 'flag',
  'pid-file': 'value',
  'console-socket': 'value',
  'preserve-fds': 'value',
  'ignore-paused': 'flag',
  apparmor: 'value',
  'process-label': 'value',
  cgroup: 'value',
  'no-subreaper': 'flag',
} as const;

const SHORT = {
  p: 'process',
  e: 'env',
  u: 'user',
  g: 'additional-gids',
  c: 'cap',
  t: 'tty',
  d: 'detach',
} as const;

/** A control message takes 64 descriptors, the standard streams among them (src/addon/system.ts). */
const MOST_PRESERVED = 61;

type Options = Parsed<typeof OPTIONS>['options'];

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, SHORT, 1);
  const [id, ...command] = positionals;
  if (id === undefined) throw new UsageError('exec: the ID is missing; see tsvmm exec --help');
  const store = new ContainerStore(root);
  const { status } = store.load(id);
  if (status === 'stopped') throw new UserError('cannot exec in a stopped container');
  if (status === 'paused' && options['ignore-paused'] !== true) {
    throw new UserError('cannot exec in a paused container (use --ignore-paused to override)');
  }
  const { process: own, digits } = processOf(options, command, () => store.config(id));
  const terminal = own.terminal === true;
  checkConsole(options, terminal);
  // The process sees the size from its first moment on; tsvmm-exec tells of later ones.
  const screen = terminal && !options['console-socket'] ? new Terminal().size() : undefined;
  if (screen !== undefined && screen.rows > 0)
    own.consoleSize = { height: screen.rows, width: screen.columns };
  const cgroup = cgroupOf(options);
  const preserve = preservedCount(options);
  const preserved = preservedFds(preserve);
  if (listenFds(process.env) > 0) {
    own.env = [...(own.env ?? []), ...listenVariables()];
  }
  const request = {
    jsonrpc: '2.0',
    id: 1,
    method: 'exec',
    params: {
      process: own,
      terminal,
      preserved: preserve,
      ...(cgroup === undefined ? {} : { cgroup }),
      ...(options['ignore-paused'] === true ? { ignorePaused: true } : {}),
    },
  };
  const standIn = standInArguments(options, store.socketPath(id), terminal, preserve);
  const size = own.consoleSize;
  if (size !== undefined && options['console-socket']) standIn.push('--size', `${size.height}x${size.width}`);
  const input = addon().memfd('tsvmm-exec', stringifyExactJson(request, digits));
  if (input < 0) throw new UserError(`exec: the request cannot be handed on (errno ${-input})`);
  return options.detach === true ? start(standIn, input, preserved) : become(standIn, input, preserved);
}

/** @throws UserError */
function processOf(options: Options, command: readonly string[], config: () => string): ExactProcess {
  if (options.process !== undefined && options.process !== '') {
    const path = options.process;
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw new UserError(`--process: ${path}: ${reasonOf(error)}`);
    }
    return parseProcess(text, path);
  }
  if (command.length === 0) throw new UsageError('exec: the command is missing; see tsvmm exec --help');
  const changes = {
    args: command,
    cwd: options.cwd || undefined,
    env: options.env,
    user: options.user,
    additionalGids: options['additional-gids'],
    capabilities: options.cap,
    terminal: options.tty === true,
    noNewPrivileges: options['no-new-privs'],
    apparmorProfile: options.apparmor || undefined,
    selinuxLabel: options['process-label'] || undefined,
  };
  return processFrom(config(), changes, logWarning);
}

function checkConsole(options: Options, terminal: boolean): void {
  const detach = options.detach === true;
  const socket = options['console-socket'] ?? '';
  if (terminal && detach && socket === '') {
    throw new UsageError('exec: --detach with a terminal needs --console-socket, which gets its master');
  }
  if (socket !== '' && !(terminal && detach)) {
    throw new UsageError('exec: --console-socket is for a detached process with a terminal');
  }
}

/** Absolute, from the container's group. @throws UserError */
function cgroupOf({ cgroup = '' }: Options): string | undefined {
  const parts = cgroup.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw new UserError(`--cgroup: ${cgroup} is not a sub cgroup path`);
  if (cgroup.includes(':')) {
    throw new UserError(
      `--cgroup: ${cgroup}: the guest has the unified hierarchy, without controllers of their own`,
    );
  }
  return parts.length === 0 ? undefined : `/${parts.join('/')}`;
}

function preservedCount(options: Options): number {
  const { 'preserve-fds': text } = options;
  const asked = text === undefined ? 0 : parseInteger(text, '--preserve-fds', 0, MOST_PRESERVED);
  const count = asked + listenFds(process.env);
  if (count > MOST_PRESERVED) {
    throw new UsageError(`exec: ${count} descriptors are too many, at most ${MOST_PRESERVED}`);
  }
  return count;
}

/** The command line of the program that stands for the process on this host. */
function standInArguments(options: Options, socket: string, terminal: boolean, preserve: number): string[] {
  const args = [socket];
  const { 'pid-file': pidFile, 'console-socket': consoleSocket } = options;
  if (pidFile) args.push('--pid-file', resolve(pidFile));
  if (terminal) args.push('--terminal');
  if (consoleSocket) args.push('--console-socket', resolve(consoleSocket));
  if (preserve > 0) args.push('--preserve', String(preserve));
  return args;
}

function program(): string {
  return join(packageRoot(), 'build/Release/tsvmm-exec');
}

/** This process goes on as the program. Returns only by an error. */
function become(args: readonly string[], input: number, preserved: readonly number[]): never {
  keepCompiledCode();
  const error = addon().execve(program(), ['tsvmm-exec', ...args], [], [0, 1, 2, input, ...preserved]);
  throw new UserError(`${program()}: cannot be run (errno ${-error}); build it with: npm run build`);
}

/** Starts the program, and waits until the process runs. @throws UserError with the reason why it does not */
function start(args: readonly string[], input: number, preserved: readonly number[]): number {
  const report = addon().pipe();
  if (typeof report === 'number') throw new UserError(`exec: no pipe (errno ${-report})`);
  const [read, write] = report;
  const pid = addon().spawn(program(), ['tsvmm-exec', ...args, '--report'], [], {
    fds: [0, 1, 2, input, write, ...preserved],
    setsid: true,
  });
  closeSync(write);
  closeSync(input);
  if (pid < 0) {
    throw new UserError(`${program()}: cannot be run (errno ${-pid}); build it with: npm run build`);
  }
  const said = readToEnd(read).trimEnd();
  if (said === 'ok') return 0;
  throw new UserError(said === '' ? 'exec: the process could not be started' : said);
}

function readToEnd(fd: number): string {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk = Buffer.allocUnsafe(4096);
    const length = readSync(fd, chunk);
    if (length === 0) break;
    chunks.push(chunk.subarray(0, length));
  }
  closeSync(fd);
  return Buffer.concat(chunks).toString('utf8');
}
