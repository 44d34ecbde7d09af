import { ZSTDDecoder } from 'zstddec';

/** RFC 8878, by zstddec (libzstd's decoder in WebAssembly). */
export async function unpackZstd(data: Uint8Array, limit: number): Promise<Uint8Array> {
  const decoder = new ZSTDDecoder();
  await decoder.init();
  const bytes = decoder.decode(data, Math.max(limit, 1));
  // The library hands libzstd's error codes on as if they were lengths: nothing comes out.
  if (bytes.length === 0) throw new Error('the data are corrupt, truncated, or longer than announced');
  return bytes;
}
