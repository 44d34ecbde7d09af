import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { guestFiles } from '../../src/runtime/guest-files.js';
import { makeBundle } from '../support/bundle.js';
import { sha256, tsvmm } from '../support/tsvmm.js';

/** What `name: value` lines say. */
function table(text: string): Record<string, string> {
  return Object.fromEntries(
    text
      .split('\n')
      .map((line) => /^([^:]+): ?(.*)$/.exec(line))
      .flatMap((match) => (match === null ? [] : [[match[1], match[2]]])),
  );
}

t.test('the process is as the specification describes it', async (t) => {
  const bundle = makeBundle(
    t,
    `
    echo "args: $0 $1"
    echo "user: $(id -u) $(id -g) $(id -G)"
    echo "umask: $(umask)"
    echo "env: $GREETING $HOME"
    echo "cwd: $(pwd)"
    echo "hostname: $(hostname)"
    echo "domainname: $(cat /proc/sys/kernel/domainname)"
    echo "nofile: $(ulimit -Sn) $(ulimit -Hn)"
    echo "core: $(ulimit -c)"
    grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '
    echo "oom: $(cat /proc/self/oom_score_adj)"
    echo "pid: $$"
    echo "shmmax: $(cat /proc/sys/kernel/shmmax)"
    echo "masked: $(cat /proc/interrupts | wc -c) $(ls /sys/kernel | wc -l)"
    { echo 1 > /proc/sys/kernel/shmmax; } 2>/dev/null && echo "readonly: no" || echo "readonly: yes"
    echo "shm: $(stat -f -c %T /dev/shm)"
    echo "pts: $(stat -f -c %t /dev/pts)"
    echo "mqueue: $(grep -c ' /dev/mqueue mqueue ' /proc/mounts)"
    echo "cgroup: $(grep -c ' /sys/fs/cgroup cgroup2 ' /proc/mounts)"
    echo "sysfs: $(grep ' /sys sysfs ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1)"
    echo "null: $(stat -c %t:%T /dev/null) $(readlink /dev/stdin)"
    echo "mkdir: $(mkdir /tmp/x 2>&1)"
    echo "interfaces: $(ls /sys/class/net | tr '\\n' ' ')"
    `,
    (spec) => {
      const { process, linux } = spec;
      process.args = ['/bin/sh', '-c', process.args[2] ?? '', 'zero', 'one two'];
      process.user = { uid: 1000, gid: 1000, umask: 0o27, additionalGids: [5, 2000] };
      process.env = ['PATH=/bin', 'GREETING=hällo wörld', 'HOME=/home/user'];
      process.cwd = '/home/user';
      process.rlimits = [
        { type: 'RLIMIT_NOFILE', soft: 512, hard: 768 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ];
      const some = ['CAP_KILL', 'CAP_NET_BIND_SERVICE'];
      process.capabilities = {
        bounding: some,
        permitted: some,
        effective: some,
        inheritable: some,
        ambient: some,
      };
      process.oomScoreAdj = 77;
      spec.domainname = 'example.org';
      if (linux === undefined) return;
      linux.maskedPaths = ['/proc/interrupts', '/sys/kernel', '/proc/no/such'];
      linux.sysctl = { 'kernel.shmmax': '123456' };
      linux.seccomp = {
        defaultAction: 'SCMP_ACT_ALLOW',
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }],
      };
    },
  );
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.equal(stderr, '');
  t.equal(status, 0);
  const seen = table(Buffer.from(stdout, 'latin1').toString('utf8'));
  t.match(seen, {
    args: 'zero one two',
    user: '1000 1000 1000 5 2000',
    umask: '0027',
    env: 'hällo wörld /home/user',
    cwd: '/home/user',
    hostname: 'tsvmm-test',
    domainname: 'example.org',
    nofile: '512 768',
    core: '0',
    CapInh: '0000000000000420',
    CapPrm: '0000000000000420',
    CapEff: '0000000000000420',
    CapBnd: '0000000000000420',
    CapAmb: '0000000000000420',
    NoNewPrivs: '1',
    Seccomp: '2',
    oom: '77',
    pid: '1',
    shmmax: '123456',
    masked: '0 0',
    readonly: 'yes',
    shm: 'tmpfs',
    pts: '1cd1',
    mqueue: '1',
    cgroup: '1',
    sysfs: 'ro',
    null: '1:3 /proc/self/fd/0',
    mkdir: /No space left on device/,
    interfaces: 'lo ',
  });
});

t.test("the root file system is the bundle's folder", async (t) => {
  const bundle = makeBundle(
    t,
    `
    set -e
    cat /etc/from-host
    echo written > /root/file
    mkdir -m 750 /root/folder
    ln -s file /root/link
    ln /root/file /root/hard
    mv /root/folder /root/moved
    chown 1000:1001 /root/file
    chmod 4711 /root/file
    touch -d '2001-02-03 04:05:06' /root/moved
    dd if=/dev/urandom of=/root/large bs=1M count=8 2>/dev/null
    sha256sum /root/large | cut -d' ' -f1
    rm /etc/from-host
    mknod /root/fifo p
    for i in $(seq 1 300); do echo $i > /tmp/f$i; done
    ls /tmp | wc -l
    sync
    `,
  );
  const root = join(bundle, 'rootfs');
  writeFileSync(join(root, 'etc/from-host'), 'from the host\n');
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.equal(stderr, '');
  t.equal(status, 0);
  const [greeting, hash, count] = stdout.split('\n');
  t.equal(greeting, 'from the host');
  t.equal(count, '300');
  t.equal(sha256(readFileSync(join(root, 'root/large'))), hash);
  t.equal(readFileSync(join(root, 'root/link'), 'utf8'), 'written\n');
  const file = statSync(join(root, 'root/file'));
  t.same([file.uid, file.gid, file.mode & 0o7777, file.nlink], [1000, 1001, 0o4711, 2]);
  const moved = statSync(join(root, 'root/moved'));
  t.equal(moved.mtime.toISOString(), '2001-02-03T04:05:06.000Z');
  t.equal(moved.mode & 0o777, 0o750);
  t.ok(statSync(join(root, 'root/fifo')).isFIFO());
  t.notOk(existsSync(join(root, 'etc/from-host')));
});

t.test('a read-only root file system, and a process of another user', async (t) => {
  const bundle = makeBundle(
    t,
    `
    { echo x > /new; } 2>/dev/null && echo "root: written" || echo "root: read-only"
    echo x > /dev/shm/new && echo "shm: written"
    cat /etc/secret 2>/dev/null || echo "secret: denied"
    `,
    (spec) => {
      spec.root.readonly = true;
      spec.process.user = { uid: 1000, gid: 1000 };
      spec.process.capabilities = {};
    },
  );
  const secret = join(bundle, 'rootfs/etc/secret');
  writeFileSync(secret, 'secret');
  chmodSync(secret, 0o600);
  const { status, stdout, stderr } = await tsvmm(['run', '--bundle', bundle]);
  t.same({ status, stderr }, { status: 0, stderr: '' });
  t.equal(stdout, 'root: read-only\nshm: written\nsecret: denied\n');
  t.notOk(existsSync(join(bundle, 'rootfs/new')));
});

t.test('what the runtime in the guest refuses is told', async (t) => {
  const bundle = makeBundle(t, '', (spec) => {
    spec.process.args = ['/no/such/program'];
  });
  const missing = await tsvmm(['run', bundle]);
  t.equal(missing.status, 125);
  t.equal(missing.stdout, '');
  t.match(missing.stderr, /^tsvmm: .*\/no\/such\/program.*[Nn]o such file/m);
});

t.test('the bundle sizes the machine, and the vm section chooses it', async (t) => {
  const script = `
    echo "cpus: $(nproc)"
    echo "memory: $(awk '/MemTotal/ {print $2}' /proc/meminfo)"
    echo "limit: $(cat /sys/fs/cgroup/memory.max)"
    echo "quota: $(cat /sys/fs/cgroup/cpu.max)"
    echo "cmdline: $(cat /proc/cmdline)"
  `;
  const limited = makeBundle(t, script, ({ linux }) => {
    if (linux === undefined) return;
    linux.resources = { memory: { limit: 64 << 20 }, cpu: { quota: 150_000, period: 100_000, cpus: '0-1' } };
  });
  const first = table((await tsvmm(['run', limited])).stdout);
  t.equal(first.cpus, String(Math.min(2, availableParallelism())), 'no more than the host has');
  t.equal(first.limit, String(64 << 20));
  t.equal(first.quota, '150000 100000');
  t.ok(
    Number(first.memory) > 96 * 1024 && Number(first.memory) <= 128 * 1024,
    `${first.memory} KiB of 128 MiB`,
  );
  const chosen = makeBundle(t, script, (spec) => {
    spec.vm = {
      kernel: { path: guestFiles({}).kernel, parameters: ['tsvmm_test=1'] },
      hwConfig: { vcpus: 2, memory: 192 << 20 },
    };
  });
  const second = table((await tsvmm(['run', '--memory', '160M', chosen])).stdout);
  t.equal(second.cpus, '2');
  t.match(second.cmdline, / tsvmm_test=1( |$)/);
  t.ok(
    Number(second.memory) > 128 * 1024 && Number(second.memory) <= 160 * 1024,
    `${second.memory} KiB of 160 MiB`,
  );
});
