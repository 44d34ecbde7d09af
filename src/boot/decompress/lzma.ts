import lzma, { type Coders } from 'lzma-native';
import { tooMuch } from './unpacker.js';

/** A kernel's dictionary has at most 128 MiB (scripts/Makefile.lib); liblzma needs a little more for itself. */
const MEMORY_LIMIT = 256 << 20;
/** Bytes that come out at a time, and that go in. */
const CHUNK = 1 << 20;
const PIECE = 8 << 10;

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
    // A piece is unpacked as a whole before the limit is looked at, so the pieces are small: LZMA makes at most some
    // 7,000 bytes of one.
    let offset = 0;
    const feed = (): void => {
      if (stream.destroyed) return;
      const piece = data.subarray(offset, offset + PIECE);
      offset += piece.length;
      if (piece.length === 0) stream.end();
      else stream.write(Buffer.from(piece.buffer, piece.byteOffset, piece.length), () => setImmediate(feed));
    };
    feed();
  });
}
