import { existsSync, readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { outcome, start, tsvmm, waitFor } from '../support/tsvmm.js';

/** Without a PID namespace of its own, so that a signal without a handler does what it always does. */
function notInit(spec: { linux?: { namespaces?: { type: string }[] } }): void {
  const namespaces = spec.linux?.namespaces;
  namespaces?.splice(
    namespaces.findIndex(({ type }) => type === 'pid'),
    1,
  );
}

t.test('signals reach the process', async (t) => {
  const bundle = makeBundle(
    t,
    `
    for s in HUP INT QUIT USR1 USR2 ALRM; do trap "echo got $s" $s; done
    trap 'echo got TERM; exit 42' TERM
    echo ready
    while :; do sleep 0.1; done
    `,
  );
  const child = start(['run', bundle]);
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  for (const name of ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'ALRM']) {
    const seen = waitFor(child.stdout, `got ${name}`);
    child.kill(`SIG${name}` as NodeJS.Signals);
    await seen;
  }
  child.kill('SIGTERM');
  const { status, stdout, stderr } = await ended;
  t.same({ status, stderr }, { status: 42, stderr: '' });
  t.equal(stdout, 'ready\ngot HUP\ngot INT\ngot QUIT\ngot USR1\ngot USR2\ngot ALRM\ngot TERM\n');
});

t.test('128 + n where a signal has ended the process', async (t) => {
  const itself = makeBundle(t, 'kill -SEGV $$', notInit);
  t.equal((await tsvmm(['run', itself])).status, 139);
  const sent = makeBundle(t, 'echo ready; exec sleep 1000', notInit);
  const child = start(['run', sent]);
  const ended = outcome(child);
  await waitFor(child.stdout, 'ready');
  child.kill('SIGTERM');
  t.equal((await ended).status, 143);
});

t.test('a signal before the process runs ends the machine', async (t) => {
  const bundle = makeBundle(t, 'echo never');
  const child = start(['run', '--debug', bundle]);
  const ended = outcome(child);
  await waitFor(child.stderr, 'Linux version');
  child.kill('SIGINT');
  const { status, stdout } = await ended;
  t.same({ status, stdout }, { status: 130, stdout: '' });
});

t.test('two containers at once, but not with one ID', async (t) => {
  const bundle = makeBundle(t, 'echo $$; cat');
  const first = start(['run', bundle, 'one']);
  const firstEnded = outcome(first);
  await waitFor(first.stdout, '1\n');
  const [same, other] = await Promise.all([
    tsvmm(['run', bundle, 'one']),
    tsvmm(['run', bundle, 'two'], 'two'),
  ]);
  t.same(same, {
    status: 125,
    stdout: '',
    stderr: 'tsvmm: container with given ID already exists: one\n',
  });
  t.same(other, { status: 0, stdout: '1\ntwo', stderr: '' });
  first.stdin?.end('one');
  t.same(await firstEnded, { status: 0, stdout: '1\none', stderr: '' });
});

t.test(
  'kill -9 leaves nothing but a state that the next run removes, and the ID is free again',
  async (t) => {
    const bundle = makeBundle(t, 'echo ready; cat >/dev/null; echo done');
    const temporary = temporaryFolder(t);
    const before = leavings(bundle, temporary);
    const child = start(['run', bundle, 'killed'], { env: { ...process.env, TMPDIR: temporary } });
    const ended = outcome(child);
    await waitFor(child.stdout, 'ready');
    const pid = child.pid ?? 0;
    t.same(children(pid), [], 'no other process is started');
    child.kill('SIGKILL');
    await ended;
    t.notOk(existsSync(`/proc/${pid}`));
    t.equal((await tsvmm(['list', '--quiet'])).stdout, '', 'nobody takes it for a container');
    t.same(await tsvmm(['run', bundle]), { status: 0, stdout: 'ready\ndone\n', stderr: '' });
    t.same(leavings(bundle, temporary), before, 'the next run has removed its state');
    t.same(await tsvmm(['run', bundle, 'killed']), { status: 0, stdout: 'ready\ndone\n', stderr: '' });
  },
);

/** What a container might leave: its state, mounts, temporary files. Others may be at work on this machine. */
function leavings(bundle: string, temporary: string): unknown {
  const list = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
  return {
    // The one lock file for all IDs stays.
    state: list('/run/tsvmm').filter((name) => name !== 'lock'),
    bundle: list(bundle).sort(),
    temporary: list(temporary),
    mounts: readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(bundle)),
  };
}

function children(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((child) => child !== '');
}
