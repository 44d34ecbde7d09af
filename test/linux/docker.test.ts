import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Engines, makeRootArchive, RUNTIME } from '../support/engines.js';

// Each container boots Linux, in the testbed under emulation.
t.setTimeout(500_000);

/** Debian's client, also where another comes first. */
const DOCKER = '/usr/bin/docker';

const engines = await Engines.open(t);
const configuration = join(engines.folder, 'daemon.json');
writeFileSync(
  configuration,
  JSON.stringify({ 'default-runtime': 'tested', runtimes: { tested: { path: RUNTIME } } }),
);
await engines.daemon(t, ['dockerd', '--config-file', configuration], [DOCKER, 'version']);

const docker = (args: string[], input = '') => engines.run([DOCKER, ...args], { input });
const ok = (...args: string[]) => engines.ok([DOCKER, ...args]);
const fetch = ['curl', '-sS', '--max-time', '30'];

await ok('import', makeRootArchive(engines.folder), 'box');

t.test('docker run', async (t) => {
  const host = join(engines.folder, 'host');
  mkdirSync(host);
  const script = `
    echo "$(id -u) $(pwd) $X $(hostname)"; echo written >/host/file; cat
    touch /no 2>/dev/null || echo read-only; touch /scratch/yes && echo scratch; ls /sys/class/net
    echo err >&2; exit 7`;
  const options = [
    ['--user', '1000:1000'],
    ['--workdir', '/tmp'],
    ['--env', 'X=a b'],
    ['--hostname', 'inside'],
    ['--volume', `${host}:/host`],
    ['--tmpfs', '/scratch:mode=1777'],
    ['--network', 'none'],
    ['--memory', '128m'],
  ].flat();
  await engines.ok(['chmod', '777', host]);
  const run = ['run', '--rm', '-i', '--init', '--read-only', ...options, 'box', 'sh', '-c', script];
  const { status, stdout, stderr } = await docker(run, 'typed\n');
  t.equal(status, 7);
  t.equal(stdout, '1000 /tmp a b inside\ntyped\nread-only\nscratch\nlo\n');
  // Before it docker warns where the kernel of the host accounts no swap.
  t.match(stderr, /(^|\n)err\n$/);
  t.equal(readFileSync(join(host, 'file'), 'utf8'), 'written\n');
  t.equal((await docker(['run', '--rm', '--network', 'none', 'box', 'nothing'])).status, 127);
});

t.test('docker run on a terminal', async (t) => {
  await engines.talkOnTerminal(t, (script) => [
    DOCKER,
    'run',
    '--rm',
    '-it',
    '--network',
    'none',
    'box',
    'sh',
    '-c',
    script,
  ]);
});

t.test('two containers', async (t) => {
  const serve = 'trap "echo stopping; exit 3" TERM; httpd -h /www -p 80; echo up; sleep 1000 & wait';
  await ok('network', 'create', 'net');
  const options = ['--name', 'web', '--network', 'net', '--publish', '18082:80'];
  await ok('run', '-d', ...options, 'box', 'sh', '-c', serve);

  await t.test('a published port', async () => {
    await engines.until([...fetch, 'http://127.0.0.1:18082/'], 'served from inside');
  });

  await t.test('talk to each other, by name', async (t) => {
    const run = ['run', '--rm', '--network', 'net', 'box', 'wget', '-q', '-O', '-', 'http://web/'];
    t.equal(await ok(...run), 'served from inside');
  });

  await t.test('exec, logs, inspect, top, stats, cp', async (t) => {
    const exec = ['exec', '-i', '--user', 'user', '--env', 'Y=2', 'web'];
    t.same(await docker([...exec, 'sh', '-c', 'echo "$(id -un) $Y"; cat; echo err >&2; exit 9'], 'in\n'), {
      status: 9,
      stdout: 'user 2\nin\n',
      stderr: 'err\n',
    });
    t.equal(await ok('logs', 'web'), 'up');
    const pid = await ok('inspect', '--format', '{{.State.Pid}}', 'web');
    t.match(await ok('top', 'web'), new RegExp(`\\b${pid}\\b`));
    t.match(
      await ok('stats', '--no-stream', '--format', '{{.Name}} {{.MemUsage}} {{.PIDs}}', 'web'),
      /^web [1-9].* [1-9]\d*$/,
    );
    const [from, back] = [join(engines.folder, 'from'), join(engines.folder, 'back')];
    writeFileSync(from, 'copied in\n');
    await ok('cp', from, 'web:/www/copy.html');
    t.equal(await engines.ok([...fetch, 'http://127.0.0.1:18082/copy.html']), 'copied in');
    await ok('cp', 'web:/www/copy.html', back);
    t.equal(readFileSync(back, 'utf8'), 'copied in\n');
  });

  await t.test('pause, unpause, stop, start, rm', async (t) => {
    await ok('pause', 'web');
    t.equal(await ok('inspect', '--format', '{{.State.Status}}', 'web'), 'paused');
    await ok('unpause', 'web');
    t.equal(await engines.ok([...fetch, 'http://127.0.0.1:18082/']), 'served from inside');
    await ok('stop', '--time', '60', 'web');
    t.equal(await ok('inspect', '--format', '{{.State.ExitCode}}', 'web'), '3');
    t.match(await ok('logs', 'web'), /stopping/);
    await ok('start', 'web');
    await engines.until([...fetch, 'http://127.0.0.1:18082/copy.html'], 'copied in');
    await ok('rm', '--force', 'web');
    t.equal(await ok('ps', '--all', '--quiet'), '');
  });
});

t.test('nothing is left behind', async (t) => {
  t.same(await engines.leftovers(/dockerd|containerd --config|docker-proxy/), []);
});
