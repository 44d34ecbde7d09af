import { tooMuch } from './unpacker.js';

const LEGACY_MAGIC = 0x184c2102;
/** Each block of a legacy frame unpacks to at most 8 MiB. */
const BLOCK_MAX = 8 << 20;
const MIN_MATCH = 4;

/**
 * The legacy LZ4 frame (lz4_Frame_format.md, "Legacy frame"), which `lz4 -l` writes and kernels use: blocks, each behind
 * its compressed length. The npm packages for LZ4 check no bounds, so the block decoder is ours.
 */
export async function unpackLz4(data: Uint8Array, limit: number): Promise<Uint8Array> {
  return unpackLegacyFrame(data, limit);
}

/** The same at once. @throws Error in words for a damaged frame, and for more than `limit` bytes */
export function unpackLegacyFrame(data: Uint8Array, limit: number): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const output = new Uint8Array(limit);
  let length = 0;
  let at = 4;
  while (at < data.length) {
    if (at + 4 > data.length) throw new Error(`a block's length is cut off at byte ${at}`);
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LEGACY_MAGIC) continue;
    if (size === 0 || at + size > data.length)
      throw new Error(`the block at byte ${at} claims ${size} bytes`);
    length = unpackBlock(data, at, at + size, output, length);
    at += size;
  }
  return output.subarray(0, length);
}

/** One LZ4 block (lz4_Block_format.md) of data[at, end) to output[length...]; the new length. */
function unpackBlock(data: Uint8Array, at: number, end: number, output: Uint8Array, length: number): number {
  const start = length;
  const room = Math.min(output.length, start + BLOCK_MAX);
  let position = at;
  const next = (): number => {
    if (position >= end) throw new Error(`the block ends too early at byte ${position}`);
    return data[position++]!;
  };
  const extended = (count: number): number => {
    let total = count;
    if (count === 15) {
      let more: number;
      do {
        more = next();
        total += more;
      } while (more === 255);
    }
    return total;
  };
  while (true) {
    const token = next();
    const literals = extended(token >> 4);
    if (position + literals > end) throw new Error(`literals beyond the block's end at byte ${position}`);
    if (length + literals > room) throw tooMuch(room);
    output.set(data.subarray(position, position + literals), length);
    position += literals;
    length += literals;
    // The last sequence has literals only.
    if (position === end) return length;
    const distance = next() | (next() << 8);
    const match = extended(token & 15) + MIN_MATCH;
    if (distance === 0 || distance > length - start)
      throw new Error(`a match before the block's start at byte ${position}`);
    if (length + match > room) throw tooMuch(room);
    if (distance >= match) {
      output.copyWithin(length, length - distance, length - distance + match);
      length += match;
    } else {
      // The match overlaps what it writes: byte by byte, as the format means it.
      for (const stop = length + match; length < stop; length++) output[length] = output[length - distance]!;
    }
  }
}
