import bunzip from 'seek-bzip';
import { tooMuch } from './unpacker.js';

/** The bzip2 format, by seek-bzip (which checks each block's CRC). */
export async function unpackBzip2(data: Uint8Array, limit: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(limit);
  let length = 0;
  let position = 0;
  bunzip.decode(
    {
      // seek-bzip would read zeros behind the end for ever.
      readByte: () => {
        const byte = data[position++];
        if (byte === undefined) throw new Error('the data end too early');
        return byte;
      },
      read: (buffer, offset, count) => {
        const part = data.subarray(position, position + count);
        buffer.set(part, offset);
        position += part.length;
        return part.length;
      },
      eof: () => position >= data.length,
    },
    {
      writeByte: (byte) => {
        if (length === limit) throw tooMuch(limit);
        bytes[length++] = byte;
      },
    },
  );
  return bytes.subarray(0, length);
}
