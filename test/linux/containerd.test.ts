import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Engines, IS_TSVMM, makeImageArchive, makeRootArchive, RUNTIME } from '../support/engines.js';

// Each container boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const IMAGE = 'docker.io/library/box:latest';
const SOCKET = '/run/containerd/containerd.sock';

const engines = await Engines.open(t);
// containerd's own shim for runc, with another binary, as a configuration of its CRI plugin or `ctr --runc-binary` says.
const configuration = join(engines.folder, 'containerd.toml');
writeFileSync(configuration, `version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n`);
await engines.daemon(t, ['containerd', '--config', configuration], ['ctr', 'version']);

const ctr = (...args: string[]) => engines.run(['ctr', '--address', SOCKET, ...args]);
const ok = (...args: string[]) => engines.ok(['ctr', '--address', SOCKET, ...args]);
const run = (options: string[], ...command: string[]) => [
  'run',
  '--runc-binary',
  RUNTIME,
  ...options,
  IMAGE,
  ...command,
];

const archive = makeImageArchive(engines.folder, makeRootArchive(engines.folder), IMAGE);
await ok('image', 'import', archive);

t.test('ctr run', async (t) => {
  const options = ['--rm', '--env', 'X=a b', '--cwd', '/tmp', '--memory-limit', '134217728'];
  const script = 'echo "$(pwd) $X"; ls /sys/class/net; echo err >&2; exit 7';
  const { status, stdout, stderr } = await ctr(...run(options, 'one', 'sh', '-c', script));
  t.equal(status, 7);
  t.equal(stdout, '/tmp a b\nlo\n');
  t.match(stderr, /^err\n/);
  t.equal(await ok('container', 'list', '--quiet'), '');
});

t.test('ctr run on a terminal', async (t) => {
  await engines.talkOnTerminal(t, (script) => ['ctr', ...run(['--rm', '--tty'], 'tty', 'sh', '-c', script)]);
});

t.test('a task in the background', async (t) => {
  const script = 'trap "exit 5" USR1; sleep 1000 & wait';
  await ok(...run(['--detach'], 'two', 'sh', '-c', script));

  await t.test('tasks exec', async (t) => {
    const first = await ctr(
      'task',
      'exec',
      '--exec-id',
      'e1',
      'two',
      'sh',
      '-c',
      'echo in; echo err >&2; exit 9',
    );
    t.match(first, { status: 9, stdout: 'in\n', stderr: /^err\n/ });
    const user = await ctr(
      'task',
      'exec',
      '--exec-id',
      'e2',
      '--user',
      '1000',
      '--cwd',
      '/tmp',
      'two',
      'sh',
      '-c',
      'id -u; pwd',
    );
    t.match(user, { status: 0, stdout: '1000\n/tmp\n' });
  });

  await t.test('what is told of it', async (t) => {
    const [, pid = ''] = /two\s+(\d+)\s+RUNNING/.exec(await ok('task', 'list')) ?? [];
    t.match(await ok('task', 'ps', 'two'), new RegExp(`\\b${pid}\\b`));
    const metrics = await ok('task', 'metrics', '--format', 'json', 'two');
    t.match(metrics, /"usage":\s*[1-9]/);
    if (IS_TSVMM) {
      // A program of the machine's is seen from outside by the machine's own process.
      t.equal((await engines.run(['test', '-d', `/proc/${pid}`])).status, 0);
    }
  });

  await t.test('pause and resume', async (t) => {
    await ok('task', 'pause', 'two');
    t.match(await ok('task', 'list'), /two\s+\d+\s+PAUSED/);
    await ok('task', 'resume', 'two');
    t.match(await ok('task', 'list'), /two\s+\d+\s+RUNNING/);
  });

  await t.test('kill, and remove', async (t) => {
    await ok('task', 'kill', '--signal', 'SIGUSR1', 'two');
    await engines.until(['ctr', 'task', 'list'], 'STOPPED');
    const { stderr } = await ctr('task', 'rm', 'two');
    t.match(stderr, /two exit with non-zero exit code 5/);
    await ok('container', 'rm', 'two');
    t.equal(await ok('container', 'list', '--quiet'), '');
  });
});

t.test('a task that is removed by force', async () => {
  await ok(...run(['--detach'], 'three', 'sleep', '1000'));
  await ok('task', 'rm', '--force', 'three');
  await ok('container', 'rm', 'three');
});

t.test('nothing is left behind', async (t) => {
  t.same(await engines.leftovers(/containerd --config/), []);
});
