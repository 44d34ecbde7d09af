import lzma, { type Coders } from 'lzma-native';
import { tooMuch } from './unpacker.js';

/** A kernel's dictionary has at most 128 MiB (scripts/Makefile.lib); liblzma needs a little more for itself. */
const MEMORY_LIMIT = 256 << 20;
const CHUNK = 1 << 20;

/** The .xz format, with any of its filters (kernels use the x86 one), by liblzma. */
export function unpackXz(data: Uint8Array, limit: number): Promise<Uint8Array> {
  return decode('streamDecoder', data, limit);
}

/** The .lzma format of LZMA Utils ("LZMA_alone"), by liblzma. */
export function unpackLzma(data: Uint8Array, limit: number): Promise<Uint8Array> {
  return decode('aloneDecoder', data, limit);
}

function decode(coder: Coders, data: Uint8Array, limit: number): Promise<Uint8Array> {
  return new Promise<Uint8Array>((resolve, reject) => {
    const stream = lzma.createStream(coder, { memlimit: MEMORY_LIMIT, bufsize: CHUNK });
    const chunks: Uint8Array[] = [];
    let total = 0;
    const fail = (error: Error) => {
      stream.removeAllListeners('data');
      stream.destroy();
      reject(error);
    };
    stream.on('data', (chunk: Uint8Array) => {
      total += chunk.length;
      if (total > limit) fail(tooMuch(limit));
      else chunks.push(chunk);
    });
    stream.on('error', fail);
    stream.on('end', () => resolve(Buffer.concat(chunks, total)));
    // In pieces, so that the library does not take in (and unpack) everything before the limit is looked at.
    let offset = 0;
    const feed = (): void => {
      while (!stream.destroyed) {
        if (offset >= data.length) {
          stream.end();
          return;
        }
        const piece = data.subarray(offset, offset + CHUNK);
        offset += CHUNK;
        if (!stream.write(Buffer.from(piece.buffer, piece.byteOffset, piece.length))) {
          stream.once('drain', feed);
          return;
        }
      }
    };
    feed();
  });
}
