import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { defaultCacheDir, type KernelPlan, openKernel } from '../../../src/boot/kernel.js';
import { bzImage, damaged, elfFile, fixture, note } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

/** A folder with a bzImage, old enough for its times to be trusted, and an empty cache. */
async function setUp(t: Test, bytes = bzImage(fixture('payload.lz4'))) {
  const dir = t.testdir({ cache: {} });
  const image = join(dir, 'bzImage');
  writeFileSync(image, bytes);
  await settled(image);
  const warnings: string[] = [];
  const cacheDir = join(dir, 'cache');
  const open = (path = image) => openKernel(path, { cacheDir, warn: (message) => warnings.push(message) });
  return { dir, image, warnings, cacheDir, open, kernels: join(cacheDir, 'kernels') };
}

/** Waits until a file's last change is long enough ago for the cache to trust its times. */
async function settled(path: string): Promise<void> {
  while (Date.now() - statSync(path).ctimeMs < 120) await new Promise((resolve) => setTimeout(resolve, 5));
}

function sourceBytes(plan: KernelPlan): Uint8Array {
  return 'path' in plan.source ? readFileSync(plan.source.path) : plan.source.bytes;
}

const cached = (dir: string) => readdirSync(dir).filter((name) => /^[0-9a-f]{64}$/.test(name));

t.test('a bzImage is unpacked, cached, and found again without being read', async (t) => {
  const { image, open, kernels, warnings } = await setUp(t);
  const first = await open();
  t.match(first, {
    name: image,
    kind: 'elf',
    protocol: 'linux64',
    entry: 0x100_0000,
    kernelVersion: '6.1.0-test (somebody) #1',
    initrdAddressMax: 0x7fff_ffff,
    commandLineMax: 2047,
    memoryEnd: 0x120_8000,
  });
  t.same(first.segments, [
    { fileOffset: 0x1000, length: 0x2000, memoryLength: 0x2000, address: 0x100_0000 },
    { fileOffset: 0x21000, length: 0x1000, memoryLength: 0x8000, address: 0x120_0000 },
  ]);
  t.ok(first.setupHeader?.length);
  t.equal(cached(kernels).length, 1);
  t.equal(sourceBytes(first).length, 0x24000);
  // What was cached is taken as it is: the image is not looked into again.
  const record = join(kernels, 'by-stat', readdirSync(join(kernels, 'by-stat'))[0] ?? '');
  writeFileSync(record, readFileSync(record, 'utf8').replace('6.1.0-test', '6.1.0-kept'));
  t.equal((await open()).kernelVersion, '6.1.0-kept (somebody) #1');
  t.same({ ...(await open()), kernelVersion: '' }, { ...first, kernelVersion: '' });
  t.same(warnings, []);
});

t.test('the same content under another name is not unpacked again', async (t) => {
  const { dir, image, open, kernels } = await setUp(t);
  const first = await open();
  const copy = join(dir, 'copy');
  copyFileSync(image, copy);
  const before = statSync(join(kernels, cached(kernels)[0] ?? '')).ino;
  t.same((await open(copy)).source, first.source);
  t.equal(statSync(join(kernels, cached(kernels)[0] ?? '')).ino, before);
});

t.test('a file that changes is looked at again', async (t) => {
  const { image, open, kernels } = await setUp(t);
  await open();
  const other = bzImage(fixture('payload.gz'));
  writeFileSync(image, other);
  await open();
  t.equal(cached(kernels).length, 2);
  appendFileSync(image, 'x');
  await open();
  t.equal(cached(kernels).length, 3);
});

t.test('a file that was changed just now is not remembered by its times', async (t) => {
  const { image, open, kernels } = await setUp(t);
  writeFileSync(image, readFileSync(image));
  await open();
  const names = readdirSync(join(kernels, 'by-stat'));
  // On a machine that is slow enough, the change is long past by the time that the image is read.
  if (Date.now() - statSync(image).ctimeMs < 100) t.same(names, []);
  t.equal(cached(kernels).length, 1);
});

t.test('a damaged cache is made again', async (t) => {
  const { open, kernels } = await setUp(t);
  const plan = await open();
  const kernel = join(kernels, cached(kernels)[0] ?? '');
  const identity = join(kernels, 'by-stat', readdirSync(join(kernels, 'by-stat'))[0] ?? '');
  for (const damage of [
    () => truncateSync(kernel, 1000),
    () => rmSync(kernel),
    () => truncateSync(identity, 10),
    () => writeFileSync(identity, '{"format":1}'),
    () => writeFileSync(identity, 'null'),
    () =>
      writeFileSync(identity, readFileSync(identity, 'utf8').replace('"length":8192', '"length":9999999')),
    () => {
      truncateSync(`${kernel}.json`, 7);
      rmSync(identity);
    },
  ]) {
    damage();
    t.same(await open(), plan);
    t.equal(statSync(kernel).size, 0x24000);
  }
});

t.test('damaged records never make a plan that reaches beyond the kernel', async (t) => {
  const { open, kernels } = await setUp(t);
  await open();
  const identity = join(kernels, 'by-stat', readdirSync(join(kernels, 'by-stat'))[0] ?? '');
  const record = Uint8Array.from(readFileSync(identity));
  const result = await survive(damaged(record, 40, 100), async (bytes) => {
    writeFileSync(identity, bytes);
    const plan = await open();
    const { length } = sourceBytes(plan);
    for (const segment of plan.segments) {
      if (segment.fileOffset + segment.length > length) throw new Error(JSON.stringify(plan));
    }
  });
  t.same(result.escaped, []);
});

t.test('several at once', async (t) => {
  const { open, kernels } = await setUp(t);
  const plans = await Promise.all(Array.from({ length: 8 }, () => open()));
  for (const plan of plans) t.same(plan, plans[0]);
  t.equal(readdirSync(kernels).length, 3, 'the kernel, its record, and the folder of identities');
});

t.test('what a killed process left behind is removed', async (t) => {
  const { open, kernels } = await setUp(t);
  mkdirSync(join(kernels, 'by-stat'), { recursive: true });
  // No process has a number this high (PID_MAX_LIMIT is 2^22).
  const left = [join(kernels, 'abc.tmp-99999999-1'), join(kernels, 'by-stat', 'abc.tmp-99999999-1')];
  const alive = join(kernels, `abc.tmp-${process.pid}-1`);
  for (const path of [...left, alive]) writeFileSync(path, 'x');
  await open();
  t.same(left.filter(existsSync), []);
  t.ok(existsSync(alive), 'a living one keeps its own');
});

t.test('old kernels make room for new ones', async (t) => {
  const { dir, open, kernels } = await setUp(t);
  const path = join(dir, 'k');
  for (let version = 0; version < 20; version++) {
    writeFileSync(path, Buffer.concat([bzImage(fixture('payload.lz4')), Buffer.from([version])]));
    await open(path);
    for (const name of readdirSync(kernels)) {
      if (/^[0-9a-f]/.test(name)) {
        const age = statSync(join(kernels, name)).mtimeMs / 1000 - 60;
        utimesSync(join(kernels, name), age, age);
      }
    }
  }
  t.ok(cached(kernels).length <= 17, `${cached(kernels).length} kernels`);
});

t.test('without a cache that can be written the kernel stays in memory', async (t) => {
  const { dir, image, warnings } = await setUp(t);
  const blocked = join(dir, 'blocked');
  writeFileSync(blocked, 'a file, where a folder is wanted');
  const plan = await openKernel(image, { cacheDir: blocked, warn: (message) => warnings.push(message) });
  t.ok('bytes' in plan.source);
  t.equal(sourceBytes(plan).length, 0x24000);
  t.match(warnings, [
    /blocked\/kernels: the unpacked kernel cannot be kept \(each start unpacks it again\): /,
  ]);
});

t.test('a full disk is a warning', async (t) => {
  const { image, warnings } = await setUp(t);
  // Writing to a file of /dev/full's kind cannot be had without mounts; a limit of a file's size acts alike.
  const { execFileSync } = await import('node:child_process');
  const dir = join(dirname(image), 'limited');
  const script = `
    process.on('SIGXFSZ', () => {});
    const { openKernel } = await import(${JSON.stringify(new URL('../../../src/boot/kernel.js', import.meta.url).href)});
    const warnings = [];
    const plan = await openKernel(process.argv[1], { cacheDir: process.argv[2], warn: (line) => warnings.push(line) });
    console.log(JSON.stringify({ memory: 'bytes' in plan.source, warnings }));`;
  const command = 'ulimit -f 8; exec "$0" --input-type=module -e "$1" "$2" "$3"';
  const text = execFileSync('bash', ['-c', command, process.execPath, script, image, dir], {
    encoding: 'utf8',
  });
  t.match(JSON.parse(text), { memory: true, warnings: [/cannot be kept/] });
  t.same(cached(join(dir, 'kernels')), []);
  t.same(readdirSync(join(dir, 'kernels')), ['by-stat'], 'nothing half-written is left');
  t.same(warnings, []);
});

t.test('no cache at all', async (t) => {
  const { image } = await setUp(t);
  t.ok('bytes' in (await openKernel(image, { cacheDir: null })).source);
});

t.test('the guest can be left to unpack', async (t) => {
  const { image, cacheDir } = await setUp(t);
  const plan = await openKernel(image, { decompress: 'guest', cacheDir });
  const size = statSync(image).size;
  t.match(plan, { kind: 'bzimage', entry: 0x100_0200, source: { path: image }, memoryEnd: 0x300_0000 });
  t.same(plan.segments, [
    { fileOffset: 1024, length: size - 1024, memoryLength: size - 1024, address: 0x100_0000 },
  ]);
  t.same(readdirSync(cacheDir), []);
});

t.test('a compression that the host does not know falls to the guest', async (t) => {
  const { open, warnings } = await setUp(t, bzImage(new Uint8Array(100).fill(7)));
  t.equal((await open()).kind, 'bzimage');
  t.match(warnings, [/no known compression .*it unpacks itself in the guest/]);
});

t.test('a plain vmlinux', async (t) => {
  const text = { offset: 0x1000, physical: 0x100_0000n, fileSize: 0x1000n, memorySize: 0x1000n };
  const { open, image, cacheDir } = await setUp(t, elfFile([text]));
  t.match(await open(), {
    kind: 'elf',
    source: { path: image },
    protocol: 'linux64',
    entry: 0x100_0000,
    setupHeader: null,
    memoryEnd: 0x100_1000,
  });
  t.same(readdirSync(cacheDir), []);
});

t.test('another system is entered by its PVH note, Linux is not', async (t) => {
  const text = { offset: 0x1000, physical: 0x100_0000n, fileSize: 0x1000n, memorySize: 0x1000n };
  for (const [os, protocol, entry] of [
    ['FreeBSD', 'pvh', 0x100_0040],
    ['linux', 'linux64', 0x100_0000],
  ] as const) {
    const notes = Buffer.concat([
      note('Xen', 6, Buffer.from(`${os}\0`)),
      note('Xen', 18, Uint8Array.of(0x40, 0, 0, 1)),
    ]);
    const bytes = elfFile([text, { ...text, type: 4, offset: 0x3000, fileSize: BigInt(notes.length) }]);
    bytes.set(notes, 0x3000);
    const { open } = await setUp(t, bytes);
    t.match(await open(), { protocol, entry });
  }
});

t.test('files that are no kernel', async (t) => {
  const { dir, open } = await setUp(t);
  const file = (bytes: Uint8Array | string) => {
    writeFileSync(join(dir, 'file'), bytes);
    return open(join(dir, 'file'));
  };
  await t.rejects(open(join(dir, 'absent')), { code: 'file', message: /absent: no such file/ });
  await t.rejects(open(dir), { code: 'file', message: /not a regular file/ });
  await t.rejects(file(''), { code: 'not-a-kernel', message: /file: not a kernel: an empty file/ });
  await t.rejects(file('hello\n'), { code: 'not-a-kernel', message: /a text file/ });
  const image = bzImage(fixture('payload.xz'));
  await t.rejects(file(image.slice(0, 3000)), { code: 'truncated' });
  image.fill(0x55, 2500, 2600);
  await t.rejects(file(image), {
    code: 'decompression-failed',
    message: /file: its payload: cannot be unpacked \(xz\)/,
  });
  const { gzipSync } = await import('node:zlib');
  await t.rejects(file(bzImage(gzipSync(Buffer.from('not an ELF file at all')))), {
    code: 'not-a-kernel',
    message: /file: its unpacked payload: not an ELF file/,
  });
});

t.test('the cache folder follows the environment', async (t) => {
  t.equal(defaultCacheDir({ XDG_CACHE_HOME: '/c', HOME: '/h' }), '/c/tsvmm');
  t.equal(defaultCacheDir({ XDG_CACHE_HOME: 'relative', HOME: '/h' }), '/h/.cache/tsvmm');
  t.equal(defaultCacheDir({}), null);
});
