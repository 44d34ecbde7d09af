import { isElf } from './elf.js';
import { BootError } from './error.js';
import type { FileReader } from './reader.js';

/**
 * The setup header of a Linux x86 bzImage (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"), with what
 * a boot by the 64-bit protocol needs.
 */
export interface BzImage {
  /** Boot protocol version, as 0x020f for 2.15. */
  readonly version: number;
  /** The release string that the kernel carries (`6.1.0-... #1 SMP ...`), empty where it has none. */
  readonly kernelVersion: string;
  /** The header's bytes from 0x1f1 (setup_sects) to its end, to be copied into the zero page. */
  readonly setupHeader: Uint8Array;
  /** Offset in the file of the protected-mode code: behind the boot sector and the setup sectors. */
  readonly codeOffset: number;
  /** Bytes of protected-mode code. */
  readonly codeSize: number;
  /** Offset in the file of the compressed kernel. */
  readonly payloadOffset: number;
  /** Bytes of compressed kernel. */
  readonly payloadLength: number;
  /** The protected-mode code may be loaded at any multiple of `alignment` (relocatable_kernel). */
  readonly relocatable: boolean;
  /** kernel_alignment, in bytes: a power of two. */
  readonly alignment: number;
  /** pref_address: where the kernel wants to be. */
  readonly preferredAddress: number;
  /** init_size: bytes of memory from the load address that must be free. */
  readonly initSize: number;
  /** initrd_addr_max: the highest address that a byte of the initrd may have. */
  readonly initrdAddressMax: number;
  /** cmdline_size: the longest command line, without its NUL. */
  readonly commandLineMax: number;
}

/** The setup header's offsets in the file; in the zero page it has the same ones. */
export const SETUP_HEADER_START = 0x1f1;
const SETUP_HEADER_END_MAX = 0x290;
const BOOT_FLAG = 0x1fe;
const JUMP_OFFSET = 0x201;
const HEADER_MAGIC = 0x202;
const VERSION = 0x206;
const KERNEL_VERSION = 0x20e;
const LOADFLAGS = 0x211;
const INITRD_ADDR_MAX = 0x22c;
const KERNEL_ALIGNMENT = 0x230;
const RELOCATABLE_KERNEL = 0x234;
const XLOADFLAGS = 0x236;
const CMDLINE_SIZE = 0x238;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const PREF_ADDRESS = 0x258;
const INIT_SIZE = 0x260;
const HEADER_SIZE = 0x264;
const HDRS = 0x53726448;
const LOADED_HIGH = 0x01;
const XLF_KERNEL_64 = 0x01;
const VERSION_MIN = 0x020c;
const SECTOR = 512;

/** Offset of the 64-bit entry point in the protected-mode code (boot.rst, "64-bit Boot Protocol"). */
export const ENTRY_64 = 0x200;

/** Whether these first bytes of a file (at least 0x206) are a Linux x86 image's. */
export function isBzImage(head: Uint8Array): boolean {
  if (head.length < HEADER_MAGIC + 4) return false;
  const view = viewOf(head);
  return view.getUint16(BOOT_FLAG, true) === 0xaa55 && view.getUint32(HEADER_MAGIC, true) === HDRS;
}

/**
 * Reads a bzImage's setup header.
 * @param name how messages call the file.
 * @throws BootError where it is something else (and says what), truncated, or too old.
 */
export function parseBzImage(file: FileReader, name: string): BzImage {
  const head = file.read(0, SETUP_HEADER_END_MAX);
  if (!isBzImage(head)) throw new BootError(...describeForeign(head, name));
  if (head.length < HEADER_SIZE) throw new BootError('truncated', `${name}: the setup header is truncated`);
  const view = viewOf(head);
  const version = view.getUint16(VERSION, true);
  if (version < VERSION_MIN) {
    const words = `${version >> 8}.${String(version & 0xff).padStart(2, '0')}`;
    throw new BootError(
      'unsupported',
      `${name}: boot protocol ${words} is too old: 2.12 or later is needed (Linux 3.8)`,
    );
  }
  if ((view.getUint16(XLOADFLAGS, true) & XLF_KERNEL_64) === 0) {
    throw new BootError(
      'wrong-architecture',
      `${name}: xloadflags: a 32-bit kernel, without a 64-bit entry point`,
    );
  }
  if ((view.getUint8(LOADFLAGS) & LOADED_HIGH) === 0) {
    throw new BootError(
      'unsupported',
      `${name}: loadflags: a zImage, which loads below 1 MiB; a bzImage is needed`,
    );
  }
  const headerEnd = HEADER_MAGIC + view.getUint8(JUMP_OFFSET);
  if (headerEnd < HEADER_SIZE || headerEnd > SETUP_HEADER_END_MAX) {
    throw new BootError(
      'malformed',
      `${name}: jump: the setup header cannot end at 0x${headerEnd.toString(16)}`,
    );
  }
  if (head.length < headerEnd) throw new BootError('truncated', `${name}: the setup header is truncated`);
  // Zero stands for four sectors (boot.rst, setup_sects).
  const setupSectors = view.getUint8(SETUP_HEADER_START) || 4;
  const codeOffset = (setupSectors + 1) * SECTOR;
  const codeSize = file.size - codeOffset;
  const payloadStart = view.getUint32(PAYLOAD_OFFSET, true);
  const payloadLength = view.getUint32(PAYLOAD_LENGTH, true);
  if (codeSize <= ENTRY_64 || payloadStart + payloadLength > codeSize) {
    const end = codeOffset + payloadStart + payloadLength;
    throw new BootError(
      'truncated',
      `${name}: truncated: ${file.size} bytes, but its payload ends at byte ${end}`,
    );
  }
  if (payloadLength < 8)
    throw new BootError('malformed', `${name}: payload_length: no compressed kernel in it`);
  const alignment = view.getUint32(KERNEL_ALIGNMENT, true);
  if (alignment < 4096 || (alignment & (alignment - 1)) !== 0) {
    throw new BootError(
      'malformed',
      `${name}: kernel_alignment: ${alignment} is not a power of two from 4096 on`,
    );
  }
  const preferredAddress = view.getBigUint64(PREF_ADDRESS, true);
  if (preferredAddress < 0x100000n || preferredAddress >= 0x1_0000_0000n) {
    const words = `0x${preferredAddress.toString(16)} is not between 1 MiB and 4 GiB`;
    throw new BootError('malformed', `${name}: pref_address: ${words}`);
  }
  const initSize = view.getUint32(INIT_SIZE, true);
  if (initSize === 0) throw new BootError('malformed', `${name}: init_size: zero`);
  const commandLineMax = view.getUint32(CMDLINE_SIZE, true);
  return {
    version,
    kernelVersion: kernelVersion(file, view.getUint16(KERNEL_VERSION, true), codeOffset),
    setupHeader: head.slice(SETUP_HEADER_START, headerEnd),
    codeOffset,
    codeSize,
    payloadOffset: codeOffset + payloadStart,
    payloadLength,
    relocatable: view.getUint8(RELOCATABLE_KERNEL) !== 0,
    alignment,
    preferredAddress: Number(preferredAddress),
    initSize,
    initrdAddressMax: view.getUint32(INITRD_ADDR_MAX, true),
    commandLineMax,
  };
}

/** boot.rst, kernel_version: an offset from 0x200, zero where there is none, inside the setup sectors. */
function kernelVersion(file: FileReader, pointer: number, codeOffset: number): string {
  if (pointer === 0 || pointer + SECTOR >= codeOffset) return '';
  const bytes = file.read(pointer + SECTOR, Math.min(256, codeOffset - pointer - SECTOR));
  const end = bytes.indexOf(0);
  const text = String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
  return /^[ -~]*$/.test(text) ? text : '';
}

/** Says what a file is that is no x86 kernel, so that nobody has to guess. */
function describeForeign(head: Uint8Array, name: string): ConstructorParameters<typeof BootError> {
  const starts = (...bytes: number[]) => bytes.every((byte, index) => head[index] === byte);
  const at = (offset: number, text: string) =>
    [...text].every((letter, index) => head[offset + index] === letter.charCodeAt(0));
  const foreign = (what: string): ConstructorParameters<typeof BootError> => [
    'wrong-architecture',
    `${name}: a kernel for ${what}, not for x86-64`,
  ];
  const not = (what: string): ConstructorParameters<typeof BootError> => [
    'not-a-kernel',
    `${name}: not a kernel: ${what}; a bzImage or vmlinux is needed`,
  ];
  if (head.length === 0) return not('an empty file');
  if (at(56, 'ARMd')) return foreign('arm64');
  if (at(56, 'RSC\x05')) return foreign('RISC-V');
  if (starts(0x18, 0x28, 0x6f, 0x01) || [0x18, 0x28, 0x6f, 0x01].every((b, i) => head[0x24 + i] === b)) {
    return foreign('ARM (32-bit)');
  }
  if (isElf(head)) return not('an ELF file, where a bzImage was expected');
  if (starts(0x1f, 0x8b)) return not('gzip-compressed data (unpack it first)');
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0)) return not('xz-compressed data (unpack it first)');
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return not('zstd-compressed data (unpack it first)');
  if (at(0, 'BZh')) return not('bzip2-compressed data (unpack it first)');
  if (starts(0x27, 0x05, 0x19, 0x56)) return not('a U-Boot image');
  if (at(0, '070701') || at(0, '070702')) return not('a cpio archive (an initramfs?)');
  if (at(0, 'QFI\xfb')) return not('a qcow2 disk image');
  if (at(0, '!<arch>')) return not('an archive (a Debian package?)');
  if (at(0, 'MZ')) return not('a PE program (EFI?) without a Linux setup header');
  if (head.length >= 0x200 && head[BOOT_FLAG] === 0x55 && head[BOOT_FLAG + 1] === 0xaa) {
    return not('a boot sector without a Linux setup header (a disk image?)');
  }
  if (head.every((byte) => (byte >= 32 && byte < 127) || (byte >= 9 && byte <= 13)))
    return not('a text file');
  if (head.length < HEADER_MAGIC + 4) return not(`${head.length} bytes, too short for one`);
  return not('no Linux setup header (0xaa55 at 0x1fe and "HdrS" at 0x202)');
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
