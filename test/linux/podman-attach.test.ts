import t from 'tap';
import { Engines } from '../support/engines.js';
import { openPodman } from '../support/podman.js';
import { outcome, waitFor } from '../support/tsvmm.js';

// Each container boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const engines = await Engines.open(t);
const { ok } = await openPodman(engines);

t.test('a terminal: its size, detaching, attaching again', async (t) => {
  const script = `
    echo "on $(tty | cut -c 1-5) $(stty size)"
    while [ "$(stty size)" != "50 132" ]; do usleep 300000; done
    echo resized; read -r line; echo "line: $line"; exit 5`;
  const run = [
    'run',
    '-it',
    '--detach-keys=ctrl-q',
    '--name',
    'shell',
    '--network',
    'none',
    'box',
    'sh',
    '-c',
    script,
  ];
  const first = engines.onTerminal(['podman', ...run]);
  const [shown, resized] = ['30 100', 'resized'].map((word) => waitFor(first.stdout, word));
  const left = outcome(first);
  t.match(await shown, /on \/dev\//);
  first.stdin?.write('\0resize 50 132\n');
  await resized;
  first.stdin?.write('\u0011'); // ctrl-q
  const detached = await left;
  t.equal(detached.status, 0);
  t.match(detached.stderr, /terminal: as before\n$/);
  t.equal(await ok(['inspect', '--format', '{{.State.Status}}', 'shell']), 'running');

  const second = engines.onTerminal(['podman', 'attach', 'shell']);
  const ended = outcome(second);
  const answered = waitFor(second.stdout, 'line: hello');
  second.stdin?.write('hello\r');
  await answered;
  second.stdin?.end();
  await ended;
  t.equal(await ok(['wait', 'shell']), '5');
  await ok(['rm', 'shell']);
});

t.test('attaching to pipes, and signals that are passed on', async (t) => {
  const script = `trap 'exit 4' USR1; echo ready; while read -r line; do echo "got $line"; done; sleep 1000 & wait`;
  await ok(['run', '-d', '-i', '--name', 'pipe', '--network', 'none', 'box', 'sh', '-c', script]);
  await engines.until(['podman', 'logs', 'pipe'], 'ready');
  const child = engines.start(['podman', 'attach', 'pipe']);
  const ended = outcome(child);
  const answered = waitFor(child.stdout, 'got one');
  child.stdin?.write('one\n');
  await answered;
  child.stdin?.end();
  await ok(['kill', '--signal', 'USR1', 'pipe']);
  await ended;
  t.equal(await ok(['wait', 'pipe']), '4');
  t.equal(await ok(['logs', 'pipe']), 'ready\ngot one');
  await ok(['rm', 'pipe']);

  const text = 'trap "echo caught; exit 6" TERM; echo up; sleep 1000 & wait';
  const front = ['run', '--rm', '--name', 'front', '--network', 'none', 'box', 'sh', '-c', text];
  // The shell tells its process id, since nsenter passes no signals on.
  const run = engines.start(['sh', '-c', 'echo "pid $$"; exec podman "$@"', 'sh', ...front]);
  const done = outcome(run);
  const seen = await waitFor(run.stdout, 'up\n');
  await engines.ok(['kill', '-TERM', /pid (\d+)/.exec(seen)?.[1] ?? '']);
  const { status, stdout } = await done;
  t.equal(status, 6);
  t.match(stdout, /caught\n$/);
});

t.test('nothing is left behind', async (t) => {
  t.same(await engines.leftovers(/podman pause/), []);
});
