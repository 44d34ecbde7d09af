import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { temporaryFolder } from './bundle.js';
import type { Outcome } from './tsvmm.js';

/** The commands on containers of a state folder of its own, which the test's end empties. */
export class Containers {
  readonly root: string;
  readonly #ids = new Set<string>();

  readonly #folder: string;
  #runs = 0;

  /** @param env - added to the commands' environment. */
  constructor(
    t: Test,
    private readonly env: Readonly<Record<string, string>> = {},
  ) {
    this.#folder = temporaryFolder(t);
    this.root = join(this.#folder, 'state');
    t.teardown(async () => {
      for (const id of this.#ids) await this.run('delete', '--force', id);
    });
  }

  /** Runs a command by the native program, which is what stands on a user's path. Its streams are files, since a container keeps them open. */
  async run(...args: readonly string[]): Promise<Outcome> {
    const [out, err] = ['out', 'err'].map((name) => join(this.#folder, `${name}${++this.#runs}`)) as [
      string,
      string,
    ];
    const fds = [openSync(out, 'w'), openSync(err, 'w')];
    const child = spawn(join(packageRoot(), 'dist/tsvmm'), ['--root', this.root, ...args], {
      stdio: ['ignore', ...fds],
      env: { ...process.env, ...this.env },
    });
    for (const fd of fds) closeSync(fd);
    const status = await new Promise<number>((resolve) => child.on('exit', (code) => resolve(code ?? -1)));
    return { status, stdout: readFileSync(out, 'utf8'), stderr: readFileSync(err, 'utf8') };
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
