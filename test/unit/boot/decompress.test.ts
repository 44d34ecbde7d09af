import { createHash } from 'node:crypto';
import t from 'tap';
import { unpackLz4 } from '../../../src/boot/decompress/lz4.js';
import { detectCompression, unpack, unpackPayload } from '../../../src/boot/decompress.js';
import { damaged, fixture } from '../../support/boot-images.js';
import { survive } from '../../support/hostile.js';

const FORMATS = { gz: 'gzip', xz: 'xz', lzma: 'lzma', bz2: 'bzip2', lz4: 'lz4', zst: 'zstd' } as const;
const KERNEL = 'e6af2524';
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 8);

for (const [extension, compression] of Object.entries(FORMATS)) {
  const payload = fixture(`payload.${extension}`);

  t.test(`${compression}: a payload as the kernel's build makes it`, async (t) => {
    t.equal(detectCompression(payload), compression);
    const kernel = await unpackPayload(payload, 'bzImage');
    t.equal(kernel.length, 0x24000);
    t.equal(digest(kernel), KERNEL);
  });

  t.test(`${compression}: a payload that unpacks to another size than it says`, async (t) => {
    for (const lie of [0x23fff, 0x24001]) {
      const copy = payload.slice();
      new DataView(copy.buffer).setUint32(copy.length - 4, lie, true);
      await t.rejects(unpackPayload(copy, 'bzImage'), {
        name: 'BootError',
        code: 'decompression-failed',
        message: new RegExp(`^bzImage: its payload.*${compression}`),
      });
    }
  });

  t.test(`${compression}: sizes that no kernel has`, async (t) => {
    for (const size of [0, 0xffff_ffff]) {
      const copy = payload.slice();
      new DataView(copy.buffer).setUint32(copy.length - 4, size, true);
      await t.rejects(unpackPayload(copy, 'bzImage'), { code: 'malformed', message: /claims to unpack to/ });
    }
  });

  t.test(`${compression}: damaged payloads end in bytes or a BootError`, async (t) => {
    const versions = [...damaged(payload, 24, 60)];
    // What cuts the payload short must be noticed, wherever it does.
    for (let length = 24; length < payload.length; length += 97) versions.push(payload.slice(0, length));
    const result = await survive(versions, (bytes) => unpackPayload(bytes, 'bzImage'));
    t.same(result.escaped, []);
    t.ok(result.refused > 100, `${result.refused} refused`);
  });
}

for (const extension of ['xz', 'lzma', 'bz2', 'zst'] as const) {
  t.test(`${extension}: a bomb stops at the size that it announces`, async (t) => {
    await t.rejects(unpackPayload(fixture(`bomb.${extension}`), 'bzImage'), { code: 'decompression-failed' });
  });
}

t.test('a gzip bomb stops at its limit', async (t) => {
  const { gzipSync } = await import('node:zlib');
  const bomb = gzipSync(new Uint8Array(1 << 20));
  await t.rejects(unpack('gzip', bomb, 1000, 'bomb'), { message: /more than the expected 1000 bytes/ });
});

t.test('an lz4 bomb stops at its limit', async (t) => {
  // One literal and a match of 255 bytes for every further byte.
  const block = [0x1f, 0x41, 1, 0, ...Array(1000).fill(255), 0, 0x10, 0x42];
  const size = [block.length & 255, block.length >> 8, 0, 0];
  const frame = Uint8Array.from([2, 0x21, 0x4c, 0x18, ...size, ...block]);
  t.equal((await unpackLz4(frame, 300_000)).length, 1 + 255 * 1000 + 19 + 1);
  await t.rejects(unpackLz4(frame, 1000), { message: /more than the expected/ });
});

t.test('lz4: what a block must not do', async (t) => {
  const frame = (...block: number[]) =>
    Uint8Array.from([2, 0x21, 0x4c, 0x18, block.length, 0, 0, 0, ...block]);
  t.same(await unpackLz4(frame(0x20, 1, 2), 10), Uint8Array.of(1, 2));
  await t.rejects(unpackLz4(frame(0x30, 1, 2), 10), { message: /literals beyond/ });
  await t.rejects(unpackLz4(frame(0x10, 1, 2, 0, 0), 10), { message: /before the block's start/ });
  await t.rejects(unpackLz4(frame(0x10, 1, 0, 0, 0), 10), { message: /before the block's start/ });
  await t.rejects(unpackLz4(frame(0x10, 1, 1, 0), 10), { message: /ends too early/ });
  await t.rejects(unpackLz4(Uint8Array.of(2, 0x21, 0x4c, 0x18, 9), 10), { message: /length is cut off/ });
  await t.rejects(unpackLz4(Uint8Array.of(2, 0x21, 0x4c, 0x18, 9, 0, 0, 0), 10), {
    message: /claims 9 bytes/,
  });
});

t.test('a payload of no known compression', async (t) => {
  await t.rejects(unpackPayload(new Uint8Array(100).fill(7), 'bzImage'), {
    code: 'unsupported',
    message: /no known compression \(it begins with 070707070707\)/,
  });
});
