import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { guestMounts } from '../../../src/runtime/guest-mounts.js';
import type { Mount } from '../../../src/runtime/spec/types.js';
import { temporaryFolder } from '../../support/bundle.js';

/** A folder with a folder, a file, a link and a pipe in it. */
function hostFolder(t: Parameters<typeof temporaryFolder>[0]): string {
  const folder = realpathSync(temporaryFolder(t));
  mkdirSync(join(folder, 'volume'));
  writeFileSync(join(folder, 'file'), '');
  symlinkSync('volume', join(folder, 'link'));
  spawnSync('mkfifo', [join(folder, 'pipe')]);
  return folder;
}

/** A device that machines have not: any machine that runs tests has one. */
function device(): string {
  const found = ['/dev/kvm', '/dev/cpu_dma_latency', '/dev/loop-control', '/dev/hpet'].find((path) =>
    existsSync(path),
  );
  if (found === undefined) throw new Error('this machine has none of the devices that the test knows');
  return found;
}

t.test('each source is an export, named by the index of its mount', async (t) => {
  const folder = hostFolder(t);
  const options = ['rbind', 'ro', 'nosuid', 'rprivate'];
  const mounts: Mount[] = [
    { destination: '/proc', type: 'proc', source: 'proc' },
    { destination: '/data', type: 'bind', source: 'volume' },
    { destination: '/etc/hosts', source: join(folder, 'file'), options },
  ];
  const warnings: string[] = [];
  const result = guestMounts(mounts, folder, warnings);
  t.same(result.mounts, [
    mounts[0],
    { destination: '/data', type: 'bind', source: 'mounts/1', options: ['rbind'] },
    { destination: '/etc/hosts', source: 'mounts/2', options },
  ]);
  t.same(result.exports, [
    { name: '1', path: join(folder, 'volume'), readOnly: false },
    { name: '2', path: join(folder, 'file'), readOnly: true },
  ]);
  t.same([...result.files], ['/etc/hosts']);
  t.same(warnings, []);
});

t.test('one source of several mounts is one export, writable if one of them is', async (t) => {
  const folder = hostFolder(t);
  const at = (source: string, ...options: string[]): Mount => ({
    destination: '/d',
    type: 'bind',
    source,
    options,
  });
  const readOnly = (...mounts: Mount[]) =>
    guestMounts(mounts, folder, []).exports.map((item) => item.readOnly);
  t.same(readOnly(at('volume', 'ro'), at('./link', 'ro')), [true]);
  t.same(readOnly(at('volume', 'ro'), at('link')), [false]);
  t.same(readOnly(at('volume'), at('link', 'ro')), [false]);
  t.same(readOnly(at('volume', 'rw', 'ro')), [true], 'the last word counts');
  t.same(readOnly(at('volume', 'ro', 'rw')), [false]);
  t.same(readOnly(at('volume', 'rro')), [true]);
});

t.test("what the kernel or a driver makes is the guest's", async (t) => {
  const mounts: Mount[] = ['/sys', '/proc/cpuinfo', '/dev', '/dev/mqueue', '/dev/pts', '/dev/null'].map(
    (source) => ({
      destination: source,
      source,
      type: 'bind',
      options: ['rbind', 'ro'],
    }),
  );
  const { mounts: guest, exports } = guestMounts(mounts, '/', []);
  t.same(guest, mounts);
  t.same(exports, []);
  const shm = guestMounts([{ destination: '/dev/shm', source: '/dev/shm', type: 'bind' }], '/', []);
  t.equal(shm.exports.length, 1, 'but files that others put in a tmpfs are not');
});

t.test('who listens at a socket or pipe is not reached, with a warning', async (t) => {
  const folder = hostFolder(t);
  const warnings: string[] = [];
  const { exports } = guestMounts([{ destination: '/p', source: 'pipe', type: 'bind' }], folder, warnings);
  t.equal(exports.length, 1);
  t.equal(warnings.length, 1);
  t.match(warnings[0], /^mounts\[0\]: .*\/pipe is a pipe of the host/);
});

t.test('what cannot work is refused by name', async (t) => {
  const folder = hostFolder(t);
  const cases: [Mount, RegExp][] = [
    [
      { destination: '/data', type: 'bind', source: 'gone' },
      /^config\.json: mounts\[0\]: the source of the bind mount on \/data: \/.*\/gone: no such file or folder$/,
    ],
    [{ destination: '/data', type: 'bind', source: 'file/x' }, /a part of the path is not a folder/],
    [{ destination: '/data', type: 'bind' }, /mounts\[0\]: the bind mount on \/data has no source/],
    [
      { destination: '/d', type: 'ext4', source: '/dev/sda1' },
      /mounts\[0\]: the mount on \/d has type "ext4"/,
    ],
    [{ destination: '/d' }, /mounts\[0\]: the mount on \/d has no type/],
    [{ destination: '/d', source: device(), options: ['bind'] }, / \(c \d+:\d+\) is a device of the host/],
    [{ destination: '/d', source: 'volume', options: ['bind', 'idmap'] }, /maps user or group IDs/],
    [{ destination: '/d', source: 'volume', type: 'bind', uidMappings: [{}] }, /maps user or group IDs/],
  ];
  for (const [mount, message] of cases) {
    t.throws(() => guestMounts([mount], folder, []), { name: 'UserError', message });
  }
});
