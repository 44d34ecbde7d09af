import {
  field,
  type GuestProcess,
  type GuestStats,
  printable,
  ResultError,
  readPid,
  readProcesses,
  readStats,
} from './agent-results.js';
import { describe } from './errors.js';
import { stringifyExactJson } from './spec/exact-json.js';

/** The longest message in either direction, in bytes (docs/agent-protocol.md). */
export const MAX_LINE = 4 << 20;
export const CONTROL_PORT = 1024;
const PROTOCOL = 2;

/** What carries the lines: a vsock channel, or a test's stand-in. */
export interface LineChannel {
  send(line: string): void;
  close(): void;
}

export interface Ready {
  readonly agent: string;
  readonly kernel: string;
  /** CLOCK_BOOTTIME when the agent began. */
  readonly bootNs: number;
}

export interface ContainerExit {
  readonly id: string;
  /** 0 to 255. */
  readonly status: number;
  readonly oomKilled: boolean;
}

export interface ExecExit {
  readonly id: string;
  readonly exec: string;
  /** 0 to 255. */
  readonly status: number;
}

/** What the agent says of itself. */
export interface AgentListener {
  onReady?(ready: Ready): void;
  /** A container's process has ended, all its output has been sent, and nothing is left of its execs. */
  onContainerExit?(exit: ContainerExit): void;
  /** A process of exec has ended, and all its output has been sent. */
  onExecExit?(exit: ExecExit): void;
  /** The kernel has killed a process of the container for want of memory. */
  onOom?(id: string): void;
  onLog?(level: 'debug' | 'warn' | 'error', message: string): void;
  /** The agent broke the protocol, or the connection has ended; nothing comes after this. Requests have been rejected. */
  onEnd(reason: string): void;
}

/** Host ports that the agent connects to for a process: of the standard streams, or of its terminal. One that is absent is /dev/null. */
export interface StreamPorts {
  readonly stdin?: number | undefined;
  readonly stdout?: number | undefined;
  readonly stderr?: number | undefined;
  readonly terminal?: number | undefined;
}

/** A descriptor beside the standard streams: the host's port behind it, and what the process can do with it. */
export interface PreservedPort {
  readonly port: number;
  readonly access: 'read' | 'write' | 'both';
}

/** Of `run` and `create`. */
export interface RunParams {
  readonly id: string;
  readonly config: unknown;
  readonly rootfs:
    | { readonly type: 'virtiofs'; readonly tag: string }
    | { readonly type: 'disk'; readonly device: string; readonly readonly: boolean };
  /** The share that has the sources of the configuration's bind mounts. */
  readonly mounts?: { readonly tag: string };
  readonly streams: StreamPorts;
  /** What the process gets as its descriptors 3, 4, ...; at most 64. */
  readonly preserved?: readonly PreservedPort[];
}

export interface ExecParams {
  /** The container's. */
  readonly id: string;
  /** The exec's own name, which no other of the container has at that time; of the characters of an ID. */
  readonly exec: string;
  /** An OCI process. */
  readonly process: unknown;
  readonly streams: StreamPorts;
  readonly preserved?: readonly PreservedPort[];
  /** A group below the container's, from there: absolute, without `..`. */
  readonly cgroup?: string;
}

/** Which process of a container is meant: one of exec, or (without) its own. */
export interface Target {
  readonly exec?: string;
}

/** A request that has no good answer; its message is for people. */
export class AgentError extends Error {
  override readonly name: string = 'AgentError';
}

/** The agent, or the runtime in the guest, has refused what was asked: the guest itself is well. */
export class RefusedError extends AgentError {
  override readonly name = 'RefusedError';
}

interface Pending {
  readonly method: string;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout | undefined;
}

/**
 * The host's side of the control connection: JSON-RPC 2.0, one message a line. The agent is guest code: whatever it
 * sends is checked, and what is not as the protocol says ends the connection with a reason.
 */
export class AgentClient {
  readonly #channel: LineChannel;
  readonly #listener: AgentListener;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #ready = false;
  #ended: string | undefined;

  constructor(channel: LineChannel, listener: AgentListener) {
    this.#channel = channel;
    this.#listener = listener;
  }

  /** Starts a container. `digits`: how large numbers of its configuration were written (spec/exact-json.ts). */
  async run(params: RunParams, digits: ReadonlyMap<number, string> = new Map()): Promise<{ pid: number }> {
    return this.#ask('container.run', params, readPid, digits);
  }

  /** Makes a container whose process waits for `start`. Signals, execs and a new size of its terminal reach it already. */
  async create(params: RunParams, digits: ReadonlyMap<number, string> = new Map()): Promise<{ pid: number }> {
    return this.#ask('container.create', params, readPid, digits);
  }

  /** Lets the process of a created container run. */
  async start(id: string): Promise<void> {
    await this.#request('container.start', { id });
  }

  /** Starts another process in a container. */
  async exec(params: ExecParams, digits: ReadonlyMap<number, string> = new Map()): Promise<{ pid: number }> {
    return this.#ask('container.exec', params, readPid, digits);
  }

  /** `all`: every process of the container. */
  async kill(id: string, signal: number, target: Target & { readonly all?: boolean } = {}): Promise<void> {
    await this.#request('container.kill', { id, signal, ...target });
  }

  async resize(id: string, rows: number, columns: number, target: Target = {}): Promise<void> {
    await this.#request('container.resize', { id, rows, columns, ...target });
  }

  async processes(id: string): Promise<GuestProcess[]> {
    return this.#ask('container.processes', { id }, readProcesses);
  }

  async stats(id: string): Promise<GuestStats> {
    return this.#ask('container.stats', { id }, readStats);
  }

  /** `resources`: as config.json's linux.resources. */
  async update(id: string, resources: unknown, digits?: ReadonlyMap<number, string>): Promise<void> {
    await this.#request('container.update', { id, resources }, { digits });
  }

  /** Resolves when nothing of the container runs any more. */
  async pause(id: string): Promise<void> {
    await this.#request('container.pause', { id });
  }

  async resume(id: string): Promise<void> {
    await this.#request('container.resume', { id });
  }

  /** Gives the guest's interfaces names and addresses, and the guest its routes (docs/agent-protocol.md). */
  async networkSet(params: object): Promise<void> {
    await this.#request('network.set', params);
  }

  async setTime(realtimeNs: bigint): Promise<void> {
    await this.#request('machine.time', { realtimeNs: realtimeNs.toString() });
  }

  /** Ends what runs and writes everything back; the machine can be stopped once this has resolved. */
  async shutdown(timeoutMs: number): Promise<void> {
    await this.#request('machine.shutdown', {}, { timeoutMs });
  }

  /** A line from the agent: the channel's onLine. */
  readonly onLine = (line: string): void => {
    if (this.#ended !== undefined) return;
    const problem = this.#receive(line);
    if (problem !== undefined) this.#broken(problem);
  };

  /** The connection has ended: the channel's onEnd. */
  readonly onEnd = (reason?: string): void => {
    this.#end(`the connection to the agent has ended${reason === undefined ? '' : `: ${reason}`}`);
  };

  close(): void {
    this.#end('closed');
  }

  /** A request whose answer is read by `read`; one that is not as the protocol says ends the connection. */
  async #ask<T>(
    method: string,
    params: object,
    read: (result: unknown) => T,
    digits?: ReadonlyMap<number, string>,
  ): Promise<T> {
    const result = await this.#request(method, params, { digits });
    try {
      return read(result);
    } catch (error) {
      if (error instanceof ResultError) throw this.#broken(`${method}: ${error.message}`);
      throw error;
    }
  }

  #request(
    method: string,
    params: object,
    options: { timeoutMs?: number; digits?: ReadonlyMap<number, string> | undefined } = {},
  ): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(new AgentError(`${method}: ${this.#ended}`));
    const id = this.#nextId++;
    let line: string;
    try {
      line = stringifyExactJson({ jsonrpc: '2.0', id, method, params }, options.digits ?? new Map());
    } catch (error) {
      // JSON.stringify is recursive; a file nested that deeply is nobody's honest configuration.
      if (error instanceof RangeError) return Promise.reject(new AgentError(`${method}: nested too deeply`));
      throw error;
    }
    if (Buffer.byteLength(line) > MAX_LINE) {
      return Promise.reject(new AgentError(`${method}: the message is larger than ${MAX_LINE} bytes`));
    }
    return new Promise((resolve, reject) => {
      const { timeoutMs } = options;
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              this.#pending.delete(id);
              reject(new AgentError(`${method}: no answer within ${timeoutMs / 1000} seconds`));
            }, timeoutMs);
      this.#pending.set(id, { method, resolve, reject, timer });
      this.#channel.send(line);
    });
  }

  /** Handles one line; returns what is wrong with it. */
  #receive(line: string): string | undefined {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      return `sent what is not JSON: ${describe(line)}`;
    }
    if (typeof message !== 'object' || message === null || Array.isArray(message)) {
      return `sent ${describe(message)} instead of a message`;
    }
    if (field(message, 'jsonrpc') !== '2.0') return 'sent a message that is not JSON-RPC 2.0';
    const method = field(message, 'method');
    if (method === undefined) return this.#response(message);
    if (typeof method !== 'string') return `method: expected a string, got ${describe(method)}`;
    if (field(message, 'id') !== undefined) {
      // The agent has no requests to make; a later one may, and is told so.
      this.#channel.send(
        JSON.stringify({
          jsonrpc: '2.0',
          id: null,
          error: { code: -32601, message: 'the host has no methods' },
        }),
      );
      return undefined;
    }
    return this.#notification(method, field(message, 'params'));
  }

  #response(message: object): string | undefined {
    const id = field(message, 'id');
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (typeof id !== 'number' || pending === undefined) {
      return `answered a request that was not made (id ${describe(id)})`;
    }
    const error = field(message, 'error');
    const result = field(message, 'result');
    if ((error === undefined) === (result === undefined)) {
      return `${pending.method}: answered with neither or both of result and error`;
    }
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error === undefined) {
      pending.resolve(result);
      return undefined;
    }
    const text = field(error, 'message');
    pending.reject(new RefusedError(typeof text === 'string' ? printable(text) : `${pending.method} failed`));
    return undefined;
  }

  #notification(method: string, params: unknown): string | undefined {
    if (method === 'ready') return this.#onReady(params);
    if (!this.#ready) return `sent ${describe(method)} before it was ready`;
    switch (method) {
      case 'container.exit': {
        const exit = readExit(params);
        if (typeof exit === 'string') return `container.exit: ${exit}`;
        this.#listener.onContainerExit?.({ ...exit, oomKilled: field(params, 'oomKilled') === true });
        return undefined;
      }
      case 'container.execExit': {
        const exit = readExit(params);
        if (typeof exit === 'string') return `container.execExit: ${exit}`;
        const exec = field(params, 'exec');
        if (typeof exec !== 'string')
          return `container.execExit: exec: expected a string, got ${describe(exec)}`;
        this.#listener.onExecExit?.({ ...exit, exec });
        return undefined;
      }
      case 'container.oom': {
        const id = field(params, 'id');
        if (typeof id !== 'string') return `container.oom: id: expected a string, got ${describe(id)}`;
        this.#listener.onOom?.(id);
        return undefined;
      }
      case 'log': {
        const level = field(params, 'level');
        const message = field(params, 'message');
        if (level !== 'debug' && level !== 'warn' && level !== 'error') {
          return `log: level: expected "debug", "warn" or "error", got ${describe(level)}`;
        }
        if (typeof message !== 'string') return `log: message: expected a string, got ${describe(message)}`;
        this.#listener.onLog?.(level, printable(message));
        return undefined;
      }
      default:
        // A newer agent may tell more than this host listens for.
        return undefined;
    }
  }

  #onReady(params: unknown): string | undefined {
    if (this.#ready) return 'said twice that it is ready';
    const protocol = field(params, 'protocol');
    if (protocol !== PROTOCOL) {
      return `speaks protocol ${describe(protocol)}, not ${PROTOCOL}: the initramfs belongs to another version of tsvmm`;
    }
    const agent = field(params, 'agent');
    const kernel = field(params, 'kernel');
    const bootNs = field(params, 'bootNs');
    if (typeof agent !== 'string') return `ready: agent: expected a string, got ${describe(agent)}`;
    if (typeof kernel !== 'string') return `ready: kernel: expected a string, got ${describe(kernel)}`;
    if (typeof bootNs !== 'number' || !(bootNs >= 0)) {
      return `ready: bootNs: expected a number, got ${describe(bootNs)}`;
    }
    this.#ready = true;
    this.#listener.onReady?.({ agent: printable(agent), kernel: printable(kernel), bootNs });
    return undefined;
  }

  #broken(problem: string): AgentError {
    const reason = `the agent ${problem}`;
    this.#end(reason);
    return new AgentError(reason);
  }

  #end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#channel.close();
    for (const { method, reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new AgentError(`${method}: ${reason}`));
    }
    this.#pending.clear();
    this.#listener.onEnd(reason);
  }
}

/** The members that both kinds of exit have, or what is wrong with them. */
function readExit(params: unknown): { id: string; status: number } | string {
  const id = field(params, 'id');
  const status = field(params, 'status');
  if (typeof id !== 'string') return `id: expected a string, got ${describe(id)}`;
  if (typeof status !== 'number' || !Number.isInteger(status) || status < 0 || status > 255) {
    return `status: expected a whole number from 0 to 255, got ${describe(status)}`;
  }
  return { id, status };
}
