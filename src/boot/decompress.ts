import type { Unpacker } from './decompress/unpacker.js';
import { isElf } from './elf.js';
import { BootError, reasonOf } from './error.js';

/** The compressions that a kernel's payload may have (init/Kconfig, "Kernel compression mode"). */
export type Compression = 'gzip' | 'xz' | 'lzma' | 'bzip2' | 'lz4' | 'zstd' | 'none';

/** No kernel is larger; a payload that claims to be is damaged or means harm. */
const UNPACKED_MAX = 512 << 20;

const MAGICS: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['lzma', [0x5d, 0x00, 0x00]],
];

/** Each library is loaded when a kernel needs it, never before. */
async function unpacker(compression: Exclude<Compression, 'none'>): Promise<Unpacker> {
  switch (compression) {
    case 'gzip':
      return (await import('./decompress/gzip.js')).unpackGzip;
    case 'xz':
      return (await import('./decompress/lzma.js')).unpackXz;
    case 'lzma':
      return (await import('./decompress/lzma.js')).unpackLzma;
    case 'bzip2':
      return (await import('./decompress/bzip2.js')).unpackBzip2;
    case 'lz4':
      return (await import('./decompress/lz4.js')).unpackLz4;
    case 'zstd':
      return (await import('./decompress/zstd.js')).unpackZstd;
  }
}

/** Which compression these first bytes are of, if any that we know. */
export function detectCompression(head: Uint8Array): Compression | undefined {
  if (isElf(head)) return 'none';
  return MAGICS.find(([, magic]) => magic.every((byte, index) => head[index] === byte))?.[0];
}

/**
 * Unpacks data of one of the kernel's compressions.
 * @param limit the most bytes that may come out.
 * @param what how messages call the data.
 * @throws BootError: `decompression-failed`, or `unsupported` where the library that does it cannot be loaded.
 */
export async function unpack(
  compression: Exclude<Compression, 'none'>,
  data: Uint8Array,
  limit: number,
  what: string,
): Promise<Uint8Array> {
  const words = (error: unknown) => `${what}: cannot be unpacked (${compression}): ${reasonOf(error)}`;
  let run: Unpacker;
  try {
    run = await unpacker(compression);
  } catch (error) {
    // The library is missing or does not load here.
    throw new BootError('unsupported', words(error), { cause: error });
  }
  try {
    return await run(data, limit);
  } catch (error) {
    throw new BootError('decompression-failed', words(error), { cause: error });
  }
}

/**
 * Unpacks a bzImage's payload: the compressed kernel with its unpacked size behind it as a 32-bit little-endian number,
 * which gzip's own trailer doubles as (boot.rst, payload_length).
 * @param name how messages call the image.
 * @throws BootError where the compression is unknown, the data are damaged, or another size comes out.
 */
export async function unpackPayload(payload: Uint8Array, name: string): Promise<Uint8Array> {
  const compression = detectCompression(payload);
  if (compression === undefined) {
    const magic = Buffer.from(payload.subarray(0, 6)).toString('hex');
    throw new BootError(
      'unsupported',
      `${name}: its payload is of no known compression (it begins with ${magic})`,
    );
  }
  if (compression === 'none') return payload;
  if (payload.length < 8) throw new BootError('truncated', `${name}: its payload is truncated`);
  const end = payload.length - 4;
  const size = new DataView(payload.buffer, payload.byteOffset + end, 4).getUint32(0, true);
  if (size === 0 || size > UNPACKED_MAX) {
    throw new BootError('malformed', `${name}: its payload claims to unpack to ${size} bytes`);
  }
  const data = compression === 'gzip' ? payload : payload.subarray(0, end);
  const unpacked = await unpack(compression, data, size, `${name}: its payload`);
  if (unpacked.length !== size) {
    const words = `${unpacked.length} bytes, not the ${size} that it announces`;
    throw new BootError('decompression-failed', `${name}: its payload (${compression}) unpacks to ${words}`);
  }
  return unpacked;
}
