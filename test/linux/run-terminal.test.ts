import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { makeBundle } from '../support/bundle.js';
import { outcome, TSVMM, tsvmm, waitFor } from '../support/tsvmm.js';

/** The command on a terminal of 30 rows and 100 columns. */
function onTerminal(...args: string[]): ChildProcess {
  const pty = join(packageRoot(), 'test/support/on-terminal.py');
  return spawn('python3', [pty, '30', '100', process.execPath, TSVMM, ...args], { stdio: 'pipe' });
}

// Each boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

t.test('a process with a terminal, on a terminal', async (t) => {
  const bundle = makeBundle(
    t,
    `
    tty
    echo size: $(stty size)
    echo err >&2
    while [ "$(stty size)" != "50 132" ]; do usleep 20000; done
    trap 'echo interrupted' INT
    echo resized; sleep 1000
    read -r line; echo "line: $line"
    read -r line; echo "line: $line"; exit 9
    `,
    (spec) => {
      spec.process.terminal = true;
      spec.process.consoleSize = { height: 1, width: 1 };
    },
  );
  const child = onTerminal('run', bundle);
  const ended = outcome(child);
  const [shown, resized, interrupted, entered] = ['err', 'resized', 'interrupted', 'line: h'].map((word) =>
    waitFor(child.stdout, word),
  );
  await shown;
  child.stdin?.write('\0resize 50 132\n');
  await resized;
  child.stdin?.write('\u0003');
  await interrupted;
  child.stdin?.write('hällo\r');
  await entered;
  child.stdin?.end('quit\r');
  const { status, stdout, stderr } = await ended;
  t.equal(status, 9);
  t.match(stdout, /^\/dev\/(pts\/0|console)\r\nsize: 30 100\r\nerr\r\n/);
  t.match(stdout, /quit\r\nline: quit\r\n$/, 'the terminal in the guest echoes, once');
  t.equal(stderr, 'terminal: as before\n');
});

t.test('the terminal is put back when the machine fails or is ended', async (t) => {
  const bundle = makeBundle(t, 'trap "exit 3" HUP; echo ready; while :; do sleep 0.1; done', (spec) => {
    spec.process.terminal = true;
  });
  const failing = makeBundle(t, '', (spec) => {
    spec.process.terminal = true;
    spec.process.args = ['/none'];
  });
  const failed = await outcome(onTerminal('run', failing));
  t.equal(failed.status, 125);
  t.match(failed.stdout, /tsvmm: .*\/none/);
  t.equal(failed.stderr, 'terminal: as before\n');
  const child = onTerminal('run', bundle);
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  child.kill('SIGKILL'); // the terminal is gone, and the kernel tells its processes
  await ended;
  while (runsWith(bundle)) await setTimeout(100);
  t.pass('the command has ended with its terminal');
});

/** Whether a process has `word` on its command line. */
function runsWith(word: string): boolean {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .some((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(word);
      } catch {
        return false; // it has ended meanwhile
      }
    });
}

t.test('a process with a terminal, without one here', async (t) => {
  const bundle = makeBundle(
    t,
    'tty; stty size; stty -echo; echo go; read -r line; echo "line: $line"; exit 4',
    (spec) => {
      spec.process.terminal = true;
      spec.process.consoleSize = { height: 24, width: 70 };
    },
  );
  const { status, stdout, stderr } = await tsvmm(['run', bundle], 'typed\n');
  t.same({ status, stderr }, { status: 4, stderr: '' });
  t.match(stdout, /24 70\r\n/);
  t.match(stdout, /line: typed\r\n/);
});
