import type { E820Entry, MemoryRange } from '../memory/layout.js';
import { SETUP_HEADER_START } from './bzimage.js';
import { BootError } from './error.js';

/** What the zero page tells the kernel. */
export interface BootParams {
  /** The bzImage's setup header from 0x1f1 on; null for a plain vmlinux, which has none. */
  readonly setupHeader: Uint8Array | null;
  /** Guest physical address of the command line, ended by a NUL. */
  readonly commandLineAddress: number;
  readonly initrd?: MemoryRange;
  readonly e820: readonly E820Entry[];
  /** Guest physical address of the ACPI RSDP; left out for a machine without ACPI. */
  readonly acpiRsdp?: number;
}

/** Size of struct boot_params, in bytes. */
export const BOOT_PARAMS_SIZE = 4096;

// Offsets in struct boot_params (Documentation/arch/x86/zero-page.rst and boot.rst).
const ACPI_RSDP_ADDR = 0x070;
const EXT_RAMDISK_IMAGE = 0x0c0;
const EXT_RAMDISK_SIZE = 0x0c4;
const EXT_CMD_LINE_PTR = 0x0c8;
const E820_ENTRIES = 0x1e8;
const VID_MODE = 0x1fa;
const BOOT_FLAG = 0x1fe;
const HEADER = 0x202;
const VERSION = 0x206;
const TYPE_OF_LOADER = 0x210;
const LOADFLAGS = 0x211;
const RAMDISK_IMAGE = 0x218;
const RAMDISK_SIZE = 0x21c;
const CMD_LINE_PTR = 0x228;
const KERNEL_ALIGNMENT = 0x230;
const SETUP_DATA = 0x250;
const E820_TABLE = 0x2d0;
const E820_ENTRY_SIZE = 20;
const E820_MAX_ENTRIES = 128;

const BOOT_FLAG_MAGIC = 0xaa55;
const HEADER_MAGIC = 0x53726448; // "HdrS"
const VERSION_2_15 = 0x020f;
const LOADER_UNKNOWN = 0xff;
const LOADED_HIGH = 0x01;
const VID_MODE_NORMAL = 0xffff;

/**
 * The zero page (struct boot_params) of a kernel entered by the 64-bit boot protocol.
 * @throws BootError where there are more e820 entries than it has room for (128).
 */
export function buildBootParams(params: BootParams): Uint8Array {
  const page = new Uint8Array(BOOT_PARAMS_SIZE);
  const view = new DataView(page.buffer);
  if (params.setupHeader !== null) {
    page.set(params.setupHeader, SETUP_HEADER_START);
  } else {
    view.setUint16(BOOT_FLAG, BOOT_FLAG_MAGIC, true);
    view.setUint32(HEADER, HEADER_MAGIC, true);
    view.setUint16(VERSION, VERSION_2_15, true);
    view.setUint32(KERNEL_ALIGNMENT, 0x1000000, true);
  }
  view.setUint16(VID_MODE, VID_MODE_NORMAL, true);
  view.setUint8(TYPE_OF_LOADER, LOADER_UNKNOWN);
  view.setUint8(LOADFLAGS, view.getUint8(LOADFLAGS) | LOADED_HIGH);
  view.setBigUint64(SETUP_DATA, 0n, true);
  setSplit(view, CMD_LINE_PTR, EXT_CMD_LINE_PTR, params.commandLineAddress);
  setSplit(view, RAMDISK_IMAGE, EXT_RAMDISK_IMAGE, params.initrd?.address ?? 0);
  setSplit(view, RAMDISK_SIZE, EXT_RAMDISK_SIZE, params.initrd?.size ?? 0);
  view.setBigUint64(ACPI_RSDP_ADDR, BigInt(params.acpiRsdp ?? 0), true);
  if (params.e820.length > E820_MAX_ENTRIES) {
    throw new BootError(
      'unsupported',
      `${params.e820.length} ranges of memory; the zero page takes ${E820_MAX_ENTRIES}`,
    );
  }
  view.setUint8(E820_ENTRIES, params.e820.length);
  params.e820.forEach((entry, index) => {
    const at = E820_TABLE + index * E820_ENTRY_SIZE;
    view.setBigUint64(at, BigInt(entry.address), true);
    view.setBigUint64(at + 8, BigInt(entry.size), true);
    view.setUint32(at + 16, entry.type, true);
  });
  return page;
}

/** A 64-bit value whose upper half lives elsewhere in the page. */
function setSplit(view: DataView, low: number, high: number, value: number): void {
  view.setUint32(low, value % 2 ** 32, true);
  view.setUint32(high, Math.floor(value / 2 ** 32), true);
}
