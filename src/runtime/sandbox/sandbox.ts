import { fstatSync } from 'node:fs';
import type { Machine, MachineExit } from '../../machine/machine.js';
import type { Timeline } from '../../machine/timeline.js';
import { AgentClient, CONTROL_PORT, MAX_LINE, RefusedError, type RunParams } from '../agent-client.js';
import { messageOf, UserError } from '../errors.js';
import { asRuncSays } from '../runc-words.js';
import { Execs } from './execs.js';
import { bindPreserved, type StreamBinder, streamBinder } from './streams.js';

/** Descriptors of this process that the container's process has as its standard streams. */
export type SandboxStreams =
  | {
      readonly kind: 'streams';
      readonly stdin: number;
      readonly stdout: number;
      readonly stderr: number;
      /** They are closed when nobody in the container has them open any more. */
      readonly handOver?: boolean;
    }
  | { readonly kind: 'terminal'; readonly read: number; readonly write: number };

export interface SandboxOptions {
  readonly id: string;
  readonly machine: Machine;
  /** Of container.run and container.create, without the streams. */
  readonly params: Omit<RunParams, 'streams' | 'preserved'>;
  /** The process's, for messages. */
  readonly program: string;
  /** How large numbers of the configuration were written (../spec/exact-json.ts). */
  readonly digits: ReadonlyMap<number, string>;
  /** What the guest has to configure: parameters of network.set. */
  readonly network?: object | undefined;
  readonly streams: SandboxStreams;
  /** Descriptors that the process gets as 3, 4, ... */
  readonly preserved: readonly number[];
  /** Whether the guest can change anything of the host's. */
  readonly writable: boolean;
  /** Seconds until the process is there. */
  readonly bootTimeout: number;
  readonly debug: boolean;
  readonly log: (level: 'warning' | 'error', message: string) => void;
  readonly timeline?: Timeline | undefined;
  readonly onOom?: (() => void) | undefined;
}

/** A machine that failed. */
export class MachineFailed extends UserError {}

/** How long the guest may take to write its file systems back. */
const SHUTDOWN_TIMEOUT_MS = 60_000;
/** A guest whose agent has gone is about to end by itself, and then says why. */
const LAST_WORDS_MS = 3_000;

type Phase = 'booting' | 'starting' | 'created' | 'running' | 'exited';

/** A container's machine and the agent in it, from the first instruction to the end. */
export class Sandbox {
  /** The process's exit status, once all is done. Rejects with a UserError, MachineFailed where the machine has failed. */
  readonly ended: Promise<number>;
  readonly agent: AgentClient;
  readonly execs: Execs;
  #phase: Phase = 'booting';
  #finish: (status: number) => void = () => {};
  #fail: (error: Error) => void = () => {};
  #onReady: () => void = () => {};
  /** Resolves when all of the process's output has been written. */
  #outputWritten: Promise<unknown> = Promise.resolve();
  #deadline: NodeJS.Timeout | undefined;
  #params: RunParams;
  readonly #binder: StreamBinder;

  constructor(private readonly options: SandboxOptions) {
    this.ended = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#fail = reject;
    });
    // Whoever waits for something else hears of the failure there.
    this.ended.catch(() => {});
    const { machine } = options;
    this.#binder = streamBinder(machine.vsock, (fd, bytes) => this.#reportLost(fd, bytes));
    const channel = machine.vsock.channel(CONTROL_PORT, {
      maxLine: MAX_LINE,
      onLine: (line) => this.agent.onLine(line),
      onEnd: (reason) => this.agent.onEnd(reason),
    });
    this.agent = new AgentClient(channel, {
      onReady: () => this.#onReady(),
      onContainerExit: ({ id, status }) => this.#exited(id, status),
      onExecExit: ({ exec, status }) => this.execs.exited(exec, status),
      onOom: () => options.onOom?.(),
      onLog: (level, message) => {
        if (level === 'error' || options.debug)
          options.log(level === 'error' ? 'error' : 'warning', `guest: ${message}`);
      },
      onEnd: (reason) => this.#agentGone(reason),
    });
    this.execs = new Execs(this.agent, options.id, this.#binder);
    this.#params = { ...options.params, streams: {} };
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Starts the machine; resolves when its agent is there and has set up the network. */
  async boot(): Promise<void> {
    const { options } = this;
    this.#params = { ...options.params, ...this.#bindStreams() };
    const ready = new Promise<void>((resolve) => {
      this.#onReady = resolve;
    });
    this.#deadline = setTimeout(() => {
      const what = this.#phase === 'booting' ? 'did not answer' : 'did not start the process';
      this.#fail(new MachineFailed(`the guest ${what} within ${options.bootTimeout} seconds`));
    }, options.bootTimeout * 1000);
    options.machine.wait().then((exit) => this.#fail(new MachineFailed(wordsOf(exit))));
    options.machine.start();
    options.timeline?.mark('start');
    await Promise.race([ready, this.ended]);
    options.timeline?.mark('ready');
    this.#phase = 'starting';
    if (options.network !== undefined) await this.ask(this.agent.networkSet(options.network));
  }

  /** Makes the container; its process waits for start(). */
  async create(): Promise<void> {
    await this.ask(this.agent.create(this.#params, this.options.digits));
    this.#arrived('created');
  }

  /** Starts the process of a container that was made. */
  async start(): Promise<void> {
    await this.ask(this.agent.start(this.options.id));
    if (this.#phase === 'created') this.#phase = 'running';
  }

  /** create() and start() at once, which costs less. */
  async run(): Promise<void> {
    await this.ask(this.agent.run(this.#params, this.options.digits));
    this.options.timeline?.mark('running');
    this.#arrived('running');
  }

  /** Signals the process; before there is one the machine ends with 128 + `signal`. */
  signal(signal: number): void {
    if (this.#phase === 'running' || this.#phase === 'created') {
      this.agent.kill(this.options.id, signal).catch((error) => this.#warn(error));
    } else if (this.#phase !== 'exited') {
      this.#finish(128 + signal);
    }
  }

  /** The size of the process's terminal, in characters. */
  resize(rows: number, columns: number): void {
    if (this.#phase !== 'running' && this.#phase !== 'created') return;
    this.agent.resize(this.options.id, rows, columns).catch((error) => this.#warn(error));
  }

  /** Ends the machine at once. */
  stop(): void {
    clearTimeout(this.#deadline);
    this.#finish(128 + 9);
    this.options.machine.stop();
  }

  /** What became of a request to the agent, with the machine's own reason where the machine is what failed. `program` is what it was to start. */
  async ask<T>(answer: Promise<T>, program = this.options.program): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (error instanceof RefusedError) throw new UserError(asRuncSays(messageOf(error), program));
      // Its connection has ended, and why is on its way.
      if (this.#phase !== 'exited') await this.ended;
      throw new UserError(messageOf(error));
    }
  }

  #arrived(phase: 'created' | 'running'): void {
    clearTimeout(this.#deadline);
    // A short process's exit may have been told by now.
    if (this.#phase === 'starting') this.#phase = phase;
  }

  #bindStreams(): Pick<RunParams, 'streams'> & Partial<RunParams> {
    const { streams } = this.options;
    const binder = this.#binder;
    const { preserved, written } = bindPreserved(this.options.preserved, (ends) => binder.bind(ends));
    const also = preserved.length > 0 ? { preserved } : {};
    if (streams.kind === 'terminal') {
      const terminal = binder.bind({ read: streams.read, write: streams.write });
      this.#outputWritten = Promise.all([terminal.closed, ...written]);
      return { streams: { terminal: terminal.port }, ...also };
    }
    const { handOver } = streams;
    const stdin = binder.bind({ read: streams.stdin, write: -1 }, handOver);
    const stdout = binder.bind({ read: -1, write: streams.stdout }, handOver);
    const stderr = binder.bind({ read: -1, write: streams.stderr }, handOver);
    this.#outputWritten = Promise.all([stdout.closed, stderr.closed, ...written]);
    return { streams: { stdin: stdin.port, stdout: stdout.port, stderr: stderr.port }, ...also };
  }

  /** A signal or a new size that found no process any more is no error. */
  #warn(error: unknown): void {
    if (this.#phase === 'running') this.options.log('warning', messageOf(error));
  }

  async #exited(id: string, status: number): Promise<void> {
    if (id !== this.options.id || this.#phase === 'exited') return;
    this.#phase = 'exited';
    clearTimeout(this.#deadline);
    this.options.timeline?.mark('exit');
    await Promise.all([this.#outputWritten, this.execs.settled()]);
    try {
      // What lies in the guest's caches has to reach the host.
      if (this.options.writable) await this.agent.shutdown(SHUTDOWN_TIMEOUT_MS);
    } catch (error) {
      this.#fail(
        new MachineFailed(
          `the process has ended with status ${status}, but its machine failed: ${messageOf(error)}`,
        ),
      );
      return;
    }
    this.#finish(status);
  }

  #agentGone(reason: string): void {
    if (this.#phase === 'exited') return;
    setTimeout(() => this.#fail(new MachineFailed(reason)), LAST_WORDS_MS).unref();
  }

  /** A reader that has gone is nobody's fault; a file that could not be written is to be known. */
  #reportLost(fd: number, bytes: number): void {
    const stats = fstatSync(fd);
    if (stats.isFIFO() || stats.isSocket()) return;
    const name = fd === 1 ? 'standard output' : fd === 2 ? 'standard error' : `descriptor ${fd}`;
    this.options.log('warning', `${bytes} bytes of ${name} could not be written`);
  }
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
