/**
 * Where things are in a guest's physical memory. RAM lies from 0 to at most 3 GiB, the rest of it from 4 GiB on; what
 * is between belongs to devices.
 */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Size of a page, in bytes. */
export const PAGE_SIZE = 4 * KIB;

/** The GDT of the boot processor's first instructions. */
export const GDT_ADDRESS = 0x500;
/** struct boot_params, the zero page. */
export const ZERO_PAGE_ADDRESS = 0x7000;
/** The identity-mapping page tables: at most six pages. */
export const PAGE_TABLES_ADDRESS = 0x9000;
/** The command line, ended by a NUL; there is room for COMMAND_LINE_SIZE bytes. */
export const COMMAND_LINE_ADDRESS = 0x20000;
export const COMMAND_LINE_SIZE = 0x10000;
/** End of the conventional memory below 640 KiB. */
export const LOW_MEMORY_END = 0x9fc00;
/** The ACPI RSDP, with the other tables behind it up to ACPI_END. */
export const ACPI_ADDRESS = 0xe0000;
export const ACPI_END = 0x100000;
/** Where a kernel may be: from 1 MiB on. */
export const HIGH_MEMORY_START = 0x100000;

/** The devices' gap between low and high RAM. */
export const GAP_START = 3 * GIB;
export const GAP_END = 4 * GIB;

/** virtio-mmio device n has its registers at VIRTIO_MMIO_ADDRESS + n * VIRTIO_MMIO_STRIDE. */
export const VIRTIO_MMIO_ADDRESS = 0xc000_0000;
export const VIRTIO_MMIO_STRIDE = 0x1000;
export const VIRTIO_MMIO_SIZE = 0x200;
/** The interrupts (GSIs) of the virtio-mmio devices, in order. */
export const VIRTIO_MMIO_GSIS: readonly number[] = [
  5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
];
/** The power device: ACPI sleep control (+0), sleep status (+1) and reset (+2) registers. */
export const POWER_ADDRESS = 0xc00f_0000;
/** pvpanic's one register. */
export const PVPANIC_ADDRESS = 0xc00f_1000;
export const PVPANIC_SIZE = 2;
export const IOAPIC_ADDRESS = 0xfec0_0000;
export const LOCAL_APIC_ADDRESS = 0xfee0_0000;
/** The first serial port. */
export const COM1_PORT = 0x3f8;
export const COM1_GSI = 4;

/** The least memory a machine may have, and the most: the address space of the smallest hosts, less the gap. */
export const MEMORY_MIN = 1 * MIB;
export const MEMORY_MAX = 2 ** 39 - GIB;

/** A range of guest physical memory, in bytes. */
export interface MemoryRange {
  readonly address: number;
  readonly size: number;
}

/** What an e820 entry says of a range (ACPI 6.5, 15.1 and table 15.10). */
export const E820_RAM = 1;
export const E820_RESERVED = 2;

export interface E820Entry extends MemoryRange {
  readonly type: number;
}

/**
 * The RAM of a machine with `size` bytes of memory: one range, or two where it does not fit below the gap.
 * @throws RangeError where the size is no multiple of a page or out of bounds.
 */
export function ramRegions(size: number): MemoryRange[] {
  if (!Number.isSafeInteger(size) || size < MEMORY_MIN || size > MEMORY_MAX) {
    throw new RangeError(`memory: ${size} bytes; expected from 1 MiB to ${MEMORY_MAX / GIB} GiB`);
  }
  if (size % PAGE_SIZE !== 0) throw new RangeError(`memory: ${size} bytes are not a multiple of 4096`);
  const low = Math.min(size, GAP_START);
  const regions = [{ address: 0, size: low }];
  if (size > low) regions.push({ address: GAP_END, size: size - low });
  return regions;
}

/** The e820 map of a machine with `size` bytes of memory: RAM, and the place of the ACPI tables as reserved. */
export function e820(size: number): E820Entry[] {
  const [low, high] = ramRegions(size);
  const entries: E820Entry[] = [
    { address: 0, size: LOW_MEMORY_END, type: E820_RAM },
    { address: ACPI_ADDRESS, size: ACPI_END - ACPI_ADDRESS, type: E820_RESERVED },
  ];
  const end = low?.size ?? 0;
  if (end > HIGH_MEMORY_START) {
    entries.push({ address: HIGH_MEMORY_START, size: end - HIGH_MEMORY_START, type: E820_RAM });
  }
  if (high !== undefined) entries.push({ ...high, type: E820_RAM });
  return entries;
}
