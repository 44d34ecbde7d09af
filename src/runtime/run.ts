import { fstatSync } from 'node:fs';
import type { MachineConfig, ShareConfig } from '../machine/config.js';
import { Machine, type MachineExit } from '../machine/machine.js';
import type { Timeline } from '../machine/timeline.js';
import { AgentClient, CONTROL_PORT, MAX_LINE, RefusedError, type RunParams } from './agent-client.js';
import { type Bundle, checkId, loadBundle } from './bundle.js';
import { ConsoleLog } from './console-log.js';
import { lockContainerId, stateRoot } from './container-lock.js';
import { messageOf, UserError } from './errors.js';
import { type GuestConfig, guestConfig } from './guest-config.js';
import { guestFiles } from './guest-files.js';
import { makeMountPoints } from './mount-points.js';
import { printError } from './output.js';
import { onSignals } from './signals.js';
import { machineSize } from './sizing.js';
import type { Spec } from './spec/types.js';

export interface RunOptions {
  /** The bundle's folder. */
  readonly bundle: string;
  /** Undefined: one that no other container has. */
  readonly id?: string | undefined;
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  /** Bytes. */
  readonly memory?: number | undefined;
  readonly cpus?: number | undefined;
  /** Seconds that the guest has until its agent answers. */
  readonly bootTimeout: number;
  /** The guest's console and the agent's log go to standard error. */
  readonly debug?: boolean | undefined;
  readonly timeline?: Timeline | undefined;
}

/** The terminal that a process with `process.terminal` is shown on: this process's, or nothing. */
export interface RunTerminal {
  /** Undefined where standard input is no terminal. */
  size(): { readonly rows: number; readonly columns: number } | undefined;
  /** Hands every key to the guest. */
  raw(): void;
  /** Idempotent. */
  restore(): void;
  onResize(listener: () => void): void;
}

/** A machine that failed: the message for one line, and the end of what its console said. */
export class RunError extends UserError {
  constructor(
    message: string,
    readonly consoleLines: readonly string[] = [],
  ) {
    super(message);
  }
}

const STREAM_PORTS = { stdin: 1025, stdout: 1026, stderr: 1027, terminal: 1028 } as const;
const ROOTFS_TAG = 'rootfs';
const MOUNTS_TAG = 'mounts';
/** How long the guest may take to write its file systems back. */
const SHUTDOWN_TIMEOUT_MS = 60_000;
/** A guest whose agent has gone is about to end by itself, and then says why. */
const LAST_WORDS_MS = 3_000;
/** How much of a failed guest's console is shown: a panic's own lines and what was before. */
const CONSOLE_LINES = 30;

/**
 * Runs a bundle's process in a machine of its own, on this process's standard streams. Resolves with its exit status,
 * or 128 + n where signal n came before it ran; `onEnd` sees the machine once more before that. Throws a UserError (RunError where the machine has failed).
 */
export async function runContainer(
  options: RunOptions,
  terminal: RunTerminal,
  onEnd?: (machine: Machine) => void,
): Promise<number> {
  const id = options.id ?? `run-${process.pid}-${Date.now().toString(36)}`;
  checkId(id);
  const bundle = loadBundle(options.bundle);
  const guest = guestConfig(bundle.spec, id, bundle.directory);
  const { spec, warnings } = guest;
  for (const warning of warnings) printError(`tsvmm: warning: config.json: ${warning}`);
  if (options.id !== undefined) lockContainerId(stateRoot(), id);
  if (spec.process.terminal === true) {
    const size = terminal.size();
    if (size !== undefined) spec.process.consoleSize = { height: size.rows, width: size.columns };
  }
  const log = options.debug === true ? undefined : new ConsoleLog();
  options.timeline?.mark('bundle');
  const machine = await Machine.create(machineConfig(options, bundle, guest, log?.fd ?? 2));
  const params: RunParams = {
    id,
    config: spec,
    rootfs: rootfsOf(bundle),
    ...(guest.exports.length > 0 ? { mounts: { tag: MOUNTS_TAG } } : {}),
    streams: streamsOf(spec),
  };
  const writable = spec.root.readonly !== true || guest.exports.some(({ readOnly }) => !readOnly);
  const run = new ContainerRun(machine, options, terminal, params, writable);
  try {
    const status = await run.live(bundle.digits);
    onEnd?.(machine);
    return status;
  } catch (error) {
    machine.close();
    const lines = log === undefined ? [] : await log.lastLines(CONSOLE_LINES);
    if (error instanceof RunError) throw new RunError(error.message, lines);
    throw error;
  }
}

function machineConfig(
  options: RunOptions,
  bundle: Bundle,
  guest: GuestConfig,
  consoleFd: number,
): MachineConfig {
  const { spec, root } = bundle;
  const vm = spec.vm?.kernel;
  const files = guestFiles({
    kernel: options.kernel ?? vm?.path,
    initrd: options.initrd ?? vm?.initrd,
  });
  const parameters = [options.debug === true ? 'tsvmm.debug' : 'quiet', ...(vm?.parameters ?? [])];
  return {
    ...machineSize(spec, { memory: options.memory, cpus: options.cpus }),
    kernel: { path: files.kernel, initrd: files.initrd, commandLine: parameters.join(' ') },
    serial: { output: consoleFd },
    vsock: {},
    shares: sharesOf(bundle, guest),
    ...(root.type === 'image' ? { disks: [{ path: root.path, readOnly: spec.root.readonly === true }] } : {}),
    timeline: options.timeline,
    ...(options.debug === true ? { log: (line: string) => printError(`tsvmm: ${line}`) } : {}),
  };
}

/** What the guest sees of the host's files: the root file system, and one share for all bind mounts. */
function sharesOf({ root, spec }: Bundle, { exports, files }: GuestConfig): ShareConfig[] {
  const shares: ShareConfig[] = [];
  if (root.type === 'directory') {
    const readOnly = spec.root.readonly === true && makeMountPoints(root.directory, spec, files);
    shares.push({ tag: ROOTFS_TAG, directory: root.directory, readOnly });
  }
  if (exports.length > 0) shares.push({ tag: MOUNTS_TAG, exports });
  return shares;
}

function rootfsOf({ root, spec }: Bundle): RunParams['rootfs'] {
  if (root.type === 'directory') return { type: 'virtiofs', tag: ROOTFS_TAG };
  return { type: 'disk', device: '/dev/vda', readonly: spec.root.readonly === true };
}

function streamsOf(spec: Spec): RunParams['streams'] {
  if (spec.process.terminal === true) return { terminal: STREAM_PORTS.terminal };
  const { stdin, stdout, stderr } = STREAM_PORTS;
  return { stdin, stdout, stderr };
}

/** One container from the machine's start to its end. */
class ContainerRun {
  #phase: 'booting' | 'starting' | 'running' | 'exited' = 'booting';
  readonly #client: AgentClient;
  /** Settled once, by whatever ends the run. */
  readonly #done: Promise<number>;
  #finish: (status: number) => void = () => {};
  #fail: (error: Error) => void = () => {};
  /** Resolves when all of the process's output has been written. */
  #outputWritten: Promise<unknown> = Promise.resolve();
  #digits: ReadonlyMap<number, string> = new Map();
  #deadline: NodeJS.Timeout | undefined;

  constructor(
    private readonly machine: Machine,
    private readonly options: RunOptions,
    private readonly terminal: RunTerminal,
    private readonly params: RunParams,
    /** Whether the guest can change anything of the host's. */
    private readonly writable: boolean,
  ) {
    this.#done = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#fail = reject;
    });
    const channel = machine.vsock.channel(CONTROL_PORT, {
      maxLine: MAX_LINE,
      onLine: (line) => this.#client.onLine(line),
      onEnd: (reason) => this.#client.onEnd(reason),
    });
    this.#client = new AgentClient(channel, {
      onReady: () => this.#start(),
      onContainerExit: ({ id, status }) => this.#exited(id, status),
      onLog: (level, message) => {
        if (level === 'error' || this.options.debug === true) printError(`tsvmm: guest: ${message}`);
      },
      onEnd: (reason) => this.#agentGone(reason),
    });
  }

  async live(digits: ReadonlyMap<number, string>): Promise<number> {
    const { machine, options } = this;
    this.#digits = digits;
    this.#bindStreams();
    const removeSignals = onSignals((signal) => this.#signalled(signal));
    this.#deadline = setTimeout(() => {
      const what = this.#phase === 'booting' ? 'did not answer' : 'did not start the process';
      this.#fail(new RunError(`the guest ${what} within ${options.bootTimeout} seconds`));
    }, options.bootTimeout * 1000);
    machine.wait().then((exit) => this.#machineEnded(exit));
    machine.start();
    options.timeline?.mark('start');
    try {
      return await this.#done;
    } finally {
      clearTimeout(this.#deadline);
      removeSignals();
      this.terminal.restore();
      machine.stop();
    }
  }

  #bindStreams(): void {
    const { vsock } = this.machine;
    const bind = (port: number | undefined, read: number, write: number): Promise<void> =>
      port === undefined
        ? Promise.resolve()
        : new Promise((resolve) => {
            vsock.bindPort(port, {
              read,
              write,
              onClosed: ({ lostBytes }) => {
                reportLost(write, lostBytes);
                resolve();
              },
            });
          });
    const { stdin, stdout, stderr, terminal } = this.params.streams;
    void bind(stdin, 0, -1);
    this.#outputWritten = Promise.all([bind(stdout, -1, 1), bind(stderr, -1, 2), bind(terminal, 0, 1)]);
  }

  async #start(): Promise<void> {
    this.options.timeline?.mark('ready');
    this.#phase = 'starting';
    const terminal = this.params.streams.terminal !== undefined && this.terminal.size() !== undefined;
    if (terminal) this.terminal.raw();
    try {
      await this.#client.run(this.params, this.#digits);
    } catch (error) {
      const message = messageOf(error);
      this.#fail(error instanceof RefusedError ? new UserError(message) : new RunError(message));
      return;
    }
    clearTimeout(this.#deadline);
    // A short process's exit may have been told by now.
    if (this.#phase === 'starting') this.#phase = 'running';
    this.options.timeline?.mark('running');
    if (terminal) this.terminal.onResize(() => this.#resize());
  }

  #resize(): void {
    const size = this.terminal.size();
    if (this.#phase !== 'running' || size === undefined) return;
    this.#client.resize(this.params.id, size.rows, size.columns).catch((error) => this.#warn(error));
  }

  #signalled(signal: number): void {
    if (this.#phase === 'running') {
      this.#client.kill(this.params.id, signal).catch((error) => this.#warn(error));
    } else {
      this.#finish(128 + signal);
    }
  }

  /** A signal or a new size that found no process any more is no error of the run. */
  #warn(error: unknown): void {
    if (this.#phase === 'running') printError(`tsvmm: warning: ${messageOf(error)}`);
  }

  async #exited(id: string, status: number): Promise<void> {
    if (id !== this.params.id || this.#phase === 'exited') return;
    this.#phase = 'exited';
    this.options.timeline?.mark('exit');
    await this.#outputWritten;
    this.terminal.restore();
    try {
      // What lies in the guest's caches has to reach the host.
      if (this.writable) await this.#client.shutdown(SHUTDOWN_TIMEOUT_MS);
    } catch (error) {
      this.#fail(
        new RunError(
          `the process has ended with status ${status}, but its machine failed: ${messageOf(error)}`,
        ),
      );
      return;
    }
    this.#finish(status);
  }

  #agentGone(reason: string): void {
    if (this.#phase === 'exited') return;
    setTimeout(() => this.#fail(new RunError(reason)), LAST_WORDS_MS).unref();
  }

  #machineEnded(exit: MachineExit): void {
    this.#fail(new RunError(wordsOf(exit)));
  }
}

/** A reader that has gone is nobody's fault; a file that could not be written is to be known. */
function reportLost(fd: number, bytes: number): void {
  if (bytes === 0 || fd < 0) return;
  const stats = fstatSync(fd);
  if (stats.isFIFO() || stats.isSocket()) return;
  const name = fd === 1 ? 'standard output' : 'standard error';
  printError(`tsvmm: warning: ${bytes} bytes of ${name} could not be written`);
}

function wordsOf(exit: MachineExit): string {
  switch (exit.reason) {
    case 'power-off':
      return 'the guest powered off before its process had ended';
    case 'reset':
      return 'the guest reset itself before its process had ended';
    case 'stopped':
      return 'the machine was stopped before its process had ended';
    case 'panic':
      return `the guest's kernel panicked: ${exit.message.replace(/^Kernel panic - not syncing: /, '')}`;
    case 'triple-fault':
      return `the guest failed: ${exit.message}`;
    case 'kvm-error':
      return `KVM cannot run the guest: ${exit.message}`;
  }
}
