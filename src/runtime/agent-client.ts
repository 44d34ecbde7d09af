import { describe } from './errors.js';
import { stringifyExactJson } from './spec/exact-json.js';

/** The longest message in either direction, in bytes (docs/agent-protocol.md). */
export const MAX_LINE = 4 << 20;
export const CONTROL_PORT = 1024;
const PROTOCOL = 1;
/** How much of a text from the guest is ever shown. */
const MAX_TEXT = 2000;

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

/** What the agent says of itself. */
export interface AgentListener {
  onReady?(ready: Ready): void;
  onContainerExit?(exit: ContainerExit): void;
  onLog?(level: 'debug' | 'warn' | 'error', message: string): void;
  /** The agent broke the protocol, or the connection has ended; nothing comes after this. Requests have been rejected. */
  onEnd(reason: string): void;
}

export interface RunParams {
  readonly id: string;
  readonly config: unknown;
  readonly rootfs:
    | { readonly type: 'virtiofs'; readonly tag: string }
    | { readonly type: 'disk'; readonly device: string; readonly readonly: boolean };
  /** The share that has the sources of the configuration's bind mounts. */
  readonly mounts?: { readonly tag: string };
  readonly streams: {
    readonly stdin?: number;
    readonly stdout?: number;
    readonly stderr?: number;
    readonly terminal?: number;
  };
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
    const pid = field(await this.#request('container.run', params, { digits }), 'pid');
    if (!Number.isSafeInteger(pid) || Number(pid) < 1) {
      throw this.#broken(`container.run: pid: expected a process ID, got ${describe(pid)}`);
    }
    return { pid: Number(pid) };
  }

  async kill(id: string, signal: number, all = false): Promise<void> {
    await this.#request('container.kill', all ? { id, signal, all } : { id, signal });
  }

  async resize(id: string, rows: number, columns: number): Promise<void> {
    await this.#request('container.resize', { id, rows, columns });
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

  #request(
    method: string,
    params: object,
    options: { timeoutMs?: number; digits?: ReadonlyMap<number, string> } = {},
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
        const id = field(params, 'id');
        const status = field(params, 'status');
        if (typeof id !== 'string') return `container.exit: id: expected a string, got ${describe(id)}`;
        if (typeof status !== 'number' || !Number.isInteger(status) || status < 0 || status > 255) {
          return `container.exit: status: expected a whole number from 0 to 255, got ${describe(status)}`;
        }
        this.#listener.onContainerExit?.({ id, status, oomKilled: field(params, 'oomKilled') === true });
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

/** An own member of whatever `value` is. */
function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return Reflect.get(value, name);
}

/** A text from the guest, fit for a terminal: bounded, without control characters other than newline and tab. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  const clean = text.slice(0, MAX_TEXT).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
  return text.length > MAX_TEXT ? `${clean}…` : clean;
}
