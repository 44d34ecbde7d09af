/** Kernels and other boot files, made as small as they can be, and the ways of hostile input. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const FIXTURES = fileURLToPath(new URL('../../../../test/unit/boot/fixtures/', import.meta.url));

export function fixture(name: string): Uint8Array {
  return Uint8Array.from(readFileSync(FIXTURES + name));
}

export interface TestSegment {
  readonly type?: number;
  readonly offset: number;
  readonly virtual?: bigint;
  readonly physical: bigint;
  readonly fileSize: bigint;
  readonly memorySize: bigint;
}

/** An ELF file with these program headers, `size` bytes long. */
export function elfFile(segments: readonly TestSegment[], size = 0x4000, entry = 0x100_0000n): Uint8Array {
  const bytes = new Uint8Array(Math.max(size, 64 + segments.length * 56));
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, entry, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  segments.forEach((segment, index) => {
    const at = 64 + index * 56;
    view.setUint32(at, segment.type ?? 1, true);
    view.setBigUint64(at + 8, BigInt(segment.offset), true);
    view.setBigUint64(at + 16, segment.virtual ?? 0n, true);
    view.setBigUint64(at + 24, segment.physical, true);
    view.setBigUint64(at + 32, segment.fileSize, true);
    view.setBigUint64(at + 40, segment.memorySize, true);
  });
  return bytes;
}

/** One ELF note. */
export function note(name: string, type: number, description: Uint8Array): Uint8Array {
  const pad = (length: number) => Math.ceil(length / 4) * 4;
  const bytes = new Uint8Array(12 + pad(name.length + 1) + pad(description.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, name.length + 1, true);
  view.setUint32(4, description.length, true);
  view.setUint32(8, type, true);
  bytes.set(Buffer.from(name), 12);
  bytes.set(description, 12 + pad(name.length + 1));
  return bytes;
}

/** A bzImage around a payload: one setup sector, 1 KiB of code in front of the payload, a version string. */
export function bzImage(payload: Uint8Array): Uint8Array {
  const code = 2 * 512;
  const before = 1024;
  const bytes = new Uint8Array(code + before + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint16(0x200, 0x6aeb, true);
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x020f, true);
  view.setUint16(0x20e, 0x300 - 0x200, true);
  view.setUint8(0x211, 0x01);
  view.setUint32(0x22c, 0x7fff_ffff, true);
  view.setUint32(0x230, 0x20_0000, true);
  view.setUint8(0x234, 1);
  view.setUint16(0x236, 0x3f, true);
  view.setUint32(0x238, 2047, true);
  view.setUint32(0x248, before, true);
  view.setUint32(0x24c, payload.length, true);
  view.setBigUint64(0x258, 0x100_0000n, true);
  view.setUint32(0x260, 0x200_0000, true);
  bytes.set(Buffer.from('6.1.0-test (somebody) #1\0'), 0x300);
  bytes.set(payload, code + before);
  return bytes;
}

/** A pseudo-random generator with a fixed start: numbers from 0 to below its argument. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/**
 * Damaged versions of some bytes: cut off at every offset up to `header`, every byte of the header set to 0, 0x7f, 0x80
 * and 0xff, every aligned word of it to the largest number, and `flips` versions with one to eight bits turned.
 */
export function* damaged(original: Uint8Array, header: number, flips: number): Generator<Uint8Array> {
  // A Buffer's slice() would share memory.
  const bytes = Uint8Array.from(original);
  for (let length = 0; length <= header; length++) yield bytes.slice(0, length);
  for (let offset = 0; offset < header; offset++) {
    for (const value of [0, 0x7f, 0x80, 0xff]) {
      const copy = bytes.slice();
      copy[offset] = value;
      yield copy;
    }
  }
  for (let offset = 0; offset + 8 <= header; offset += 4) {
    for (const width of [4, 8]) yield bytes.slice().fill(0xff, offset, offset + width);
  }
  const next = random(1);
  for (let round = 0; round < flips; round++) {
    const copy = bytes.slice();
    for (let bits = 1 + next(8); bits > 0; bits--) {
      const at = next(copy.length);
      copy[at] = copy[at]! ^ (1 << next(8));
    }
    yield copy;
  }
}
