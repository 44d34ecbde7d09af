import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Engines, IS_TSVMM } from '../support/engines.js';
import { openPodman } from '../support/podman.js';
import { outcome, waitFor } from '../support/tsvmm.js';

// Each container boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

const engines = await Engines.open(t);
const { podman, ok } = await openPodman(engines);

t.test('podman run: everything that a command line says of the process', async (t) => {
  const host = join(engines.folder, 'host');
  mkdirSync(host);
  writeFileSync(join(host, 'greeting'), 'from the host\n');
  const profile = join(engines.folder, 'seccomp.json');
  writeFileSync(
    profile,
    JSON.stringify({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }],
    }),
  );
  await ok(['volume', 'create', 'data']);
  const script = `
    echo "id $(id -u):$(id -g) $(pwd) $X $(hostname)"
    grep CapEff /proc/self/status
    cat /host/greeting; echo no >/host/greeting || echo "host is read-only"
    echo kept >/data/file
    echo no >/no 2>/dev/null || echo "root is read-only"
    echo yes >/scratch/yes && grep -c " /scratch tmpfs" /proc/mounts
    mkdir /scratch/d || echo "no mkdir"
    ls /sys/class/net
    cat; echo "an error" >&2; exit 7`;
  const args = [
    ['--user', '1000:1000'],
    ['--workdir', '/tmp'],
    ['--env', 'X=a b'],
    ['--hostname', 'inside'],
    ['--cap-drop', 'ALL'],
    ['--security-opt', `seccomp=${profile}`],
    ['--volume', `${host}:/host:ro`],
    ['--volume', 'data:/data:U'],
    ['--tmpfs', '/scratch:rw,size=1m,mode=1777'],
    ['--memory', '128m'],
    ['--cpus', '1'],
    ['--network', 'none'],
  ].flat();
  const run = ['run', '--rm', '-i', '--read-only', ...args, 'box', 'sh', '-c', script];
  const { status, stdout, stderr } = await podman(run, { input: 'typed\n' });
  t.equal(status, 7);
  t.same(stdout.split('\n'), [
    'id 1000:1000 /tmp a b inside',
    'CapEff:\t0000000000000000',
    'from the host',
    'host is read-only',
    'root is read-only',
    '1',
    'no mkdir',
    'lo',
    'typed',
    '',
  ]);
  t.match(stderr, /mkdir: .*Function not implemented/);
  t.match(stderr, /\nan error\n$/);
  const data = await ok(['volume', 'inspect', '--format', '{{.Mountpoint}}', 'data']);
  t.equal(await engines.ok(['cat', join(data, 'file')]), 'kept');
  t.equal(readFileSync(join(host, 'greeting'), 'utf8'), 'from the host\n');
  t.equal(await ok(['ps', '--all', '--quiet']), '', '--rm has removed it');
});

if (IS_TSVMM)
  await t.test("the host's network is refused with the reason", async (t) => {
    const { status, stderr } = await podman(['run', '--rm', '--network', 'host', 'box', 'true']);
    t.equal(status, 126);
    t.match(stderr, /network/);
    t.match(stderr, /io\.tsvmm\.network/, 'and the remedy');
  });

t.test('a program that is not there', async (t) => {
  const { status, stderr } = await podman(['run', '--rm', '--network', 'none', 'box', 'nothing']);
  t.equal(status, 127);
  t.match(stderr, /nothing/);
});

t.test('a container that serves, in the background', async (t) => {
  const script = `
    trap 'echo stopping; exit 3' TERM
    echo "up $(hostname)"; httpd -h /www -p 80; sleep 1000 & wait`;
  const options = ['--name', 'web', '--publish', '18080:80', '--init', '--memory', '128m'];
  const id = await ok(['run', '-d', ...options, 'box', 'sh', '-c', script]);
  await engines.until(['podman', 'logs', 'web'], 'up ');
  const fetch = ['curl', '-sS', '--max-time', '30'];

  await t.test('is reached by its published port, and by its address', async (t) => {
    await engines.until([...fetch, 'http://127.0.0.1:18080/'], 'served from inside');
    const address = await ok(['inspect', '--format', '{{.NetworkSettings.IPAddress}}', 'web']);
    t.equal(await engines.ok([...fetch, `http://${address}/`]), 'served from inside');
    const gateway = await ok(['exec', 'web', 'ip', 'route']);
    t.match(gateway, /default via 10\.88\.0\.1 dev eth0/);
  });

  await t.test('exec', async (t) => {
    const exec = ['exec', '-i', '--user', 'user', '--env', 'Y=2', '--workdir', '/home', 'web'];
    const words = await podman(
      [...exec, 'sh', '-c', 'echo "$(id -un) $Y $(pwd)"; cat; echo err >&2; exit 9'],
      {
        input: 'in\n',
      },
    );
    t.same(words, { status: 9, stdout: 'user 2 /home\nin\n', stderr: 'err\n' });
    const missing = await podman(['exec', 'web', 'nothing']);
    t.equal(missing.status, 127);
    const terminal = engines.onTerminal([
      'podman',
      'exec',
      '-it',
      'web',
      'sh',
      '-c',
      'stty size; read -r l; exit 4',
    ]);
    const ended = outcome(terminal);
    await waitFor(terminal.stdout, '30 100');
    terminal.stdin?.end('bye\r');
    t.equal((await ended).status, 4);
  });

  await t.test('what is told of it', async (t) => {
    const state = JSON.parse(await ok(['inspect', '--format', '{{json .State}}', 'web']));
    t.match(state, { Status: 'running', Running: true, Paused: false });
    t.equal((await engines.run(['test', '-d', `/proc/${state.Pid}`])).status, 0);
    const stats = JSON.parse(await ok(['stats', '--no-stream', '--format', 'json', 'web']));
    t.match(stats, [{ name: 'web', pids: /^[1-9]/ }]);
    t.match(await ok(['top', 'web', 'pid', 'args']), /sleep 1000/);
    t.match(await ok(['ps']), /web/);
    t.equal(await ok(['logs', 'web']), `up ${id.slice(0, 12)}`);
  });

  await t.test('cp, both ways, while it runs', async (t) => {
    const [from, back] = [join(engines.folder, 'from'), join(engines.folder, 'back')];
    writeFileSync(from, 'copied in\n');
    await ok(['cp', from, 'web:/www/copy.html']);
    t.equal(await engines.ok([...fetch, 'http://127.0.0.1:18080/copy.html']), 'copied in');
    await ok(['exec', 'web', 'sh', '-c', 'echo out >/tmp/made']);
    await ok(['cp', 'web:/tmp/made', back]);
    t.equal(readFileSync(back, 'utf8'), 'out\n');
  });

  await t.test('pause and unpause', async (t) => {
    await ok(['pause', 'web']);
    t.equal(await ok(['inspect', '--format', '{{.State.Status}}', 'web']), 'paused');
    const silent = await engines.run(['curl', '-s', '--max-time', '2', 'http://127.0.0.1:18080/']);
    t.not(silent.status, 0);
    await ok(['unpause', 'web']);
    t.equal(await engines.ok([...fetch, 'http://127.0.0.1:18080/']), 'served from inside');
  });

  await t.test('stop, start, kill, wait, restart, rm --force', async (t) => {
    await ok(['stop', '--time', '60', 'web']);
    t.equal(await ok(['inspect', '--format', '{{.State.ExitCode}}', 'web']), '3');
    t.match(await ok(['logs', 'web']), /stopping/);
    await ok(['start', 'web']);
    const waiting = ok(['wait', 'web']);
    await ok(['kill', '--signal', 'KILL', 'web']);
    t.equal(await waiting, '137');
    await ok(['restart', 'web']);
    await engines.until([...fetch, 'http://127.0.0.1:18080/copy.html'], 'copied in');
    await ok(['rm', '--force', '--time', '0', 'web']);
    t.equal(await ok(['ps', '--all', '--quiet']), '');
  });
});

t.test('nothing is left behind', async (t) => {
  t.same(await engines.leftovers(/podman pause/), []);
});
