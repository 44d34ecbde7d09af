import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { readCpio, writeCpio } from '../../../src/boot/cpio.js';
import { collectModules, moduleOrder, parseModulesDep, readModuleTree } from '../../../src/boot/modules.js';
import { main } from '../../../src/cli/initramfs.js';
import { damaged, elfFile, fixture } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

const DEP = `# a comment
kernel/virtio/virtio.ko:
kernel/virtio/virtio_ring.ko: kernel/virtio/virtio.ko
kernel/virtio/virtio_mmio.ko.gz: kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko
kernel/char/virtio-rng.ko: kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko
kernel/net/vmw_vsock_virtio_transport.ko: kernel/virtio/virtio.ko
`;
const KO = Buffer.from(elfFile([]));

function tree(t: Test, dep = DEP) {
  const dir = t.testdir({
    '6.1.0-test': {
      'modules.dep': dep,
      'modules.builtin': 'kernel/fs/fuse/virtiofs.ko\nkernel/fs/ext4/ext4.ko\n',
      kernel: {
        virtio: { 'virtio.ko': KO, 'virtio_ring.ko': KO, 'virtio_mmio.ko.gz': gzipSync(KO) },
        char: { 'virtio-rng.ko': KO },
        net: { 'vmw_vsock_virtio_transport.ko': KO },
      },
    },
  });
  return join(dir, '6.1.0-test');
}

t.test('dependencies come first, and once', async (t) => {
  const modules = readModuleTree(tree(t));
  t.same(moduleOrder(modules, ['virtio_rng', 'virtio_mmio', 'ext4']), [
    'kernel/virtio/virtio.ko',
    'kernel/virtio/virtio_ring.ko',
    'kernel/char/virtio-rng.ko',
    'kernel/virtio/virtio_mmio.ko.gz',
  ]);
});

t.test('files, unpacked, at the paths of the guest', async (t) => {
  const files = await collectModules(tree(t), ['virtio-mmio', 'virtiofs'], ['virtio_rng', 'virtio_gpu']);
  t.same(
    files.map((file) => file.path),
    ['virtio/virtio.ko', 'virtio/virtio_ring.ko', 'virtio/virtio_mmio.ko', 'char/virtio-rng.ko'].map(
      (path) => `/lib/modules/6.1.0-test/kernel/${path}`,
    ),
  );
  for (const file of files) t.same(Buffer.from(file.data), KO);
});

t.test('a module that is compressed by xz', async (t) => {
  const dir = tree(t, 'kernel/payload.ko.xz:\n');
  // A payload as kernels have it, without the size behind it, is an .xz file.
  writeFileSync(join(dir, 'kernel/payload.ko.xz'), fixture('payload.xz').slice(0, -4));
  const [module] = await collectModules(dir, ['payload'], []);
  t.equal(module?.data.length, 0x24000);
  t.match(module?.path, /payload\.ko$/);
  writeFileSync(join(dir, 'kernel/payload.ko.xz'), fixture('payload.xz').slice(0, 500));
  await t.rejects(collectModules(dir, ['payload'], []), {
    code: 'decompression-failed',
    message: /payload\.ko\.xz: cannot be unpacked \(xz\)/,
  });
});

t.test('what is missing is named', async (t) => {
  const dir = tree(t);
  await t.rejects(collectModules(dir, ['nvme'], []), {
    code: 'module-missing',
    message: /6\.1\.0-test: this kernel has no module nvme, nor is it built in/,
  });
  const circle = tree(t, 'a.ko: b.ko\nb.ko: a.ko\n');
  t.throws(() => moduleOrder(readModuleTree(circle), ['a']), {
    code: 'malformed',
    message: /depends on itself/,
  });
  const dangling = tree(t, 'a.ko: b.ko\n');
  t.throws(() => moduleOrder(readModuleTree(dangling), ['a']), {
    code: 'module-missing',
    message: /no b\.ko/,
  });
  await t.rejects(collectModules(tree(t, 'a.ko:\n'), ['a'], []), {
    code: 'file',
    message: /a\.ko: no such file/,
  });
  const text = tree(t, 'a.ko:\n');
  writeFileSync(join(text, 'a.ko'), 'hello');
  await t.rejects(collectModules(text, ['a'], []), { code: 'malformed', message: /not a kernel module/ });
  t.throws(() => readModuleTree(join(dir, 'nowhere')), {
    code: 'file',
    message: /modules\.dep: no such file/,
  });
  t.throws(() => readModuleTree(join(dir, 'kernel')), { code: 'file', message: /"depmod -b ROOT VERSION"/ });
});

t.test('a chain of dependencies that is too long', async (t) => {
  const lines = Array.from({ length: 5000 }, (_, n) => `m${n}.ko: m${n + 1}.ko\n`).join('');
  t.throws(() => moduleOrder(readModuleTree(tree(t, lines)), ['m0']), {
    code: 'malformed',
    message: /too deep/,
  });
});

t.test('lines that are none of modules.dep', async (t) => {
  for (const line of [
    'no colon',
    ': a.ko',
    'a.txt:',
    '../a.ko:',
    '/a.ko:',
    'a.ko: x/../../b.ko',
    'a.ko: b',
  ]) {
    t.throws(() => parseModulesDep(`ok.ko:\n${line}\n`, 'modules.dep'), {
      code: 'malformed',
      message: /^modules\.dep:2: not a line/,
    });
  }
});

t.test('a damaged modules.dep ends in an order or a BootError', async (t) => {
  const result = await survive(damaged(Buffer.from(DEP), 120, 1000), (bytes) => {
    const files = parseModulesDep(Buffer.from(bytes).toString(), 'modules.dep');
    return moduleOrder({ dir: 'x', files, builtin: new Set() }, ['virtio_mmio']);
  });
  t.same(result.escaped, []);
});

t.test('tsvmm initramfs', async (t) => {
  const dir = tree(t);
  const base = join(dir, 'base.cpio');
  const output = join(dir, 'output.cpio');
  writeFileSync(base, writeCpio([{ path: 'init', mode: 0o100755 }]));
  t.equal(await main(['--modules', dir, '--output', output, '--base', base]), 0);
  const entries = readCpio(readFileSync(output), 'output');
  t.same(
    entries.filter(({ mode }) => (mode & 0o170000) === 0o100000).map(({ path }) => path),
    [
      'init',
      'etc/tsvmm/modules',
      'lib/modules/6.1.0-test/kernel/char/virtio-rng.ko',
      'lib/modules/6.1.0-test/kernel/net/vmw_vsock_virtio_transport.ko',
      'lib/modules/6.1.0-test/kernel/virtio/virtio.ko',
      'lib/modules/6.1.0-test/kernel/virtio/virtio_mmio.ko',
      'lib/modules/6.1.0-test/kernel/virtio/virtio_ring.ko',
    ],
  );
  for (const [args, message] of [
    [['--modules', dir], /--output is missing/],
    [['--output', output], /--modules is missing/],
    [['--modules', dir, '--output', output, 'x'], /unexpected argument x/],
    [['--modules', `${dir}x`, '--output', output, '--base', base], /6\.1\.0-testx: no such file/],
    [['--modules', dir, '--output', output, '--base', `${base}x`], /base\.cpiox: no such file/],
    [['--modules', dir, '--output', `${dir}/no/such`, '--base', base], /no\/such: cannot be written/],
    [['--modules', dir, '--output', output, '--base', base, '--module', 'nvme'], /no module nvme/],
  ] as const) {
    await t.rejects(main(args), { message });
  }
});
