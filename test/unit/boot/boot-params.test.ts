import t from 'tap';
import { buildBootParams } from '../../../src/boot/boot-params.js';
import { parseBzImage } from '../../../src/boot/bzimage.js';
import { encodeCommandLine, joinCommandLine } from '../../../src/boot/command-line.js';
import { checkKernelFits, placeInitrd } from '../../../src/boot/placement.js';
import { buildStartInfo } from '../../../src/boot/pvh.js';
import { bytesReader } from '../../../src/boot/reader.js';
import { e820 } from '../../../src/memory/layout.js';
import { bzImage, fixture } from '../../support/boot-images.js';

const MIB = 2 ** 20;
const memory = e820(8 * 2 ** 30);

t.test('the zero page of a bzImage', async (t) => {
  const { setupHeader } = parseBzImage(bytesReader(bzImage(fixture('payload.gz'))), 'bzImage');
  const page = buildBootParams({
    setupHeader,
    commandLineAddress: 0x20000,
    initrd: { address: 0x1_2345_6000, size: 0x1_0000_0042 },
    e820: memory,
    acpiRsdp: 0xe0000,
  });
  const view = new DataView(page.buffer);
  t.equal(page.length, 4096);
  t.equal(view.getUint16(0x1fe, true), 0xaa55);
  t.equal(Buffer.from(page.subarray(0x202, 0x206)).toString(), 'HdrS');
  t.equal(view.getUint32(0x230, true), 0x20_0000, "the header is the image's");
  t.equal(page[0x1ef], 0, 'the sentinel');
  t.equal(page[0x210], 0xff, 'type_of_loader');
  t.equal(page[0x211]! & 1, 1, 'LOADED_HIGH');
  t.equal(view.getUint32(0x228, true), 0x20000);
  t.equal(view.getUint32(0x0c8, true), 0);
  t.equal(view.getUint32(0x218, true), 0x2345_6000);
  t.equal(view.getUint32(0x0c0, true), 1);
  t.equal(view.getUint32(0x21c, true), 0x42);
  t.equal(view.getUint32(0x0c4, true), 1);
  t.equal(view.getBigUint64(0x070, true), 0xe0000n);
  t.equal(page[0x1e8], memory.length);
  memory.forEach((entry, index) => {
    const at = 0x2d0 + index * 20;
    t.equal(Number(view.getBigUint64(at, true)), entry.address);
    t.equal(Number(view.getBigUint64(at + 8, true)), entry.size);
    t.equal(view.getUint32(at + 16, true), entry.type);
  });
});

t.test('the zero page of a vmlinux, which has no header of its own', async (t) => {
  const page = buildBootParams({ setupHeader: null, commandLineAddress: 0x20000, e820: memory });
  const view = new DataView(page.buffer);
  t.equal(view.getUint16(0x1fe, true), 0xaa55);
  t.equal(view.getUint32(0x202, true), 0x53726448);
  t.equal(view.getUint16(0x206, true), 0x020f);
  t.equal(view.getUint32(0x21c, true), 0, 'no initrd');
  t.equal(view.getBigUint64(0x070, true), 0n, 'no ACPI');
});

t.test('more ranges of memory than the zero page takes', async (t) => {
  const many = Array.from({ length: 129 }, (_, n) => ({ address: n * MIB, size: MIB, type: 1 }));
  t.throws(() => buildBootParams({ setupHeader: null, commandLineAddress: 0, e820: many }), {
    name: 'BootError',
    message: /129 ranges/,
  });
});

t.test("PVH's start info", async (t) => {
  const info = {
    address: 0x7000,
    commandLineAddress: 0x20000,
    initrd: { address: 0x700_0000, size: 99 },
    e820: memory,
    acpiRsdp: 0xe0000,
  };
  const view = new DataView(buildStartInfo(info).buffer);
  const word = (offset: number) => Number(view.getBigUint64(offset, true));
  t.equal(view.getUint32(0, true), 0x336e_c578);
  t.equal(view.getUint32(4, true), 1);
  t.equal(view.getUint32(12, true), 1);
  const modules = word(16) - 0x7000;
  t.same([word(modules), word(modules + 8)], [0x700_0000, 99]);
  t.same([word(24), word(32)], [0x20000, 0xe0000]);
  const map = word(40) - 0x7000;
  t.equal(view.getUint32(48, true), memory.length);
  t.same([word(map), word(map + 8), view.getUint32(map + 16, true)], [0, 0x9fc00, 1]);
  t.equal(view.byteLength, map + memory.length * 24);
  const { initrd, ...without } = info;
  t.equal(new DataView(buildStartInfo(without).buffer).getUint32(12, true), 0);
});

t.test('command lines', async (t) => {
  t.equal(
    joinCommandLine(['quiet', '', ' pci=off '], ' root=/dev/vda -- --init\n'),
    'quiet pci=off root=/dev/vda -- --init',
  );
  t.equal(joinCommandLine([]), '');
  t.same(encodeCommandLine('ä', 2), Uint8Array.of(0xc3, 0xa4, 0));
  t.throws(() => encodeCommandLine('ä', 1), {
    code: 'command-line',
    message: /has 2 bytes; this kernel takes 1/,
  });
  t.throws(() => encodeCommandLine('a\0b', 100), { code: 'command-line', message: /NUL/ });
  t.equal(encodeCommandLine('x'.repeat(2047), 2047).length, 2048);
});

t.test('where the initrd goes', async (t) => {
  const kernel = { name: 'bzImage', memoryEnd: 48 * MIB + 1 };
  const place = (size: number, lowRam = 128 * MIB, max = 0x7fff_ffff) =>
    placeInitrd(size, lowRam, max, kernel, 'initrd.img');
  t.same(place(MIB), { address: 127 * MIB, size: MIB }, 'as high as it can be');
  t.same(place(1), { address: 128 * MIB - 4096, size: 1 }, 'on a page');
  t.same(place(MIB, 3072 * MIB), { address: 2047 * MIB, size: MIB }, 'but not above what the kernel takes');
  const room = 80 * MIB - 4096;
  t.same(place(room), { address: 48 * MIB + 4096, size: room }, 'up to the kernel');
  t.throws(() => place(room + 1), {
    code: 'initrd-too-large',
    message:
      'initrd.img: initrd too large for the memory: with the kernel it needs 129 MiB, the machine has 128 MiB',
  });
  t.throws(() => place(100 * MIB, 1024 * MIB, 64 * MIB), {
    code: 'initrd-too-large',
    message: /104857600 bytes do not fit below 0x4000001/,
  });
  t.throws(() => place(2 ** 40), { code: 'initrd-too-large' });
  t.throws(() => place(1, 32 * MIB), { code: 'too-little-memory' });
  t.throws(() => checkKernelFits(kernel, 32 * MIB), {
    message: 'too little memory for bzImage: it needs 49 MiB, the machine has 32 MiB',
  });
  t.doesNotThrow(() => checkKernelFits(kernel, 49 * MIB));
});
