import { copyFileSync, existsSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { makeBundle, memoryFolder } from '../support/bundle.js';
import { tsvmm } from '../support/tsvmm.js';

const EXERCISE = join(packageRoot(), 'out/guest-programs/fs-exercise');
const NAMES = [
  'file content',
  'append',
  'unlinked while open',
  'shared mapping',
  'sparse files',
  'temporary file',
  'names and links',
  'many entries',
  'special files',
  'attributes',
  'other users',
  'extended attributes',
  'locks',
  'programs',
  'many processes',
];

t.test('a root file system on virtio-fs does what programs expect of one', async (t) => {
  const shared = memoryFolder(t);
  const script =
    '/bin/fs-exercise /work; echo; fs-exercise --compare /tmpfs; echo; fs-exercise --compare /shared';
  const bundle = makeBundle(t, script, (spec) => {
    spec.mounts?.push(
      { destination: '/tmpfs', type: 'tmpfs', source: 'tmpfs' },
      { destination: '/shared', type: 'bind', source: shared, options: ['rbind'] },
    );
  });
  const root = join(bundle, 'rootfs');
  copyFileSync(EXERCISE, join(root, 'bin/fs-exercise'));
  mkdirSync(join(root, 'work'));
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.equal(stderr, '');
  const [cases, local, served] = stdout.split('\n\n').map((part) => part.trim().split('\n'));
  t.same(
    cases,
    NAMES.map((name) => `ok ${name}`),
  );
  t.equal(status, 0);
  t.ok(local !== undefined && local.length > 500, 'some hundred calls');
  t.same(served, local, 'a shared tmpfs answers them as a tmpfs does');

  // What the guest did is on the host, with its owners, modes and types.
  const file = (name: string) => join(root, 'work', name);
  t.equal(readFileSync(file('log'), 'latin1'), 'ab'.repeat(10));
  t.equal(readFileSync(file('theirs/file'), 'latin1'), 'mine');
  t.equal(lstatSync(file('theirs/file')).uid, 1000);
  t.equal(lstatSync(file('theirs/link')).uid, 1000);
  t.equal(lstatSync(file('setgid/dir')).mode & 0o7777, 0o2755);
  t.equal(lstatSync(file('setgid/dir')).gid, 50);
  t.ok(lstatSync(file('null')).isCharacterDevice());
  t.ok(lstatSync(file('fifo')).isFIFO());
  t.ok(lstatSync(file('d/out')).isSymbolicLink());
  t.notOk(existsSync(file('gone')));
});

t.test('a read-only share is read-only whatever the guest tries', async (t) => {
  const bundle = makeBundle(
    t,
    'for c in "touch /new" "rm /etc/group" "mkdir /d" "mv /etc /e" "chmod 777 /etc" "sh -c echo>/etc/group"; do $c 2>/dev/null && echo "$c"; done; cat /etc/group',
    (spec) => {
      spec.root = { path: 'rootfs', readonly: true };
    },
  );
  const { stdout } = await tsvmm(['run', bundle]);
  t.equal(stdout, 'root:x:0:\nuser:x:1000:\n');
});
