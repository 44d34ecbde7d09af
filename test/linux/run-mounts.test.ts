import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Spec } from '../../src/runtime/spec/types.js';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { tsvmm } from '../support/tsvmm.js';

/** `options PATH`: the flags of a mount. `unlock PATH`: takes away what the guest's kernel guards; only the host is left to refuse. */
const FUNCTIONS = `
  options() { grep " $1 " /proc/self/mounts | tail -n 1 | cut -d' ' -f4 | tr , '\\n' | grep -xE 'ro|rw|nosuid|nodev|noexec' | xargs; }
  unlock() { mount -o remount,bind,rw "$1"; }
  refused() { "$@" 2>&1 | grep -o 'Read-only file system' || echo "done: $*"; }
`;

function allowMounting(spec: Spec): void {
  for (const set of ['effective', 'permitted', 'bounding'] as const)
    spec.process.capabilities?.[set]?.push('CAP_SYS_ADMIN');
}

t.test('bind mounts of folders and files, all over one share', async (t) => {
  const host = temporaryFolder(t);
  const file = (name: string) => join(host, name);
  const many = Array.from({ length: 30 }, (_, index) => `many${index}`);
  for (const name of ['inner', 'config', ...many]) {
    mkdirSync(file(name));
    writeFileSync(join(file(name), 'name'), `${name}\n`);
  }
  writeFileSync(file('hosts'), '127.0.0.1 here\n');
  writeFileSync(file('settings'), 'first\n');
  symlinkSync('inner', file('link'));
  const listener = spawn('python3', [
    '-c',
    'import socket,sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); print(flush=True); sys.stdin.read()',
    file('socket'),
  ]);
  t.teardown(() => listener.stdin.end());
  await new Promise((resolve) => listener.stdout.once('data', resolve));
  const bundle = makeBundle(
    t,
    `${FUNCTIONS}
    echo "data: $(cat /data/from-host) $(options /data)"
    echo "inner: $(cat /data/inner/name)"
    echo "config: $(cat /very/deep/config/name) $(options /very/deep/config)"
    echo "hosts: $(cat /etc/hosts)"
    echo "settings: $(cat /opt/settings)"
    echo "link: $(cat /link/name)"
    echo "many: $(cat /many/many*/name | sort | uniq | wc -l)"
    echo "null: $(stat -c %t:%T /my-null; echo x > /my-null)"
    echo "socket: $(stat -c %F /run/socket)"
    echo second > /opt/settings
    echo made > /data/new
    chown 1000:1001 /data/new
    echo more >> /again/new
    echo "again: $(cat /data/new | xargs)"
    dd if=/dev/zero of=/data/large bs=64k count=64 2>/dev/null
    mv /data/large /data/moved
    unlock /very/deep/config; unlock /etc/hosts
    echo "now: $(options /very/deep/config)"
    refused touch /very/deep/config/new
    refused chmod 777 /very/deep/config
    refused sh -c 'echo x > /etc/hosts'
    ln /data/new /many/many1/hard 2>&1 | grep -o 'cross-device link'
    `,
    (spec, folder) => {
      allowMounting(spec);
      mkdirSync(join(folder, 'volume'));
      writeFileSync(join(folder, 'volume/from-host'), 'hello\n');
      const flags = ['nosuid', 'nodev', 'rprivate'];
      spec.mounts?.push(
        { destination: '/data', source: 'volume', type: 'bind', options: ['rbind', ...flags] },
        { destination: '/data/inner', source: file('inner'), options: ['bind'] },
        {
          destination: '/very/deep/config',
          source: file('config'),
          options: ['rbind', 'ro', 'noexec', ...flags],
        },
        { destination: '/etc/hosts', source: file('hosts'), type: 'bind', options: ['bind', 'ro'] },
        { destination: '/opt/settings', source: file('settings'), type: 'bind', options: ['rw'] },
        { destination: '/link', source: file('link'), type: 'bind' },
        { destination: '/again', source: join(folder, 'volume'), type: 'bind' },
        { destination: '/my-null', source: '/dev/null', type: 'bind', options: ['bind'] },
        { destination: '/run/socket', source: file('socket'), type: 'bind', options: ['bind'] },
        ...many.map((name) => ({ destination: `/many/${name}`, source: file(name), type: 'bind' })),
      );
    },
  );
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.match(stderr, /^tsvmm: warning: config\.json: mounts\[15\]: .*\/socket is a socket of the host; .*\n$/);
  t.same(stdout.trim().split('\n'), [
    'data: hello rw nosuid nodev',
    'inner: inner',
    'config: config ro nosuid nodev noexec',
    'hosts: 127.0.0.1 here',
    'settings: first',
    'link: inner',
    'many: 30',
    'null: 1:3',
    'socket: socket',
    'again: made more',
    'now: rw nosuid nodev noexec',
    'Read-only file system',
    'Read-only file system',
    'Read-only file system',
    'cross-device link',
  ]);
  t.equal(status, 0);

  const volume = join(bundle, 'volume');
  t.equal(readFileSync(join(volume, 'new'), 'utf8'), 'made\nmore\n');
  t.match(statSync(join(volume, 'new')), { uid: 1000, gid: 1001 });
  t.equal(statSync(join(volume, 'moved')).size, 64 * 65536);
  t.ok(statSync(join(volume, 'inner')).isDirectory(), 'a mount point in a volume is made there');
  t.equal(readFileSync(file('settings'), 'utf8'), 'second\n');
  t.equal(readFileSync(file('hosts'), 'utf8'), '127.0.0.1 here\n');
  t.notOk(existsSync(file('config/new')));
  for (const [path, folder] of [
    ['very/deep/config', true],
    ['opt/settings', false],
    ['link', true],
  ] as const)
    t.equal(statSync(join(bundle, 'rootfs', path)).isDirectory(), folder, `${path} is made as runc makes it`);
});

t.test('a read-only root file system gets its mount points, and then the host refuses changes', async (t) => {
  const bundle = makeBundle(
    t,
    `${FUNCTIONS}
    echo "cwd: $(pwd)"
    echo "data: $(cat /var/run/data/name)"
    echo kept > /var/run/data/new
    mount -o remount,rw / && options /
    refused touch /new
    refused rm /bin/busybox
    `,
    (spec, folder) => {
      allowMounting(spec);
      spec.root.readonly = true;
      spec.process.cwd = '/srv/place';
      mkdirSync(join(folder, 'rootfs/var'));
      symlinkSync('/../../run', join(folder, 'rootfs/var/run'));
      mkdirSync(join(folder, 'data'));
      writeFileSync(join(folder, 'data/name'), 'data\n');
      spec.mounts?.push({ destination: '/var/run/data', source: 'data', type: 'bind' });
    },
  );
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.same({ status, stderr }, { status: 0, stderr: '' });
  t.same(stdout.trim().split('\n'), [
    'cwd: /srv/place',
    'data: data',
    'rw',
    'Read-only file system',
    'Read-only file system',
  ]);
  t.equal(
    readFileSync(join(bundle, 'data/new'), 'utf8'),
    'kept\n',
    'written back though the root is read-only',
  );
  t.ok(existsSync(join(bundle, 'rootfs/run/data')), 'links of the root file system lead inside it');
});

t.test('two containers and the host change a volume at once', async (t) => {
  const volume = temporaryFolder(t);
  const script = (mine: string, other: string) => `
    echo ${mine} > /volume/${mine}-new && mv /volume/${mine}-new /volume/${mine}
    until [ -e /volume/${other}-is-there ]; do [ -e /volume/${other} ] && touch /volume/${mine}-saw-it; done
    cat /volume/${other} /volume/log
    `;
  const run = (mine: string, other: string) =>
    tsvmm([
      'run',
      makeBundle(t, script(mine, other), (spec) => {
        spec.mounts?.push({ destination: '/volume', source: volume, type: 'bind', options: ['rbind', 'rw'] });
      }),
    ]);
  const changes = watch(volume);
  t.teardown(() => changes.close());
  changes.on('change', () => {
    if (!existsSync(join(volume, 'one-saw-it')) || !existsSync(join(volume, 'two-saw-it'))) return;
    changes.close();
    writeFileSync(join(volume, 'log'), 'host\n');
    for (const name of ['one', 'two']) writeFileSync(join(volume, `${name}-is-there`), '');
  });
  const [one, two] = await Promise.all([run('one', 'two'), run('two', 'one')]);
  t.same(one, { status: 0, stdout: 'two\nhost\n', stderr: '' });
  t.same(two, { status: 0, stdout: 'one\nhost\n', stderr: '' });
});
