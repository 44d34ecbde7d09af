import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { checkId } from '../bundle.js';
import { codeOf, reasonOf, UserError } from '../errors.js';
import { startTimeOf } from './process.js';
import type { ContainerState, StoredState } from './state.js';

/** Names in a container's folder. */
export const STATE_FILE = 'state.json';
export const CONFIG_FILE = 'config.json';
export const CONTROL_SOCKET = 'control.sock';
export const CONSOLE_LOG = 'console.log';
/** Beside the containers' folders: no container can have such an ID. */
const FAILED_LOGS = '@logs';
const MAX_FAILED_LOGS = 20;

/** The folder in which the state of all containers lies (`--root`), one folder each. */
export class ContainerStore {
  constructor(readonly root: string) {}

  folder(id: string): string {
    return `${this.root}/${id}`;
  }

  socketPath(id: string): string {
    return `${this.folder(id)}/${CONTROL_SOCKET}`;
  }

  /** Where the console of the container's machine is written to. */
  logPath(id: string): string {
    return `${this.folder(id)}/${CONSOLE_LOG}`;
  }

  /** Where the console of a machine is kept that failed before its container existed, or that ran one in the foreground. */
  failedLogPath(id: string): string {
    return `${this.root}/${FAILED_LOGS}/${id}.log`;
  }

  /**
   * Makes a container's folder, which claims its ID: of two at once, one gets it. The caller holds the ID's lock.
   * @throws UserError where there is such a container
   */
  claim(id: string): void {
    const path = this.folder(id);
    try {
      mkdirSync(this.root, { recursive: true, mode: 0o711 });
      mkdirSync(path, { mode: 0o711 });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw new UserError(`${path}: ${reasonOf(error)}`);
      const left = this.#find(id);
      // The lock is ours: who has left no state was cut off while it made its container.
      const abandoned = left === undefined || (left.transient && left.status === 'stopped');
      if (!abandoned) throw new UserError(`container with given ID already exists: ${id}`);
      this.remove(id);
      mkdirSync(path, { mode: 0o711 });
    }
  }

  /** The configuration with which the container was made, as text. @throws UserError */
  config(id: string): string {
    return this.#read(id, CONFIG_FILE);
  }

  /** @throws UserError where there is no such container, or its state cannot be read */
  load(id: string): ContainerState {
    checkId(id);
    const state = this.#find(id);
    if (state === undefined) throw new UserError(`container ${JSON.stringify(id)} does not exist`);
    return state;
  }

  /** Whether something is left of a container, a creation that was cut off included. */
  exists(id: string): boolean {
    checkId(id);
    try {
      readdirSync(this.folder(id));
      return true;
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return false;
      throw new UserError(`${this.folder(id)}: ${reasonOf(error)}`);
    }
  }

  /** All containers, by ID. What a killed `run` has left is none. @throws UserError */
  list(): ContainerState[] {
    return this.#all().filter(({ transient, status }) => !transient || status !== 'stopped');
  }

  /**
   * Removes what `run`s that were killed have left. `lock` claims an ID for this process, and throws where another has it.
   */
  sweep(lock: (id: string) => () => void): void {
    for (const { id, transient, status } of this.#all()) {
      if (!transient || status !== 'stopped') continue;
      let unlock: () => void;
      try {
        unlock = lock(id);
      } catch {
        // Its ID is being used again.
        continue;
      }
      this.remove(id);
      unlock();
    }
  }

  /** Removes the container's folder. Idempotent. */
  remove(id: string): void {
    rmSync(this.folder(id), { recursive: true, force: true });
  }

  /** Keeps the console of a machine that failed, those of the last few only. Never throws: the failure itself is to be told. */
  keepFailedLog(id: string, text: string): boolean {
    const folder = `${this.root}/${FAILED_LOGS}`;
    const path = this.failedLogPath(id);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      // Removed first, so that the order of the folder's times is that of the failures.
      rmSync(path, { force: true });
      writeFileSync(path, text, { mode: 0o600 });
      const logs = readdirSync(folder);
      if (logs.length > MAX_FAILED_LOGS) this.#removeOldest(folder, logs);
      return true;
    } catch {
      return false;
    }
  }

  #removeOldest(folder: string, logs: readonly string[]): void {
    const aged = logs.map((name) => ({ name, at: statSync(`${folder}/${name}`).mtimeMs }));
    aged.sort((a, b) => a.at - b.at);
    for (const { name } of aged.slice(0, -MAX_FAILED_LOGS)) rmSync(`${folder}/${name}`, { force: true });
  }

  #all(): ContainerState[] {
    let names: string[];
    try {
      names = readdirSync(this.root);
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw new UserError(`${this.root}: ${reasonOf(error)}`);
    }
    return names
      .filter((name) => /^[\w+.-]+$/.test(name) && name !== 'lock')
      .map((name) => this.#find(name))
      .filter((state): state is ContainerState => state !== undefined);
  }

  #find(id: string): ContainerState | undefined {
    let text: string;
    try {
      text = readFileSync(`${this.folder(id)}/${STATE_FILE}`, 'utf8');
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw new UserError(`${this.folder(id)}/${STATE_FILE}: ${reasonOf(error)}`);
    }
    const stored = parseState(text, `${this.folder(id)}/${STATE_FILE}`);
    const alive = startTimeOf(stored.pid) === stored.startTime;
    return alive ? stored : { ...stored, status: 'stopped' };
  }

  #read(id: string, name: string): string {
    const path = `${this.folder(id)}/${name}`;
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      throw new UserError(`${path}: ${reasonOf(error)}`);
    }
  }
}

/**
 * Writes a state file so that a reader sees the old content or the new, never a part. `folder` may be `.`, for a sandbox whose
 * working folder it is.
 */
export function writeState(folder: string, state: StoredState): void {
  const temporary = `${folder}/.${STATE_FILE}`;
  writeFileSync(temporary, JSON.stringify(state), { mode: 0o600 });
  renameSync(temporary, `${folder}/${STATE_FILE}`);
}

function parseState(text: string, path: string): StoredState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new UserError(`${path}: not JSON`);
  }
  if (!isState(value)) throw new UserError(`${path}: not the state of a container of this version of tsvmm`);
  return value;
}

function isState(value: unknown): value is StoredState {
  if (typeof value !== 'object' || value === null) return false;
  const { version, id, pid, startTime, status } = value as Partial<Record<keyof StoredState, unknown>>;
  return (
    version === 1 &&
    typeof id === 'string' &&
    Number.isSafeInteger(pid) &&
    typeof startTime === 'string' &&
    typeof status === 'string'
  );
}
