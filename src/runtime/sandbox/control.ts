import { addon } from '../../addon/index.js';
import { describe, messageOf, UserError } from '../errors.js';
import { parseExactJson } from '../spec/exact-json.js';
import type { Process, Resources } from '../spec/types.js';
import { closeAll, type Exec, type ExecRequest } from './execs.js';

/** What a sandbox does for the commands that talk to it; each rejects with an error whose message is for people. */
export interface ControlHandlers {
  start(): Promise<object>;
  kill(signal: number, all: boolean): Promise<object>;
  pause(): Promise<object>;
  resume(): Promise<object>;
  update(resources: Resources, digits: ReadonlyMap<number, string>): Promise<object>;
  processes(): Promise<object>;
  stats(): Promise<object>;
  stop(): Promise<object>;
  exec(request: ExecRequest): Promise<Exec>;
}

/** The messages that a client may send on a connection of its own process. */
type Attached = { readonly exec: Exec | undefined };

const PARSE_ERROR = -32700;
const INVALID_REQUEST = -32600;
const METHOD_NOT_FOUND = -32601;
const INVALID_PARAMS = -32602;
const FAILED = 1;
const SIGKILL = 9;
const MAX_SIGNAL = 64;
const MAX_SIZE = 0xffff;

class ParamsError extends UserError {}

/** A sandbox's control socket: JSON-RPC 2.0, one message a line, of the user whose sandbox it is (docs/control-socket.md). */
export class ControlService {
  readonly #server;
  readonly #attached = new Map<number, Attached>();
  readonly #listeners = new Set<number>();

  /** @throws Error where the socket cannot be made */
  constructor(
    path: string,
    private readonly handlers: ControlHandlers,
  ) {
    const { ControlServer } = addon();
    this.#server = new ControlServer(
      path,
      () => {},
      (connection, line, fds) => void this.#onLine(connection, line, fds),
      (connection) => this.#onEnd(connection),
    );
  }

  /** Tells those who asked for `events`. */
  event(event: object): void {
    for (const connection of this.#listeners) this.#notify(connection, 'event', event);
  }

  close(): void {
    this.#server.stop();
  }

  async #onLine(connection: number, line: string, fds: readonly number[]): Promise<void> {
    let unused = fds;
    let id: unknown = null;
    // To a notification there is no answer.
    let answered = true;
    try {
      const { value, digits } = parse(line);
      id = value.id ?? null;
      answered = value.id !== undefined;
      const { method, params } = value;
      if (method === 'exec') {
        answered = true;
        unused = [];
        await this.#exec(connection, id, params, fds, digits);
        return;
      }
      closeAll(unused);
      unused = [];
      const result = await this.#call(connection, method, params, digits);
      if (answered) this.#server.send(connection, answer(id, result));
    } catch (error) {
      closeAll(unused);
      if (answered) this.#server.send(connection, refusal(id, error));
    }
  }

  #onEnd(connection: number): void {
    this.#listeners.delete(connection);
    const attached = this.#attached.get(connection);
    this.#attached.delete(connection);
    // Who stood for the process on the host has gone, so it has to go as well.
    attached?.exec?.signal(SIGKILL).catch(() => {});
  }

  async #call(
    connection: number,
    method: string,
    params: Params,
    digits: ReadonlyMap<number, string>,
  ): Promise<object> {
    const { handlers } = this;
    switch (method) {
      case 'start':
        return handlers.start();
      case 'kill':
        return handlers.kill(signalOf(params), params.all === true);
      case 'pause':
        return handlers.pause();
      case 'resume':
        return handlers.resume();
      case 'update':
        if (!isResources(params.resources)) throw new ParamsError('resources: expected an object');
        return handlers.update(params.resources, digits);
      case 'processes':
        return handlers.processes();
      case 'stats':
        return handlers.stats();
      case 'stop':
        return handlers.stop();
      case 'events':
        this.#listeners.add(connection);
        return {};
      case 'signal':
        await this.#attached.get(connection)?.exec?.signal(signalOf(params));
        return {};
      case 'resize':
        await this.#attached.get(connection)?.exec?.resize(sizeOf(params.rows), sizeOf(params.columns));
        return {};
      default:
        throw new MethodError(method);
    }
  }

  async #exec(
    connection: number,
    id: unknown,
    params: Params,
    fds: readonly number[],
    digits: ReadonlyMap<number, string>,
  ): Promise<void> {
    const terminal = params.terminal === true;
    const needed = terminal ? 2 : 3;
    const { process } = params;
    if (!isProcess(process) || fds.length < needed) {
      closeAll(fds);
      throw new ParamsError(
        isProcess(process)
          ? `exec: expected at least ${needed} descriptors, got ${fds.length}`
          : `exec: process: expected an object with args, got ${describe(process)}`,
      );
    }
    this.#attached.set(connection, { exec: undefined });
    const exec = await this.handlers.exec({
      process,
      digits,
      fds,
      terminal,
      ignorePaused: params.ignorePaused === true,
      ...(typeof params.cgroup === 'string' ? { cgroup: params.cgroup } : {}),
    });
    if (!this.#attached.has(connection)) {
      await exec.signal(SIGKILL).catch(() => {});
      return;
    }
    this.#attached.set(connection, { exec });
    this.#server.send(connection, answer(id, { pid: exec.pid }));
    const status = await exec.status;
    this.#attached.delete(connection);
    this.#notify(connection, 'exit', { status });
    this.#server.close(connection);
  }

  #notify(connection: number, method: string, params: object): void {
    this.#server.send(connection, JSON.stringify({ jsonrpc: '2.0', method, params }));
  }
}

class MethodError extends UserError {
  constructor(method: string) {
    super(`there is no method ${JSON.stringify(method)}`);
  }
}

type Params = Readonly<Record<string, unknown>>;

interface Message {
  readonly id: unknown;
  readonly method: string;
  readonly params: Params;
}

function parse(line: string): { value: Message; digits: ReadonlyMap<number, string> } {
  const { value, digits } = parseExactJson(line);
  if (!isObject(value) || typeof value.method !== 'string') throw new SyntaxError('not a request');
  const params = isObject(value.params) ? value.params : {};
  return { value: { id: value.id, method: value.method, params }, digits };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isResources(value: unknown): value is Resources {
  return isObject(value);
}

/** The runtime in the guest checks the rest, with messages of its own. */
function isProcess(value: unknown): value is Process {
  return isObject(value) && Array.isArray(value.args) && value.args.length > 0;
}

function signalOf({ signal }: Params): number {
  if (typeof signal !== 'number' || !Number.isInteger(signal) || signal < 0 || signal > MAX_SIGNAL) {
    throw new ParamsError(`signal: expected a number from 0 to ${MAX_SIGNAL}, got ${describe(signal)}`);
  }
  return signal;
}

function sizeOf(value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > MAX_SIZE) {
    throw new ParamsError(`rows and columns: expected numbers from 0 to ${MAX_SIZE}, got ${describe(value)}`);
  }
  return value;
}

function answer(id: unknown, result: object): string {
  return JSON.stringify({ jsonrpc: '2.0', id, result });
}

function refusal(id: unknown, error: unknown): string {
  const code =
    error instanceof SyntaxError
      ? PARSE_ERROR
      : error instanceof MethodError
        ? METHOD_NOT_FOUND
        : error instanceof ParamsError
          ? INVALID_PARAMS
          : error instanceof RangeError
            ? INVALID_REQUEST
            : FAILED;
  return JSON.stringify({ jsonrpc: '2.0', id, error: { code, message: messageOf(error) } });
}
