/** What the fuzzer's bytes are given to, for the parsers that are TypeScript. Anything but a BootError is a crash. */
import { parseBzImage } from '../../src/boot/bzimage.js';
import { unpackLegacyFrame } from '../../src/boot/decompress/lz4.js';
import { parseElf } from '../../src/boot/elf.js';
import { BootError } from '../../src/boot/error.js';
import { bytesReader } from '../../src/boot/reader.js';

function refused(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof BootError)) throw error;
  }
}

function unpackLz4(bytes: Uint8Array): void {
  try {
    unpackLegacyFrame(bytes, 1 << 16);
  } catch (error) {
    // Its words are plain errors; what JavaScript itself throws is a check that is missing.
    if (error instanceof TypeError || error instanceof RangeError) throw error;
  }
}

export const targets: Readonly<Record<string, (bytes: Uint8Array) => void>> = {
  bzimage: (bytes) => refused(() => parseBzImage(bytesReader(bytes), 'fuzz')),
  elf: (bytes) => refused(() => parseElf(bytesReader(bytes), 'fuzz')),
  lz4: unpackLz4,
};
