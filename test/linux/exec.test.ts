import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import t from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { alive, Containers, ended } from '../support/container.js';
import { outcome, start, TSVMM, tsvmm, waitFor } from '../support/tsvmm.js';

const MIB = 1 << 20;

// Boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

/** PIDs of the programs that stand for processes of a container of this state folder. */
function standIns(root: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`tsvmm-exec\0${root}`) && alive(pid);
      } catch {
        return false;
      }
    });
}

t.test('processes beside the first', async (t) => {
  const containers = new Containers(t);
  const folder = temporaryFolder(t);
  const bundle = makeBundle(t, 'while :; do sleep 1; done');
  const { root } = containers;
  const exec = (...args: string[]) => containers.run('exec', ...args);
  t.same(await containers.run('run', '--detach', '--bundle', bundle, 'c'), {
    status: 0,
    stdout: '',
    stderr: '',
  });
  t.teardown(() => containers.run('delete', '--force', 'c'));

  await t.test('a gibibyte through one, there and back, changed nowhere', async (t) => {
    const block = Buffer.alloc(MIB);
    for (let i = 0; i < block.length; i += 4) block.writeUInt32LE((i * 2654435761) >>> 0, i);
    const total = 1024;
    const child = start(['--root', root, 'exec', 'c', 'cat']);
    Readable.from(
      (function* () {
        for (let i = 0; i < total; i++) yield block;
      })(),
    ).pipe(child.stdin ?? new PassThrough());
    let position = 0;
    let same = true;
    child.stdout?.on('data', (data: Buffer) => {
      for (let done = 0; done < data.length; ) {
        const at = position % MIB;
        const length = Math.min(MIB - at, data.length - done);
        same &&= block.compare(data, done, done + length, at, at + length) === 0;
        position += length;
        done += length;
      }
    });
    const status = await new Promise((resolve) => child.on('close', resolve));
    t.same([status, position, same], [0, total * MIB, true]);
  });

  await t.test('signals reach the process; killed, it takes the process with it', async (t) => {
    const child = start([
      '--root',
      root,
      'exec',
      'c',
      'sh',
      '-c',
      'trap "echo got; exit 3" USR1; echo up; while :; do sleep 0.1; done',
    ]);
    const end = outcome(child);
    await waitFor(child.stdout, 'up');
    child.kill('SIGUSR1');
    t.match(await end, { status: 3, stdout: 'up\ngot\n' });
    const doomed = start(['--root', root, 'exec', 'c', 'sh', '-c', 'echo up; exec sleep 4321']);
    const gone = outcome(doomed);
    await waitFor(doomed.stdout, 'up');
    doomed.kill('SIGKILL');
    t.equal((await gone).status, -1);
    while ((await exec('c', 'ps', '-o', 'args')).stdout.includes('sleep 4321'));
    t.pass('it has gone in the container too');
  });

  await t.test('on a terminal of its own', async (t) => {
    const pty = join(packageRoot(), 'test/support/on-terminal.py');
    const child = spawn(
      'python3',
      [
        pty,
        '30',
        '100',
        process.execPath,
        TSVMM,
        '--root',
        root,
        'exec',
        '--tty',
        'c',
        'sh',
        '-c',
        'test -t 0 && stty size; trap "echo interrupted" INT; echo up; while [ "$(stty size)" != "50 132" ]; do sleep 0.1; done; echo resized; read -r x; echo "<$x>"; exit 6',
      ],
      { stdio: 'pipe' },
    );
    const end = outcome(child);
    const [up, interrupted, resized] = ['up', 'interrupted', 'resized'].map((word) =>
      waitFor(child.stdout, word),
    );
    await up;
    child.stdin?.write('\u0003');
    await interrupted;
    child.stdin?.write('\0resize 50 132\n');
    await resized;
    child.stdin?.end('typed\r');
    const { status, stdout, stderr } = await end;
    t.equal(status, 6);
    t.match(stdout, /30 100\r\nup\r\n/);
    t.match(stdout, /typed\r\n<typed>\r\n$/);
    t.equal(stderr, 'terminal: as before\n');
  });

  await t.test('detached, with a console that is handed over', async (t) => {
    const socket = join(folder, 'console.sock');
    const pidFile = join(folder, 'pid');
    const console = spawn('python3', [
      join(packageRoot(), 'test/support/console-socket.py'),
      socket,
      '40',
      '90',
    ]);
    const end = outcome(console);
    await waitFor(console.stderr, 'listening');
    const [up, typed] = ['up', '<typed>'].map((word) => waitFor(console.stdout, word));
    const { status, stderr } = await exec(
      ...['--detach', '--tty', '--console-socket', socket, '--pid-file', pidFile, 'c', 'sh', '-c'],
      'while [ "$(stty size)" != "40 90" ]; do sleep 0.1; done; tty; echo up; read -r x; echo "<$x>"; sleep 0.5; read -r x; exit 4',
    );
    t.same({ status, stderr }, { status: 0, stderr: '' });
    const pid = Number(readFileSync(pidFile, 'utf8'));
    await up;
    t.ok(alive(pid), 'the pid file names the process on the host');
    t.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^VmRSS:\s+(\d{1,3}|1\d{3}) kB$/m, 'which is small');
    console.stdin.write('typed\r');
    await typed;
    console.stdin.write('\r');
    await ended(pid);
    t.match((await end).stdout, /\/dev\/pts\/\d+\r\nup\r\n/);
  });

  await t.test('preserved descriptors; output that outlives nobody', async (t) => {
    const path = join(folder, 'preserved');
    const file = openSync(path, 'w');
    const words = join(folder, 'words');
    writeFileSync(words, 'words\n');
    const child = spawn(
      process.execPath,
      [
        TSVMM,
        ...['--root', root, 'exec', '--preserve-fds', '2', 'c', 'sh', '-c'],
        // Each once more by its name, too.
        'echo kept >&3; echo again >/proc/self/fd/3; cat /proc/self/fd/4 >&3',
      ],
      {
        stdio: ['ignore', 'pipe', 'pipe', file, openSync(words, 'r')],
      },
    );
    t.same(await outcome(child), { status: 0, stdout: '', stderr: '' });
    t.equal(readFileSync(path, 'utf8'), 'kept\nagain\nwords\n');
    const pidFile = join(folder, 'closes.pid');
    // On pipes, whose end of file is what is waited for.
    const command = 'echo last; exec >&- 2>&-; exec sleep 4321';
    const detached = await tsvmm(
      ['--root', root, 'exec', '--detach', '--pid-file', pidFile, 'c', 'sh', '-c', command],
      '',
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    t.same(detached, { status: 0, stdout: 'last\n', stderr: '' }, 'its end is seen though the process runs');
    const pid = Number(readFileSync(pidFile, 'utf8'));
    t.ok(alive(pid));
    process.kill(pid, 'SIGTERM');
    await ended(pid);
  });

  await t.test('twenty at once', async (t) => {
    const children: ChildProcess[] = Array.from({ length: 20 }, (_, i) =>
      start(['--root', root, 'exec', 'c', 'sh', '-c', `cat; echo ${i}; exit ${i}`]),
    );
    const ends = children.map(outcome);
    for (const [i, child] of children.entries()) child.stdin?.end(`in ${i}\n`);
    for (const [i, { status, stdout, stderr }] of (await Promise.all(ends)).entries()) {
      t.same([status, stdout, stderr], [i, `in ${i}\n${i}\n`, '']);
    }
    t.same(standIns(root), []);
  });

  await t.test('a sandbox that is killed', async (t) => {
    const child = start(['--root', root, 'exec', 'c', 'sh', '-c', 'echo up; sleep 1000']);
    const end = outcome(child);
    await waitFor(child.stdout, 'up');
    const { pid } = JSON.parse((await containers.run('state', 'c')).stdout) as { pid: number };
    process.kill(pid, 'SIGKILL');
    t.same(await end, { status: 255, stdout: 'up\n', stderr: "tsvmm: the container's sandbox has gone\n" });
    t.same(standIns(root), []);
    t.match(await exec('c', 'true'), { status: 255, stderr: /cannot exec in a stopped container/ });
    t.equal((await containers.run('delete', 'c')).status, 0);
    t.notOk(existsSync(join(root, 'c')));
    t.same(containers.left(), []);
  });
});
