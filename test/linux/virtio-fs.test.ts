import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { makeBundle } from '../support/bundle.js';
import { tsvmm } from '../support/tsvmm.js';

const SOURCE = join(packageRoot(), 'test/linux/guest/fs-exercise.cc');
const NAMES = [
  'file content',
  'append',
  'unlinked while open',
  'shared mapping',
  'names and links',
  'many entries',
  'attributes',
  'other users',
  'special files',
  'sparse files',
  'temporary file',
  'extended attributes',
  'locks',
  'programs',
  'many processes',
];

t.test('a root file system on virtio-fs does what programs expect of one', async (t) => {
  const bundle = makeBundle(t, '/bin/fs-exercise /work');
  const root = join(bundle, 'rootfs');
  execFileSync('g++', ['-std=c++20', '-O0', '-static', SOURCE, '-o', join(root, 'bin/fs-exercise')]);
  mkdirSync(join(root, 'work'));
  const { status, stdout, stderr } = await tsvmm(['run', bundle]);
  t.equal(stderr, '');
  t.same(
    stdout.trim().split('\n'),
    NAMES.map((name) => `ok ${name}`),
  );
  t.equal(status, 0);

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
