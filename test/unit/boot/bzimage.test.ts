import t from 'tap';
import { isBzImage, parseBzImage } from '../../../src/boot/bzimage.js';
import { bytesReader } from '../../../src/boot/reader.js';
import { bzImage, damaged, elfFile, fixture } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

const image = bzImage(fixture('payload.gz'));
const parse = (bytes: Uint8Array) => parseBzImage(bytesReader(bytes), 'bzImage');
const change = (offset: number, ...values: number[]) => {
  const bytes = image.slice();
  bytes.set(values, offset);
  return bytes;
};

t.test('the setup header', async (t) => {
  const parsed = parse(image);
  t.ok(isBzImage(image));
  t.match(parsed, {
    version: 0x020f,
    kernelVersion: '6.1.0-test (somebody) #1',
    codeOffset: 1024,
    codeSize: image.length - 1024,
    payloadOffset: 2048,
    payloadLength: fixture('payload.gz').length,
    relocatable: true,
    alignment: 0x20_0000,
    preferredAddress: 0x100_0000,
    initSize: 0x200_0000,
    initrdAddressMax: 0x7fff_ffff,
    commandLineMax: 2047,
  });
  t.same(parsed.setupHeader, image.slice(0x1f1, 0x202 + 0x6a));
  const padded = new Uint8Array(image.length + 2048);
  padded.set(change(0x1f1, 0));
  t.equal(parse(padded).codeOffset, 5 * 512, 'zero setup sectors stand for four');
});

t.test('only the header and the version are read', async (t) => {
  let bytesRead = 0;
  const reader = {
    size: image.length,
    read: (offset: number, length: number) => {
      bytesRead += length;
      return image.subarray(offset, offset + length);
    },
  };
  parseBzImage(reader, 'bzImage');
  t.ok(bytesRead < 1024);
});

const at = (offset: number, text: string) => {
  const bytes = new Uint8Array(0x400).fill(0x80);
  bytes.set(Buffer.from(text, 'latin1'), offset);
  return bytes;
};
for (const [name, bytes, expected] of [
  ['nothing', new Uint8Array(0), { code: 'not-a-kernel', message: /an empty file/ }],
  ['a text', Buffer.from('#!/bin/sh\necho hello\n'), { code: 'not-a-kernel', message: /a text file/ }],
  ['arm64', at(56, 'ARMd'), { code: 'wrong-architecture', message: /for arm64, not for x86-64/ }],
  ['riscv', at(56, 'RSC\x05'), { code: 'wrong-architecture', message: /for RISC-V/ }],
  ['arm', at(0x24, '\x18\x28\x6f\x01'), { code: 'wrong-architecture', message: /for ARM/ }],
  ['PE', at(0, 'MZ'), { code: 'not-a-kernel', message: /PE program/ }],
  ['gzip', fixture('payload.gz'), { code: 'not-a-kernel', message: /gzip-compressed data/ }],
  ['xz', fixture('payload.xz'), { code: 'not-a-kernel', message: /xz-compressed/ }],
  ['zstd', fixture('payload.zst'), { code: 'not-a-kernel', message: /zstd-compressed/ }],
  ['bzip2', fixture('payload.bz2'), { code: 'not-a-kernel', message: /bzip2-compressed/ }],
  ['cpio', at(0, '070701'), { code: 'not-a-kernel', message: /cpio archive/ }],
  ['qcow2', at(0, 'QFI\xfb'), { code: 'not-a-kernel', message: /qcow2/ }],
  ['deb', at(0, '!<arch>\n'), { code: 'not-a-kernel', message: /Debian package/ }],
  ['uImage', at(0, '\x27\x05\x19\x56'), { code: 'not-a-kernel', message: /U-Boot/ }],
  ['ELF', elfFile([]), { code: 'not-a-kernel', message: /an ELF file/ }],
  ['a disk', at(0x1fe, '\x55\xaa'), { code: 'not-a-kernel', message: /boot sector/ }],
  ['a few bytes', new Uint8Array(9), { code: 'not-a-kernel', message: /9 bytes/ }],
  ['noise', at(0, ''), { code: 'not-a-kernel', message: /no Linux setup header/ }],
  ['an old one', change(0x206, 0x0a), { code: 'unsupported', message: /protocol 2\.10 is too old/ }],
  ['32 bits', change(0x236, 0), { code: 'wrong-architecture', message: /xloadflags: a 32-bit/ }],
  ['a zImage', change(0x211, 0), { code: 'unsupported', message: /a zImage/ }],
  ['a short header', change(0x201, 0x10), { code: 'malformed', message: /jump/ }],
  ['a cut header', image.slice(0, 0x250), { code: 'truncated', message: /setup header is truncated/ }],
  [
    'a cut image',
    image.slice(0, -1),
    { code: 'truncated', message: /truncated: \d+ bytes, but its payload/ },
  ],
  ['a huge payload', change(0x24c, 255, 255, 255, 255), { code: 'truncated', message: /payload ends at/ }],
  ['no payload', change(0x24c, 0, 0, 0, 0), { code: 'malformed', message: /payload_length/ }],
  ['alignment', change(0x230, 1, 0, 0x20), { code: 'malformed', message: /kernel_alignment: 2097153/ }],
  ['no alignment', change(0x230, 0, 0, 0), { code: 'malformed', message: /kernel_alignment: 0/ }],
  ['pref_address', change(0x25c, 1), { code: 'malformed', message: /pref_address: 0x101000000/ }],
  ['init_size', change(0x260, 0, 0, 0, 0), { code: 'malformed', message: /init_size/ }],
] as const) {
  t.test(`refused: ${name}`, async (t) => {
    t.throws(() => parse(bytes), expected);
  });
}

t.test('a version string that points nowhere is no version', async (t) => {
  t.equal(parse(change(0x20e, 0xff, 0xff)).kernelVersion, '');
  t.equal(parse(change(0x20e, 0, 0)).kernelVersion, '');
  t.equal(parse(change(0x300, 0xff)).kernelVersion, '');
});

t.test('damaged images end in a plan or a BootError', async (t) => {
  const result = await survive(damaged(image, 0x290, 500), parse);
  t.same(result.escaped, []);
  t.ok(result.refused > 600);
});
