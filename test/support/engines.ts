import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import type { Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { temporaryFolder } from './bundle.js';
import { makeBusyboxRoot } from './busybox-root.js';
import { type Outcome, outcome, sha256, waitFor } from './tsvmm.js';

/**
 * What the engines start containers with. TSVMM_TEST_RUNTIME names another runtime (crun, runc): a test that fails with
 * that one too is wrong.
 */
export const RUNTIME = process.env.TSVMM_TEST_RUNTIME ?? join(packageRoot(), 'dist/tsvmm');
/** Whether it is tsvmm: only then what is particular to a machine is asserted. */
export const IS_TSVMM = process.env.TSVMM_TEST_RUNTIME === undefined;

/** Folders in which engines and runtimes keep their state; each test file has its own. */
const STATE = ['/var/lib/containers', '/var/lib/containerd', '/var/lib/docker', '/etc/containers', '/run'];

/**
 * A network, a mount and a process namespace for the engines, so that nothing of theirs meets what the host has, and
 * all of it ends with the test. Its first process ends when this process does.
 */
const PLACE = `
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
ip link set lo up
for folder in "$@"; do mkdir -p "$folder"; mount -t tmpfs -o mode=755 none "$folder"; done
mkdir /run/lock /run/tsvmm
echo "$pid"
exec catatonit -- cat
`;

export interface RunOptions {
  readonly input?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export class Engines {
  private constructor(
    private readonly pid: number,
    /** A folder of the test's. */
    readonly folder: string,
  ) {}

  static async open(t: Test): Promise<Engines> {
    const folder = temporaryFolder(t);
    const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child'];
    const holder = spawn('unshare', [...namespaces, 'sh', '-c', PLACE, 'engines', ...STATE], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    t.teardown(async () => {
      holder.stdin?.end();
      if (holder.exitCode === null) await new Promise((resolve) => holder.on('exit', resolve));
    });
    const pid = await new Promise<number>((resolve, reject) => {
      createInterface({ input: holder.stdout }).on('line', (line) => resolve(Number(line)));
      holder.on('exit', () => reject(new Error('the namespaces of the engines cannot be made')));
    });
    return new Engines(pid, folder);
  }

  #enter(command: readonly string[]): string[] {
    return ['nsenter', '-t', String(this.pid), '-n', '-m', '-p', '--', ...command];
  }

  start(command: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const [program = '', ...args] = this.#enter(command);
    return spawn(program, args, { stdio: 'pipe', ...options });
  }

  /** Starts a command on a terminal of 30 rows and 100 columns; see on-terminal.py. */
  onTerminal(command: readonly string[]): ChildProcess {
    const pty = join(packageRoot(), 'test/support/on-terminal.py');
    return spawn('python3', [pty, '30', '100', ...this.#enter(command)], { stdio: 'pipe' });
  }

  /** What an engine makes of a terminal: its size is known, and a line that is typed is read. `command` runs a script with it. */
  async talkOnTerminal(t: Test, command: (script: string) => readonly string[]): Promise<void> {
    const script =
      'until [ "$(stty size)" = "30 100" ]; do usleep 300000; done; echo sized; read -r line; echo "line: $line"; exit 3';
    const child = this.onTerminal(command(script));
    const ended = outcome(child);
    const answered = waitFor(child.stdout, 'line: hello');
    await waitFor(child.stdout, 'sized');
    child.stdin?.write('hello\r');
    await answered;
    child.stdin?.end();
    t.equal((await ended).status, 3);
  }

  async run(command: readonly string[], { input = '', env = {} }: RunOptions = {}): Promise<Outcome> {
    const child = this.start(command, { env: { ...process.env, ...env } });
    child.stdin?.on('error', () => {}); // the command may end without reading it all
    child.stdin?.end(input);
    return outcome(child);
  }

  /** Runs a command that has to succeed; returns its standard output without the last newline. */
  async ok(command: readonly string[], options?: RunOptions): Promise<string> {
    const { status, stdout, stderr } = await this.run(command, options);
    if (status !== 0) {
      throw new Error(`${command.join(' ')}: status ${status}\n${stdout}\n${stderr}`);
    }
    return stdout.replace(/\n$/, '');
  }

  /** Waits until a command succeeds and its output has the word. */
  async until(command: readonly string[], word: string): Promise<void> {
    for (let tries = 0; ; tries++) {
      const { status, stdout, stderr } = await this.run(command);
      if (status === 0 && stdout.includes(word)) return;
      if (tries === 150) {
        throw new Error(`${command.join(' ')}: no ${word}: status ${status}\n${stdout}\n${stderr}`);
      }
      await setTimeout(100);
    }
  }

  /** Writes a file of the engines' own configuration. */
  async write(path: string, text: string): Promise<void> {
    await this.ok(['sh', '-c', 'cat >"$1"', 'write', path], { input: text });
  }

  /** Starts a daemon, and waits until `probe` succeeds. What it says is shown when it does not come up. */
  async daemon(t: Test, command: readonly string[], probe: readonly string[]): Promise<void> {
    const log = join(this.folder, 'daemon.log');
    const child = this.start(['sh', '-c', 'exec "$@" >"$0" 2>&1', log, ...command], { stdio: 'ignore' });
    t.teardown(() => {
      if (!t.passing()) t.comment(readFileSync(log, 'utf8').split('\n').slice(-60).join('\n'));
    });
    while ((await this.run(probe)).status !== 0) {
      if (child.exitCode !== null) throw new Error(readFileSync(log, 'utf8'));
      await setTimeout(100);
    }
  }

  /** What is there of a runtime's: processes besides `known`, links, mounts, state, as words. */
  async leftovers(known: RegExp): Promise<string[]> {
    const processes = (await this.ok(['busybox', 'ps', '-o', 'pid,args']))
      .split('\n')
      .slice(1)
      .filter((line) => !known.test(line) && !/catatonit -- cat|^\s*\d+ cat$|busybox ps|nsenter/.test(line));
    const links = (await this.ok(['ip', '-o', 'link']))
      .split('\n')
      .filter((line) => /: (tap|tsvmm|veth)/.test(line));
    const mounts = (await this.ok(['cat', '/proc/mounts']))
      .split('\n')
      .filter((line) => /tsvmm|merged/.test(line));
    const state = (await this.ok(['find', '/run/tsvmm', '-mindepth', '1'])).split('\n');
    return [
      ...processes,
      ...links,
      ...mounts,
      ...state.filter((path) => path !== '' && !/\/(lock|@logs)(\/|$)/.test(path)),
    ];
  }
}

/** A root file system with busybox and two users, as a tar archive. */
export function makeRootArchive(folder: string): string {
  const root = join(folder, 'root');
  makeBusyboxRoot(root, ['tmp', 'root', 'home/user', 'www']);
  writeFileSync(join(root, 'www/index.html'), 'served from inside\n');
  const archive = join(folder, 'root.tar');
  execFileSync('tar', ['-C', root, '--owner=0', '--group=0', '-cf', archive, '.']);
  return archive;
}

/** An image of the OCI layout, as a tar archive, with a root archive as its only layer. */
export function makeImageArchive(folder: string, rootArchive: string, name: string): string {
  const layout = join(folder, 'layout');
  const blobs = join(layout, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const blob = (bytes: Buffer | string): { digest: string; size: number } => {
    const digest = sha256(bytes);
    writeFileSync(join(blobs, digest), bytes);
    return { digest: `sha256:${digest}`, size: Buffer.byteLength(bytes) };
  };
  const layer = blob(readFileSync(rootArchive));
  const config = blob(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { Env: ['PATH=/bin'], Cmd: ['sh'] },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
  );
  const vendor = 'application/vnd.oci.image';
  const manifest = blob(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${vendor}.manifest.v1+json`,
      config: { mediaType: `${vendor}.config.v1+json`, ...config },
      layers: [{ mediaType: `${vendor}.layer.v1.tar`, ...layer }],
    }),
  );
  writeFileSync(
    join(layout, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: `${vendor}.manifest.v1+json`,
          ...manifest,
          annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name },
        },
      ],
    }),
  );
  writeFileSync(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const archive = join(folder, 'image.tar');
  execFileSync('tar', ['-C', layout, '-cf', archive, '.']);
  return archive;
}
