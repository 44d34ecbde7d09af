import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { tooMuch } from './unpacker.js';

/** RFC 1952, by Node's own zlib. */
export async function unpackGzip(data: Uint8Array, limit: number): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(data, { maxOutputLength: Math.max(limit, 1) });
  } catch (error) {
    if (error instanceof RangeError && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE')
      throw tooMuch(limit);
    throw error;
  }
}
