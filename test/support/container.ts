import { type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { temporaryFolder } from './bundle.js';
import { type Outcome, outcome } from './tsvmm.js';

/** The commands on containers of a state folder of its own, which the test's end empties. */
export class Containers {
  readonly root: string;
  readonly #ids = new Set<string>();

  constructor(t: Test) {
    this.root = join(temporaryFolder(t), 'state');
    t.teardown(async () => {
      for (const id of this.#ids) await this.run('delete', '--force', id);
    });
  }

  run(...args: readonly string[]): Promise<Outcome> {
    // By the native program, which is what stands on a user's path.
    const options: SpawnOptions = { stdio: ['ignore', 'pipe', 'pipe'] };
    return outcome(spawn(join(packageRoot(), 'dist/tsvmm'), ['--root', this.root, ...args], options));
  }

  /** Creates a container, its output in the outcome's promise. */
  async create(id: string, bundle: string, ...options: readonly string[]): Promise<Outcome> {
    this.#ids.add(id);
    return this.run('create', '--bundle', bundle, ...options, id);
  }

  /** As `state` has it. */
  async status(id: string): Promise<string> {
    const { stdout, stderr } = await this.run('state', id);
    if (stdout === '') return stderr;
    const { status } = JSON.parse(stdout) as { status: string };
    return status;
  }

  /** Names of what is left in the state folder. */
  left(): string[] {
    return existsSync(this.root) ? readdirSync(this.root).filter((name) => name !== 'lock') : [];
  }
}

/** Resolves when there is no such process any more, or only its exit status. */
export async function ended(pid: number): Promise<void> {
  while (alive(pid)) await new Promise((resolve) => setTimeout(resolve, 20));
}

export function alive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}
