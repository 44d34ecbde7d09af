import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { checkId, loadBundle } from '../../../src/runtime/bundle.js';
import { guestFilePlaces, guestFiles } from '../../../src/runtime/guest-files.js';
import type { Spec } from '../../../src/runtime/spec/types.js';
import { sampleSpec } from '../../support/spec.js';

function bundle(t: Test, change: (spec: Spec) => void = () => {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'tsvmm-bundle-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'rootfs'));
  writeFileSync(join(folder, 'disk.img'), 'x');
  const spec = sampleSpec();
  change(spec);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(spec));
  return folder;
}

t.test('the root file system is found', async (t) => {
  const folder = bundle(t);
  t.same(loadBundle(folder).root, { type: 'directory', directory: join(folder, 'rootfs') });
  const absolute = bundle(t, (spec) => {
    spec.root.path = '/usr';
  });
  t.same(loadBundle(absolute).root, { type: 'directory', directory: '/usr' });
  const linked = bundle(t, (spec) => {
    spec.root.path = 'link';
  });
  symlinkSync('rootfs', join(linked, 'link'));
  t.same(loadBundle(linked).root, { type: 'directory', directory: join(linked, 'link') });
});

t.test('the configuration may have another name', async (t) => {
  const folder = bundle(t);
  writeFileSync(join(folder, 'other.json'), JSON.stringify({ ...sampleSpec(), root: { path: '/usr' } }));
  t.same(loadBundle(folder, 'other.json').root, { type: 'directory', directory: '/usr' });
  t.throws(() => loadBundle(folder, 'none.json'), { message: /none\.json: no such file/ });
});

t.test('proc and sysfs are not mounted where a link leads', async (t) => {
  for (const name of ['proc', 'sys']) {
    const folder = bundle(t, (spec) => {
      spec.mounts = [{ type: name === 'sys' ? 'sysfs' : 'proc', source: name, destination: `/${name}` }];
    });
    symlinkSync('/elsewhere', join(folder, 'rootfs', name));
    t.throws(() => loadBundle(folder), {
      message: new RegExp(`mounts\\[0\\]: /${name} must be mounted on ordinary directory`),
    });
  }
});

t.test('a raw image takes its place', async (t) => {
  const image = (path: string, format: 'raw' | 'qcow2') =>
    bundle(t, (spec) => {
      spec.vm = { image: { path, format } };
    });
  const folder = bundle(t);
  const disk = join(folder, 'disk.img');
  t.same(loadBundle(image(disk, 'raw')).root, { type: 'image', path: disk });
  t.throws(() => loadBundle(image(disk, 'qcow2')), {
    message: 'config.json: vm.image.format: expected "raw", got "qcow2"',
  });
  t.throws(() => loadBundle(image('/no/disk', 'raw')), {
    message: 'config.json: vm.image.path: /no/disk: no such file or folder',
  });
  t.throws(() => loadBundle(image(folder, 'raw')), { message: /expected a file or a block device/ });
});

t.test('what is not there is named', async (t) => {
  t.throws(() => loadBundle('/no/such'), { message: 'bundle /no/such: no such file or folder' });
  t.throws(() => loadBundle('/etc/passwd'), { message: 'bundle /etc/passwd: not a folder' });
  const folder = bundle(t, (spec) => {
    spec.root.path = 'none';
  });
  t.throws(() => loadBundle(folder), {
    message: `config.json: root.path: ${folder}/none: no such file or folder`,
  });
  const file = bundle(t, (spec) => {
    spec.root.path = 'config.json';
  });
  t.throws(() => loadBundle(file), { message: /root\.path: .*config\.json: not a folder/ });
});

t.test('container IDs are what runc takes', async (t) => {
  for (const id of ['a', 'A-b_c+d.e', '0', '...']) t.doesNotThrow(() => checkId(id), id);
  for (const id of ['', '.', '..', 'a/b', 'a b', 'ä', 'a\n', '../x', 'x'.repeat(256)]) {
    t.throws(() => checkId(id), { name: 'UserError', message: /^container ID/ }, JSON.stringify(id));
  }
});

t.test("the guest's kernel and initramfs", async (t) => {
  t.same(guestFilePlaces('kernel', { TSVMM_KERNEL: '/k' }), ['/k']);
  t.match(guestFilePlaces('initrd', {}), [/guest\/out\/initramfs\.cpio$/, '/usr/share/tsvmm/initramfs.cpio']);
  t.same(guestFiles({ kernel: '/a', initrd: '/b' }), { kernel: '/a', initrd: '/b' });
  const before = process.env.TSVMM_KERNEL;
  t.teardown(() => {
    if (before === undefined) delete process.env.TSVMM_KERNEL;
    else process.env.TSVMM_KERNEL = before;
  });
  process.env.TSVMM_KERNEL = '/no/kernel';
  t.throws(() => guestFiles({ initrd: '/b' }), {
    message: /^there is no guest kernel \(looked for \/no\/kernel\)/,
  });
});
