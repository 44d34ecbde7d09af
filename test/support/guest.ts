import type { Duplex } from 'node:stream';
import type { Test } from 'tap';
import { Machine } from '../../src/machine/machine.js';
import {
  AgentClient,
  CONTROL_PORT,
  MAX_LINE,
  type RunParams,
  type StreamPorts,
} from '../../src/runtime/agent-client.js';
import { loadBundle } from '../../src/runtime/bundle.js';
import { guestConfig } from '../../src/runtime/guest-config.js';
import { guestFiles } from '../../src/runtime/guest-files.js';

/** What a process in the guest reads and writes. */
export interface Streams {
  readonly ports: StreamPorts;
  /** All of its standard output (or of its terminal), when that has ended. */
  readonly output: Promise<string>;
  readonly errors: Promise<string>;
  /** Its standard input, once the guest has connected. */
  readonly input: Promise<Duplex>;
  /** What its standard output has been so far. */
  text(): string;
  /** Resolves when its standard output has held `word`. */
  saw(word: string): Promise<void>;
}

/** A machine with the agent, and the test in the host's place. */
export class Guest {
  readonly client: AgentClient;
  /** What the agent tells, in its order: `exit ID STATUS`, `execExit ID NAME STATUS`, `oom ID`. */
  readonly events: string[] = [];
  readonly #waiting: (() => void)[] = [];
  #ready: () => void = () => {};
  #ended: string | undefined;
  #nextPort = 2000;

  private constructor(
    readonly machine: Machine,
    readonly bundle: string,
  ) {
    const channel = machine.vsock.channel(CONTROL_PORT, {
      maxLine: MAX_LINE,
      onLine: (line) => this.client.onLine(line),
      onEnd: (reason) => this.client.onEnd(reason),
    });
    this.client = new AgentClient(channel, {
      onReady: () => this.#ready(),
      onContainerExit: ({ id, status, oomKilled }) =>
        this.#tell(`exit ${id} ${status}${oomKilled ? ' oom' : ''}`),
      onExecExit: ({ id, exec, status }) => this.#tell(`execExit ${id} ${exec} ${status}`),
      onOom: (id) => this.#tell(`oom ${id}`),
      onLog: (level, message) => this.#tell(`log ${level} ${message}`),
      onEnd: (reason) => {
        this.#ended = reason;
        this.#tell(`end ${reason}`);
      },
    });
  }

  /** Boots a machine that shares the bundle's root file system. It ends with the test. */
  static async boot(t: Test, bundle: string): Promise<Guest> {
    const { root } = loadBundle(bundle);
    if (root.type !== 'directory') throw new Error('not a folder');
    const files = guestFiles({});
    const machine = await Machine.create({
      cpus: 1,
      memory: 256 << 20,
      kernel: { path: files.kernel, initrd: files.initrd, commandLine: 'quiet' },
      serial: { output: 2 },
      vsock: {},
      shares: [{ tag: 'rootfs', directory: root.directory, readOnly: false }],
    });
    const guest = new Guest(machine, bundle);
    t.teardown(() => machine.close());
    const ready = new Promise<void>((resolve) => {
      guest.#ready = resolve;
    });
    machine.start();
    await ready;
    return guest;
  }

  /** The parameters of a container: the bundle's own with another command. */
  container(
    id: string,
    script: string,
    ports: StreamPorts,
    change: (spec: Spec) => void = () => {},
  ): RunParams {
    const { spec } = loadBundle(this.bundle);
    spec.process.args = ['/bin/sh', '-c', script];
    change(spec);
    const config = guestConfig(spec, id, this.bundle).spec;
    return { id, config, rootfs: { type: 'virtiofs', tag: 'rootfs' }, streams: ports };
  }

  streams(kind: 'pipes' | 'terminal' = 'pipes'): Streams {
    const first = this.#nextPort;
    this.#nextPort += 3;
    const ports: StreamPorts =
      kind === 'terminal' ? { terminal: first } : { stdin: first, stdout: first + 1, stderr: first + 2 };
    const input = this.connection(first);
    const output = kind === 'terminal' ? input : this.connection(first + 1);
    let seen = '';
    const waiting: (() => void)[] = [];
    const whole = output.then(
      (stream) =>
        new Promise<string>((resolve) => {
          stream.on('data', (chunk: Buffer) => {
            seen += chunk.toString('latin1');
            for (const check of waiting) check();
          });
          stream.on('error', () => resolve(seen));
          stream.on('end', () => {
            if (kind !== 'terminal') stream.end();
            resolve(seen);
          });
        }),
    );
    return {
      ports,
      input,
      output: whole,
      errors: kind === 'terminal' ? Promise.resolve('') : this.connection(first + 2).then(collect),
      text: () => seen,
      saw: (word) =>
        new Promise((resolve) => {
          const check = (): void => {
            if (seen.includes(word)) resolve();
          };
          waiting.push(check);
          check();
        }),
    };
  }

  /** The guest's next connection to a port. */
  connection(port: number): Promise<Duplex> {
    return new Promise((resolve) => {
      const listener = this.machine.vsock.listen(port, (stream) => {
        listener.close();
        stream.on('error', () => {});
        resolve(stream);
      });
    });
  }

  /** Resolves when the agent has told `event`. */
  async told(event: string): Promise<void> {
    while (!this.events.includes(event)) {
      if (this.#ended !== undefined) throw new Error(`no ${event} before the end: ${this.#ended}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #tell(event: string): void {
    this.events.push(event);
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

type Spec = ReturnType<typeof loadBundle>['spec'];

function collect(stream: Duplex): Promise<string> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const done = (): void => resolve(Buffer.concat(chunks).toString('latin1'));
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', done);
    stream.on('end', () => {
      stream.end();
      done();
    });
  });
}
