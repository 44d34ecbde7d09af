import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Spec } from '../../src/runtime/spec/types.js';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { alive, Containers, ended } from '../support/container.js';

const SIGKILL = 'SIGKILL';

t.test('create, start, kill, delete', async (t) => {
  const containers = new Containers(t);
  const pidFile = join(temporaryFolder(t), 'pid');
  const bundle = makeBundle(
    t,
    'trap "echo bye > /bye; exit 7" TERM; echo up > /up; while :; do sleep 0.1; done',
  );

  const created = await containers.create('one', bundle, '--pid-file', pidFile);
  t.same(created, { status: 0, stdout: '', stderr: '' });
  t.equal(await containers.status('one'), 'created');
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.ok(alive(pid), 'the pid file names a process');
  t.notOk(existsSync(join(bundle, 'rootfs/up')), 'which has not run anything');

  const again = await containers.create('one', bundle);
  t.equal(again.status, 1);
  t.match(again.stderr, /^tsvmm: container with given ID already exists: one\n$/);

  writeFileSync(join(bundle, 'config.json'), 'edited after create');
  t.same(await containers.run('start', 'one'), { status: 0, stdout: '', stderr: '' });
  t.equal(await containers.status('one'), 'running');
  t.match((await containers.run('start', 'one')).stderr, /cannot start an already running container/);
  t.match(
    (await containers.run('delete', 'one')).stderr,
    /cannot delete container "one" that is not stopped: running/,
  );
  while (!existsSync(join(bundle, 'rootfs/up'))) await containers.run('state', 'one');

  t.equal((await containers.run('kill', 'one', 'TERM')).status, 0);
  await ended(pid);
  t.equal(await containers.status('one'), 'stopped');
  t.ok(existsSync(join(bundle, 'rootfs/bye')), 'what the process wrote last is on the host');
  t.match((await containers.run('kill', 'one', 'KILL')).stderr, /container not running/);
  t.match((await containers.run('start', 'one')).stderr, /cannot start a container that has stopped/);
  t.equal((await containers.run('delete', 'one')).status, 0);
  t.match((await containers.run('state', 'one')).stderr, /container "one" does not exist/);
  t.equal((await containers.run('delete', 'one')).status, 1);
  t.equal((await containers.run('delete', '--force', 'one')).status, 0);
  t.same(containers.left(), []);
});

t.test('a container that was never started, and one that runs, can be removed by force', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'while :; do sleep 1; done');
  t.equal((await containers.create('idle', bundle)).status, 0);
  t.equal((await containers.run('delete', 'idle')).status, 0);
  t.equal((await containers.run('run', '--detach', '--bundle', bundle, 'busy')).status, 0);
  const { pid } = JSON.parse((await containers.run('state', 'busy')).stdout) as { pid: number };
  t.equal((await containers.run('delete', '--force', 'busy')).status, 0);
  t.notOk(alive(pid));
  t.same(containers.left(), []);
});

t.test('a sandbox that was killed leaves a stopped container', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'while :; do sleep 1; done');
  t.equal((await containers.run('run', '--detach', '--bundle', bundle, 'shot')).status, 0);
  const { pid } = JSON.parse((await containers.run('state', 'shot')).stdout) as { pid: number };
  process.kill(pid, SIGKILL);
  await ended(pid);
  t.equal(await containers.status('shot'), 'stopped');
  t.match((await containers.run('kill', 'shot', '9')).stderr, /container not running/);
  t.equal((await containers.run('delete', 'shot')).status, 0);
  t.same(containers.left(), []);
});

t.test(
  'the first sandbox of a user leaves its compiled code to the user, not in the container',
  async (t) => {
    const home = temporaryFolder(t);
    const containers = new Containers(t, { HOME: home, XDG_CACHE_HOME: '' });
    // The folder is there in the container too, where the sandbox's view of the host has it.
    const bundle = makeBundle(t, `mkdir -p ${home}; exit 3`);
    t.equal((await containers.create('first', bundle)).status, 0);
    const { pid } = JSON.parse((await containers.run('state', 'first')).stdout) as { pid: number };
    t.equal((await containers.run('start', 'first')).status, 0);
    await ended(pid);
    t.ok(readdirSync(join(home, '.cache/tsvmm/code')).some((name) => name.startsWith('sandbox-')));
    t.same(readdirSync(join(bundle, 'rootfs', home)), []);
    t.equal((await containers.run('delete', 'first')).status, 0);
  },
);

t.test('hooks', async (t) => {
  const containers = new Containers(t);
  const folder = temporaryFolder(t);
  const log = join(folder, 'log');
  const hook = join(folder, 'hook');
  writeFileSync(
    hook,
    `#!/bin/sh\nread state\nstatus=$(echo "$state" | sed 's/.*"status":"\\([a-z]*\\)".*/\\1/')\necho "$1 $status $EXTRA" >> ${log}\nexit "\${2:-0}"\n`,
  );
  chmodSync(hook, 0o755);
  const withHooks =
    (failing = '') =>
    (spec: Spec): void => {
      const of = (name: string) => [
        {
          path: hook,
          args: ['hook', name, name === failing ? '3' : '0'],
          env: ['PATH=/bin:/usr/bin', 'EXTRA=x'],
        },
      ];
      spec.hooks = {
        prestart: of('prestart'),
        createRuntime: of('createRuntime'),
        createContainer: of('createContainer'),
        startContainer: [{ path: '/bin/sh', args: ['sh', '-c', 'cat > /hooked'] }],
        poststart: of('poststart'),
        poststop: of('poststop'),
      };
    };
  const bundle = makeBundle(t, 'cat /hooked > /seen; exit 4', withHooks());
  t.equal((await containers.create('hooked', bundle)).status, 0);
  t.equal(
    readFileSync(log, 'utf8'),
    'prestart creating x\ncreateRuntime creating x\ncreateContainer creating x\n',
  );
  const { pid } = JSON.parse((await containers.run('state', 'hooked')).stdout) as { pid: number };
  t.equal((await containers.run('start', 'hooked')).status, 0);
  await ended(pid);
  t.match(
    readFileSync(join(bundle, 'rootfs/seen'), 'utf8'),
    /"id":\s*"hooked"/,
    'startContainer ran in the guest',
  );
  t.equal((await containers.run('delete', 'hooked')).status, 0);
  t.match(readFileSync(log, 'utf8'), /poststart running x\npoststop stopped x\n$/);

  for (const name of ['prestart', 'createContainer']) {
    const failing = await containers.create('failing', makeBundle(t, 'true', withHooks(name)));
    t.equal(failing.status, 1);
    t.match(failing.stderr, new RegExp(`^tsvmm: hooks\\.${name}\\[0\\]: .*hook ended with status 3\n$`));
    t.same(containers.left(), []);
  }
  const late = makeBundle(t, 'while :; do sleep 1; done', withHooks('poststart'));
  t.equal((await containers.create('late', late)).status, 0);
  t.match((await containers.run('start', 'late')).stderr, /hooks\.poststart\[0\]: .*ended with status 3/);
  t.equal((await containers.run('delete', '--force', 'late')).status, 0);
});

t.test('what hooks of the creation mount is in the container only', async (t) => {
  const containers = new Containers(t);
  const folder = temporaryFolder(t);
  for (const name of ['one', 'two']) writeFileSync(join(folder, name), `${name}\n`);
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  const shell = (script: string) => [{ path: '/bin/sh', args: ['sh', '-c', script] }];
  const bundle = makeBundle(t, 'cat /one /two > /seen', (spec) => {
    const enter = `pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/'); echo "$PWD" > ${folder}/where; touch rootfs/one`;
    spec.hooks = {
      createRuntime: shell(`${enter}; nsenter -m -t $pid mount --bind ${folder}/one $PWD/rootfs/one`),
      createContainer: shell(`touch ./two && mount --bind ${folder}/two ./two`),
    };
  });
  t.equal((await containers.create('mounted', bundle)).stderr, '');
  t.equal(readFileSync(join(folder, 'where'), 'utf8'), `${bundle}\n`, 'a hook begins in the bundle');
  t.equal(readFileSync('/proc/self/mountinfo', 'utf8'), mounts);
  const { pid } = JSON.parse((await containers.run('state', 'mounted')).stdout) as { pid: number };
  t.equal((await containers.run('start', 'mounted')).status, 0);
  await ended(pid);
  t.equal(readFileSync(join(bundle, 'rootfs/seen'), 'utf8'), 'one\ntwo\n');
  t.equal(readFileSync(join(bundle, 'rootfs/one'), 'utf8'), '');
  t.equal((await containers.run('delete', 'mounted')).status, 0);
  t.equal(readFileSync('/proc/self/mountinfo', 'utf8'), mounts);
});

t.test('what is wrong is told at create, and leaves nothing', async (t) => {
  const containers = new Containers(t);
  const absent = makeBundle(t, '', (spec) => {
    spec.process.args = ['no-such-program'];
  });
  const refused = await containers.create('absent', absent);
  t.equal(refused.status, 1);
  t.match(refused.stderr, /exec: "no-such-program": executable file not found in \$PATH/);
  const terminal = makeBundle(t, 'true', (spec) => {
    spec.process.terminal = true;
  });
  t.match(
    (await containers.create('terminal', terminal)).stderr,
    /cannot allocate tty if tsvmm will detach without setting console socket/,
  );
  t.same(containers.left(), []);
});
