import { closeSync } from 'node:fs';
import type { AgentClient, RunParams } from '../agent-client.js';
import type { Process } from '../spec/types.js';
import { accessOf, type BoundStream, bindPreserved, type StreamBinder, type StreamEnds } from './streams.js';

export interface ExecRequest {
  readonly process: Process;
  /** How the process's large numbers were written. */
  readonly digits: ReadonlyMap<number, string>;
  /** Descriptors, handed over: in, out and err, or in and out of a terminal; then what the process gets as 3, 4, ... */
  readonly fds: readonly number[];
  readonly terminal: boolean;
  /** A group below the container's, from there. */
  readonly cgroup?: string;
  /** In a paused container too: it waits there. */
  readonly ignorePaused: boolean;
}

/** A process that runs in the container beside its first. */
export interface Exec {
  /** Its ID in the guest. */
  readonly pid: number;
  /** Resolves when it has ended and all its output has been written. */
  readonly status: Promise<number>;
  signal(signal: number): Promise<void>;
  resize(rows: number, columns: number): Promise<void>;
}

interface Running {
  readonly output: Promise<unknown>;
  resolve(status: number): void;
}

/** Status of a process whose machine has ended under it: as killed. */
const KILLED = 128 + 9;

/** The processes of `exec`. */
export class Execs {
  readonly #running = new Map<string, Running>();
  readonly #settling = new Set<Promise<unknown>>();
  #next = 1;

  constructor(
    private readonly agent: Pick<AgentClient, 'exec' | 'kill' | 'resize'>,
    private readonly id: string,
    private readonly binder: StreamBinder,
  ) {}

  /** @throws what the agent says; the descriptors are closed then too */
  async start({ process, digits, fds, terminal, cgroup }: ExecRequest): Promise<Exec> {
    const { agent, id } = this;
    const name = String(this.#next++);
    const { bound, output, streams, preserved } = this.#bind(fds, terminal);
    let resolve: (status: number) => void = () => {};
    const status = new Promise<number>((done) => {
      resolve = done;
    });
    this.#running.set(name, { output, resolve });
    let pid: number;
    try {
      const also = {
        ...(preserved.length > 0 ? { preserved } : {}),
        ...(cgroup === undefined ? {} : { cgroup }),
      };
      ({ pid } = await agent.exec({ id, exec: name, process, streams, ...also }, digits));
    } catch (error) {
      this.#running.delete(name);
      for (const stream of bound) stream.cancel();
      throw error;
    }
    return {
      pid,
      status,
      signal: (signal) => agent.kill(id, signal, { exec: name }),
      resize: (rows, columns) => agent.resize(id, rows, columns, { exec: name }),
    };
  }

  /** The agent tells that one has ended. */
  exited(name: string, status: number): void {
    const running = this.#running.get(name);
    if (running === undefined) return;
    this.#running.delete(name);
    const settling = running.output.then(() => running.resolve(status));
    this.#settling.add(settling);
    void settling.then(() => this.#settling.delete(settling));
  }

  /** The container has ended: resolves when all that its processes wrote has been delivered. */
  async settled(): Promise<void> {
    await Promise.all(this.#settling);
    for (const { resolve } of this.#running.values()) resolve(KILLED);
    this.#running.clear();
  }

  /** Takes the descriptors: what is not open for a stream's direction leaves the process /dev/null. */
  #bind(fds: readonly number[], terminal: boolean) {
    const bound: BoundStream[] = [];
    const left = new Set(fds);
    const endsOf = (read: number, write: number): StreamEnds => ({
      read: accessOf(read).read,
      write: accessOf(write).write,
    });
    const bind = (ends: StreamEnds): BoundStream => {
      const stream = this.binder.bind(ends, true);
      bound.push(stream);
      for (const fd of [ends.read, ends.write]) left.delete(fd);
      return stream;
    };
    const take = (ends: StreamEnds): BoundStream | undefined =>
      ends.read >= 0 || ends.write >= 0 ? bind(ends) : undefined;
    const [first = -1, second = -1, third = -1] = fds;
    let streams: RunParams['streams'];
    const outputs: (Promise<void> | undefined)[] = [];
    try {
      if (terminal) {
        const stream = bind(endsOf(first, second));
        streams = { terminal: stream.port };
        outputs.push(stream.closed);
      } else {
        const [stdin, stdout, stderr] = [
          take(endsOf(first, -1)),
          take(endsOf(-1, second)),
          take(endsOf(-1, third)),
        ];
        streams = { stdin: stdin?.port, stdout: stdout?.port, stderr: stderr?.port };
        outputs.push(stdout?.closed, stderr?.closed);
      }
      const { preserved, written } = bindPreserved(fds.slice(terminal ? 2 : 3), bind);
      const output = Promise.all([...outputs, ...written]);
      return { bound, output, streams, preserved };
    } catch (error) {
      for (const stream of bound) stream.cancel();
      throw error;
    } finally {
      closeAll(left);
    }
  }
}

/** Closes descriptors that came with a request that is not followed. */
export function closeAll(fds: Iterable<number>): void {
  for (const fd of fds) closeSync(fd);
}
