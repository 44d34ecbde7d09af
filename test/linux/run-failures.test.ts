import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeBundle, temporaryFolder } from '../support/bundle.js';
import { makeInitramfs } from '../support/initramfs.js';
import { tsvmm } from '../support/tsvmm.js';

t.test('a guest that does not do what it should', async (t) => {
  const bundle = makeBundle(t, 'echo never');
  const run = (script: string, ...options: string[]) =>
    tsvmm(['run', '--initrd', makeInitramfs(t, script), ...options, bundle]);

  const panic = await run('echo last words; exit 1');
  t.same([panic.status, panic.stdout], [125, '']);
  t.match(panic.stderr, /^tsvmm: the guest's kernel panicked: .*Attempted to kill init/);
  t.match(panic.stderr, /^ {2}\| last words$/m, "the console's last lines follow");

  const off = await run('poweroff -f');
  t.equal(off.status, 125);
  t.match(off.stderr, /^tsvmm: the guest powered off before its process had ended\n/);

  const silent = await run('echo silent; sleep 1000', '--boot-timeout', '30');
  t.equal(silent.status, 125);
  t.match(silent.stderr, /^tsvmm: the guest did not answer within 30 seconds\n(.*\n)* {2}\| silent\n$/);
});

t.test('a full disk below the root file system', async (t) => {
  const folder = temporaryFolder(t);
  const bundle = makeBundle(
    t,
    'dd if=/dev/zero of=/small/file bs=64k count=100 2>&1 | grep -o "No space left on device"; ls /small; exit 6',
  );
  mkdirSync(join(bundle, 'rootfs/small'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'small', join(bundle, 'rootfs/small')]);
  t.teardown(() => execFileSync('umount', [join(bundle, 'rootfs/small')]));
  t.ok(folder);
  t.same(await tsvmm(['run', bundle]), { status: 6, stdout: 'No space left on device\nfile\n', stderr: '' });
});

t.test('the root file system in a raw image', async (t) => {
  const bundle = makeBundle(t, 'cat /etc/group; echo more > /root/new; sync; exit 8');
  const image = join(temporaryFolder(t), 'root.img');
  execFileSync('/usr/sbin/mke2fs', ['-q', '-t', 'ext4', '-d', join(bundle, 'rootfs'), image, '32m']);
  const withImage = makeBundle(t, 'cat /etc/group; echo more > /root/new; exit 8', (spec) => {
    spec.vm = { image: { path: image, format: 'raw' } };
  });
  const { status, stdout, stderr } = await tsvmm(['run', withImage]);
  t.same({ status, stderr }, { status: 8, stderr: '' });
  t.match(stdout, 'root:x:0:');
  const written = execFileSync('/usr/sbin/debugfs', ['-R', 'cat /root/new', image], {
    encoding: 'utf8',
    stdio: 'pipe',
  });
  t.equal(written, 'more\n');
  writeFileSync(image, Buffer.alloc(1 << 20));
  const broken = await tsvmm(['run', withImage]);
  t.equal(broken.status, 125);
  t.match(broken.stderr, /^tsvmm: .*\/dev\/vda/);
});
