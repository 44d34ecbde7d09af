import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { Containers } from '../support/container.js';

const MIB = 1 << 20;

interface Stats {
  readonly type: string;
  readonly id: string;
  readonly data: {
    readonly cpu: { readonly usage: { readonly total: number } };
    readonly memory: { readonly usage: { readonly limit: number; readonly usage: number } };
    readonly pids: { readonly current: number; readonly limit: number };
  };
}

t.test('what one asks of a container, and changes of it', async (t) => {
  const containers = new Containers(t);
  const bundle = makeBundle(t, 'sleep 1000 & exec sleep 2000', (spec) => {
    spec.annotations = { 'io.tsvmm.kernel_parameters': 'tsvmm.inspected' };
    if (spec.linux !== undefined) {
      spec.linux.resources = { memory: { limit: 64 * MIB }, pids: { limit: 50 } };
    }
  });
  const run = (...args: string[]) => containers.run(...args);
  const exec = async (...args: string[]) => (await run('exec', 'c', ...args)).stdout;
  t.same(await run('run', '--detach', '--bundle', bundle, 'c'), { status: 0, stdout: '', stderr: '' });
  const { pid } = JSON.parse((await run('state', 'c')).stdout) as { pid: number };

  t.match(await exec('cat', '/proc/cmdline'), / quiet .*tsvmm\.inspected/, 'an annotation');
  t.equal((await run('logs', 'c')).status, 0);

  await t.test('ps', async (t) => {
    const { stdout } = await run('ps', 'c');
    const [heading, ...processes] = stdout.trimEnd().split('\n');
    t.match(heading, /^UID +PID +PPID +C +STIME +TTY +TIME +CMD$/);
    t.match(processes.join('\n'), /^root +1 +0 +0 +\S+ +\? +00:00:\d\d sleep 2000$/m);
    t.match(processes.join('\n'), /^root +\d+ +1 +0 +\S+ +\? +00:00:\d\d sleep 1000$/m);
    t.match((await run('ps', 'c', '-o', 'stat,comm')).stdout, /^S +sleep$/m);
    t.same(JSON.parse((await run('ps', '--format', 'json', 'c')).stdout), [pid]);
  });

  await t.test('events --stats, update', async (t) => {
    const stats = async () => JSON.parse((await run('events', '--stats', 'c')).stdout) as Stats;
    const { type, id, data } = await stats();
    t.same([type, id], ['stats', 'c']);
    t.equal(data.memory.usage.limit, 64 * MIB);
    t.ok(data.memory.usage.usage > 0 && data.memory.usage.usage < 64 * MIB);
    t.ok(data.cpu.usage.total > 0);
    t.match(data.pids, { current: 2, limit: 50 });

    t.same(await run('update', '--memory', '48M', '--pids-limit', '30', 'c'), {
      status: 0,
      stdout: '',
      stderr: '',
    });
    t.match(await stats(), { data: { memory: { usage: { limit: 48 * MIB } }, pids: { limit: 30 } } });
    t.equal(await exec('cat', '/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/pids.max'), `${48 * MIB}\n30\n`);
    const resources = join(temporaryFolder(t), 'resources.json');
    writeFileSync(resources, JSON.stringify({ cpu: { quota: 50_000, period: 100_000, shares: 512 } }));
    t.same(await run('update', '--resources', resources, 'c'), { status: 0, stdout: '', stderr: '' });
    t.equal(await exec('cat', '/sys/fs/cgroup/cpu.max'), '50000 100000\n');
    const refused = await run('update', '--memory', '1G', 'c');
    t.equal(refused.status, 1);
    t.match(
      refused.stderr,
      /^tsvmm: memory limit: 1073741824 bytes are more than the container's machine has, /,
    );
  });

  await t.test('pause and resume', async (t) => {
    t.equal((await run('pause', 'c')).status, 0);
    t.equal(await containers.status('c'), 'paused');
    t.match(await run('exec', 'c', 'true'), { status: 255, stderr: /cannot exec in a paused container/ });
    t.match((await run('ps', 'c')).stdout, /sleep 2000/);
    t.equal((await run('resume', 'c')).status, 0);
    t.equal(await containers.status('c'), 'running');
    t.match(await run('resume', 'c'), { status: 1, stderr: /not paused/ });
    t.equal((await run('exec', 'c', 'true')).status, 0);
  });

  await t.test('exec', async (t) => {
    const { status, stdout, stderr } = await run(
      ...['exec', '--user', '5:6', '--env', 'A=b c', '--cwd', '/tmp', '--cap', 'CAP_SYS_TIME', 'c'],
      ...['sh', '-c', 'id -u; id -g; echo $A; pwd; grep CapBnd /proc/self/status; echo no >&2; exit 9'],
    );
    t.same({ status, stderr }, { status: 9, stderr: 'no\n' });
    t.match(stdout, /^5\n6\nb c\n\/tmp\nCapBnd:\t[0-9a-f]+\n$/);
    const absent = await run('exec', 'c', 'no-such-program');
    t.equal(absent.status, 255);
    t.match(absent.stderr, /^tsvmm: exec: "no-such-program": executable file not found in \$PATH\n$/);
  });
});
