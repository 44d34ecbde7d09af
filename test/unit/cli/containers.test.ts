import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseDuration } from '../../../src/cli/events.js';
import { FakeSandboxes } from '../../support/fake-sandbox.js';
import { tsvmm } from '../../support/tsvmm.js';

/** Runs a command on the containers of `sandboxes`. */
const on =
  (sandboxes: FakeSandboxes) =>
  (args: string[], input = '') =>
    tsvmm(['--root', sandboxes.root, ...args], input);

async function failure(t: Test, outcome: ReturnType<typeof tsvmm>, message: RegExp, status = 1) {
  const { status: ended, stdout, stderr } = await outcome;
  t.same({ status: ended, stdout }, { status, stdout: '' }, String(message));
  t.match(stderr, message);
  t.match(stderr, /^tsvmm: .*\n$/, 'one line');
}

t.test('state and list', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  t.equal((await run(['list', '--format=json'])).stdout, '[]\n');
  t.equal(
    (await run(['list'])).stdout,
    'ID          PID         STATUS      BUNDLE      CREATED     OWNER\n',
  );
  await sandboxes.add('alive', { status: 'paused' });
  await sandboxes.add('gone', { pid: 0 });
  const alive = {
    ociVersion: '1.0.2',
    id: 'alive',
    pid: process.pid,
    status: 'paused',
    bundle: '/bundles/alive',
    rootfs: '/bundles/alive/rootfs',
    created: '2026-11-24T10:00:00.123456789Z',
    annotations: { 'org.example': 'x' },
    owner: 'root',
  };
  const { status, stdout, stderr } = await run(['state', 'alive']);
  t.same({ status, stderr }, { status: 0, stderr: '' });
  t.same(JSON.parse(stdout), { ...alive, log: join(sandboxes.root, 'alive/console.log') });
  t.match(JSON.parse((await run(['state', 'gone'])).stdout), { status: 'stopped', pid: 0 }, 'killed with -9');
  const list = JSON.parse((await run(['list', '-f', 'json'])).stdout) as unknown[];
  t.same(list[0], alive);
  t.match(list[1], { id: 'gone', pid: 0, status: 'stopped' });
  t.equal((await run(['list', '-q'])).stdout, 'alive\ngone\n');
  const [heading, first] = (await run(['list'])).stdout.split('\n');
  t.match(heading, /^ID {10}PID {9}STATUS {6}BUNDLE {11}CREATED {26}OWNER$/);
  t.match(first, /^alive {7}\d+ +paused {6}\/bundles\/alive {3}2026-11-24T10:00:00.123456789Z {3}root$/);
  await failure(t, run(['state', 'none']), /container "none" does not exist/);
  await failure(t, run(['state']), /state: the ID is missing/);
  await failure(t, run(['state', 'a', 'b']), /state: unexpected argument b/);
  await failure(t, run(['state', '../x']), /container ID "\.\.\/x"/);
  await failure(t, run(['list', '--format', 'xml']), /--format: expected table or json, got "xml"/);
  t.same(sandboxes.asked, [], 'files tell all of it');
});

t.test('pause and resume', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  await sandboxes.add('gone', { pid: 0 });
  t.same(await run(['pause', 'c']), { status: 0, stdout: '', stderr: '' });
  t.same(await run(['resume', 'c']), { status: 0, stdout: '', stderr: '' });
  t.same(
    sandboxes.asked.map(({ method }) => method),
    ['pause', 'resume'],
  );
  sandboxes.answer = () => 'container not paused: it is running';
  await failure(t, run(['resume', 'c']), /^tsvmm: container not paused: it is running\n/);
  await failure(t, run(['pause', 'none']), /container "none" does not exist/);
});

t.test('ps', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  await sandboxes.add('gone', { pid: 0 });
  sandboxes.answer = () => ({
    processes: [
      {
        pid: 61,
        nsPid: 1,
        ppid: 59,
        uid: 0,
        tty: 'pts/0',
        startTime: 1.5,
        cpuTime: 3725,
        threads: 1,
        command: ['sh', '-c', 'x\u001b[2J'],
      },
      {
        pid: 7,
        nsPid: 2,
        ppid: 61,
        uid: 1000,
        tty: '',
        startTime: 2,
        cpuTime: 0,
        threads: 4,
        command: '[worker]',
      },
    ],
  });
  const { stdout } = await run(['ps', 'c']);
  const [heading, first, second] = stdout.split('\n');
  t.match(heading, /^UID +PID +PPID C STIME TTY +TIME CMD$/);
  t.match(
    first,
    /^root +1 +0 0 \d\d:\d\d pts\/0 01:02:05 sh -c x\\x1b\[2J$/,
    'nothing that steers a terminal',
  );
  t.match(second, /^1000 +2 +1 0 \d\d:\d\d \? +00:00:00 \[worker\]$/);
  t.equal(
    (await run(['ps', 'c', '-o', 'pid,comm'])).stdout,
    '    PID COMMAND\n      1 sh\n      2 [worker]\n',
  );
  t.match((await run(['ps', 'c', 'aux'])).stdout, /^USER +PID +TTY +STAT/);
  t.match((await run(['ps', 'c', '-e', '-x'])).stdout, /^ +PID +TTY +STAT +TIME +COMMAND\n/);
  t.same(JSON.parse((await run(['ps', '--format', 'json', 'c'])).stdout), [process.pid]);
  t.equal((await run(['ps', '-f', 'json', 'gone'])).stdout, '[]\n');
  t.match(await run(['ps', 'gone']), { status: 0, stdout: /^UID.*\n$/ }, 'the heading, as runc');
  await failure(t, run(['ps', 'c', '--forest']), /ps: option --forest: expected -ef, aux or -o/);
  await failure(t, run(['ps', 'c', '-o', 'cgroup']), /ps: column cgroup: expected one of user, /);
  for (const answer of [{}, { processes: 7 }, { processes: [null, 'x', {}] }]) {
    sandboxes.answer = () => answer;
    t.equal((await run(['ps', 'c'])).status, 0, 'whatever a guest says');
  }
});

t.test('events', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  await sandboxes.add('gone', { pid: 0 });
  sandboxes.answer = ({ method, send, end }) => {
    if (method === 'events') {
      setImmediate(() => {
        send({ method: 'event', params: { type: 'oom', id: 'c' } });
        end();
      });
      return {};
    }
    return {
      cpu: { usageNs: 5e9, userNs: 3e9, systemNs: 2e9, periods: 10, throttledPeriods: 2, throttledNs: 7 },
      memory: {
        usage: 4096,
        max: 8192,
        failcnt: 3,
        swapUsage: 0,
        stat: { file: 1024, anon: 1 },
        oomKills: 1,
      },
      pids: { current: 2 },
      hugetlb: [{ size: '2MB', usage: 4, failcnt: 1, max: 9 }],
      io: [{ major: 254, minor: 0, readBytes: 10, writeBytes: 20, readOps: 1, writeOps: 2 }],
    };
  };
  const { stdout, status } = await run(['events', '--stats', 'c']);
  t.equal(status, 0);
  t.match(
    stdout,
    /"usage":\{"limit":18446744073709551615,"usage":4096,"max":8192,"failcnt":3\}/,
    'as uint64',
  );
  const { type, id, data } = JSON.parse(stdout);
  t.same([type, id], ['stats', 'c']);
  t.match(data, {
    cpu: {
      usage: { total: 5e9, kernel: 2e9, user: 3e9 },
      throttling: { periods: 10, throttledPeriods: 2, throttledTime: 7 },
    },
    memory: {
      cache: 1024,
      usage: { usage: 4096, max: 8192, failcnt: 3 },
      swap: { usage: 4096 },
      kernel: { limit: 0 },
      kernelTCP: { limit: 0 },
      raw: { file: 1024, anon: 1 },
    },
    pids: { current: 2, limit: 0 },
    blkio: {
      ioServiceBytesRecursive: [
        { major: 254, minor: 0, op: 'Read', value: 10 },
        { major: 254, minor: 0, op: 'Write', value: 20 },
      ],
      ioServicedRecursive: [
        { major: 254, minor: 0, op: 'Read', value: 1 },
        { major: 254, minor: 0, op: 'Write', value: 2 },
      ],
    },
    hugetlb: { '2MB': { usage: 4, failcnt: 1 } },
    intel_rdt: {},
    network_interfaces: null,
  });
  t.same(await run(['events', '--interval=1h', 'c']), {
    status: 0,
    stdout: '{"type":"oom","id":"c"}\n',
    stderr: '',
  });
  for (const answer of [
    {},
    { memory: 7, io: 'x', cpu: { usageNs: -1 } },
    { io: [null], hugetlb: [null, { size: 7 }, { size: 'x' }] },
  ]) {
    sandboxes.answer = () => answer;
    t.equal((await run(['events', '--stats', 'c'])).status, 0, 'whatever a guest says');
  }
  await failure(t, run(['events', '--stats', 'gone']), /container with id gone is not running/);
  await failure(t, run(['events', '--interval', '5', 'c']), /--interval: expected a duration like 5s/);
  t.same(
    ['5s', '1m30s', '500ms', '1.5s', '1h'].map((text) => parseDuration(text, 'x')),
    [5000, 90_000, 500, 1500, 3_600_000],
  );
  for (const text of ['', '0s', '5', '-5s', '5s!', '1000h']) t.throws(() => parseDuration(text, 'x'), text);
});

t.test('update', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  const updated = async (args: string[], input = ''): Promise<unknown> => {
    const outcome = await run(['update', ...args, 'c'], input);
    t.match(outcome, { status: 0, stdout: '' }, outcome.stderr);
    return Reflect.get(Object(sandboxes.asked.at(-1)?.params), 'resources');
  };
  t.same(
    await updated(['--memory', '100M', '--memory-swap', '-1', '--pids-limit', '20', '--cpu-share', '512']),
    { memory: { limit: 100 << 20, swap: -1 }, cpu: { shares: 512 }, pids: { limit: 20 } },
  );
  t.same(await updated(['--memory', '-1']), { memory: { limit: -1, swap: -1 } });
  t.same(await updated(['--cpu-quota=150000', '--cpu-period', '100000', '--cpuset-cpus', '4,7']), {
    cpu: { quota: 150_000, period: 100_000, cpus: '0-1' },
  });
  t.same(await updated(['--blkio-weight', '100']), { blockIO: { weight: 100 } });
  const text = JSON.stringify({
    devices: [{ allow: false }],
    memory: { limit: 50 << 20, swap: null },
    cpu: { shares: 0 },
    hugepageLimits: [{ pageSize: '2MB', limit: 0 }],
  }).replace('"limit":0', '"limit":18446744073709551615');
  const file = { memory: { limit: 50 << 20 }, cpu: { shares: 0 } };
  t.match(await updated(['--resources', '-', '--memory', '1G'], text), file);
  t.match(sandboxes.asked.at(-1)?.line, '"limit":18446744073709551615', 'large numbers as they were');
  t.notMatch(sandboxes.asked.at(-1)?.line, 'devices');
  const path = join(sandboxes.root, 'resources.json');
  writeFileSync(path, text);
  t.match(await updated(['-r', path]), file);
  const refuse = (args: string[], message: RegExp, input = '') =>
    failure(t, run(['update', ...args, 'c'], input), message);
  await refuse(
    ['--memory', '300M'],
    /memory limit: 314572800 bytes are more than the container's machine has, 268435456;/,
  );
  await refuse(
    ['--cpu-quota', '300000'],
    /cpu quota: 3 processors are more than the container's machine has, 2;/,
  );
  await refuse(['--cpuset-cpus', '0-3'], /cpuset: 4 processors are more than/);
  await refuse(['--memory', 'much'], /--memory: expected a size/);
  await refuse(['--cpu-quota', 'x'], /--cpu-quota: expected a whole number, got "x"/);
  await refuse(['--blkio-weight', '5'], /--blkio-weight: expected 10 to 1000, got 5/);
  await refuse(['--l3-cache-schema', 'L3:0=f'], /--l3-cache-schema: the host's caches/);
  await refuse(['-r', '-'], /standard input: not JSON/, '{');
  await refuse(
    ['-r', '-'],
    /standard input: linux\.resources\.memory\.limit: expected a whole number/,
    '{"memory":{"limit":"1"}}',
  );
  await refuse(['-r', '/none'], /\/none: no such file or folder/);
  sandboxes.answer = () => 'memory.max: device or resource busy';
  await refuse(['--memory', '1M'], /^tsvmm: memory.max: device or resource busy\n$/);
});

t.test('logs', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  await failure(t, run(['logs', 'c']), /there is no log of a container "c" in /);
  writeFileSync(sandboxes.store.logPath('c'), 'Linux version 6\r\n\u001b[31mred\u0007\n');
  t.same(await run(['logs', 'c']), { status: 0, stdout: 'Linux version 6\n\\x1b[31mred\\x07\n', stderr: '' });
  mkdirSync(join(sandboxes.root, '@logs'));
  writeFileSync(sandboxes.store.failedLogPath('failed'), 'Kernel panic\n');
  t.equal((await run(['logs', 'failed'])).stdout, 'Kernel panic\n');
});

t.test('exec', async (t) => {
  const sandboxes = new FakeSandboxes(t);
  const run = on(sandboxes);
  await sandboxes.add('c');
  await sandboxes.add('paused', { status: 'paused' });
  await sandboxes.add('gone', { pid: 0 });
  const pidFile = join(sandboxes.root, 'pid');
  sandboxes.answer = ({ method, send, end }) => {
    if (method === 'exec') {
      setImmediate(() => {
        send({ method: 'exit', params: { status: 7 } });
        end();
      });
    }
    return { pid: 99 };
  };
  const { status, stdout, stderr } = await run(['exec', '-u', '1:2', '-eA=b', 'c', 'sh', '-c', 'exit 7']);
  t.same({ status, stdout, stderr }, { status: 7, stdout: '', stderr: '' });
  t.match(sandboxes.asked.at(-1), {
    method: 'exec',
    params: {
      terminal: false,
      preserved: 0,
      process: {
        args: ['sh', '-c', 'exit 7'],
        env: ['PATH=/bin', 'TERM=xterm', 'A=b'],
        user: { uid: 1, gid: 2, additionalGids: [5, 6] },
        cwd: '/',
        terminal: false,
      },
    },
  });
  const path = join(sandboxes.root, 'process.json');
  writeFileSync(
    path,
    '{"cwd":"/","args":["true"],"rlimits":[{"type":"RLIMIT_AS","soft":18446744073709551615,"hard":18446744073709551615}]}',
  );
  t.same(await run(['exec', '--detach', '--pid-file', pidFile, '--process', path, 'c']), {
    status: 0,
    stdout: '',
    stderr: '',
  });
  t.match(readFileSync(pidFile, 'utf8'), /^\d+$/);
  t.equal(Reflect.get(Object(sandboxes.asked.at(-1)?.params), 'cgroup'), undefined);
  t.match(sandboxes.asked.at(-1)?.line, '"soft":18446744073709551615');
  await run(['exec', '--cgroup', 'a//b', 'c', 'true']);
  t.match(sandboxes.asked.at(-1)?.params, { cgroup: '/a/b' });
  sandboxes.answer = () => 'executable file `nosuch` not found in $PATH: No such file or directory';
  await failure(
    t,
    run(['exec', '-d', 'c', 'nosuch']),
    /^tsvmm: executable file `nosuch` not found in \$PATH/,
    255,
  );
  await failure(t, run(['exec', 'c', 'nosuch']), /^tsvmm: executable file `nosuch` not found in \$PATH/, 255);
  const refuse = (args: string[], message: RegExp) => failure(t, run(['exec', ...args]), message, 255);
  await refuse([], /exec: the ID is missing/);
  await refuse(['c'], /exec: the command is missing/);
  await refuse(['none', 'ls'], /container "none" does not exist/);
  await refuse(['gone', 'ls'], /cannot exec in a stopped container/);
  await refuse(['paused', 'ls'], /cannot exec in a paused container \(use --ignore-paused to override\)/);
  await refuse(['-dt', 'c', 'ls'], /--detach with a terminal needs --console-socket/);
  await refuse(
    ['--console-socket', '/x', 'c', 'ls'],
    /--console-socket is for a detached process with a terminal/,
  );
  await refuse(['--user', 'root', 'c', 'ls'], /--user: expected numbers of users or groups, got "root"/);
  await refuse(['--cwd', 'x', 'c', 'ls'], /--cwd: expected an absolute path, got x/);
  await refuse(['--cgroup', '..', 'c', 'ls'], /--cgroup: \.\. is not a sub cgroup path/);
  await refuse(['--cgroup', 'cpu:x', 'c', 'ls'], /--cgroup: cpu:x: the guest has the unified hierarchy/);
  await refuse(['--preserve-fds', '1', 'c', 'ls'], /--preserve-fds 1: descriptor 3 is not open/);
  await refuse(['--process', '/none', 'c'], /--process: \/none: no such file or folder/);
  writeFileSync(path, '{"cwd":"/","args":[]}');
  await refuse(
    ['--process', path, 'c'],
    /process\.json: process\.args: expected an array of strings, at least one/,
  );
  writeFileSync(path, '{');
  await refuse(['-p', path, 'c'], /process\.json: not JSON/);
});

t.test('spec and features', async (t) => {
  const { root } = new FakeSandboxes(t);
  t.same(await tsvmm(['spec', '--bundle', root]), { status: 0, stdout: '', stderr: '' });
  const spec = JSON.parse(readFileSync(join(root, 'config.json'), 'utf8'));
  t.match(spec, { ociVersion: '1.3.0', process: { terminal: true, args: ['sh'] }, root: { path: 'rootfs' } });
  await failure(t, tsvmm(['spec', '-b', root]), /config\.json exists: remove it first/);
  t.equal((await tsvmm(['spec', '-b', root, '-f', 'rootless.json', '--rootless'])).status, 0);
  const rootless = JSON.parse(readFileSync(join(root, 'rootless.json'), 'utf8'));
  t.same(
    rootless.linux.namespaces.map(({ type }: { type: string }) => type),
    ['pid', 'ipc', 'uts', 'mount', 'cgroup', 'user'],
  );
  t.same(rootless.linux.uidMappings, [{ containerID: 0, hostID: process.getuid?.(), size: 1 }]);
  await failure(t, tsvmm(['spec', '-b', join(root, 'none')]), /none\/config\.json: no such file or folder/);
  t.ok(!existsSync(join(root, 'none')));
  const features = JSON.parse((await tsvmm(['features'])).stdout);
  t.match(features, {
    ociVersionMin: '1.0.0',
    ociVersionMax: '1.3.0',
    hooks: ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'],
    linux: { cgroup: { v1: false, v2: true }, seccomp: { enabled: true }, selinux: { enabled: false } },
  });
  t.ok(features.mountOptions.includes('rbind') && features.linux.capabilities.includes('CAP_BPF'));
});
