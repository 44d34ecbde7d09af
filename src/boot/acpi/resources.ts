import { buffer, little, type Term, terms } from './aml.js';

/** One resource descriptor (ACPI 6.5, 6.4), to be put into a template. */
export type Resource = readonly number[];

const MEMORY32_FIXED = 0x86;
const EXTENDED_INTERRUPT = 0x89;
const IO_PORT = 0x47;
const END_TAG = 0x79;
const READ_WRITE = 1;
const DECODE_16 = 1;

/** How an interrupt line signals. All are active-high and exclusive. */
export type Trigger = 'edge' | 'level';

/** A resource template, as `_CRS` holds it: the descriptors and an end tag without a checksum. */
export function resourceTemplate(...resources: readonly Resource[]): Term {
  return buffer(terms(...resources, [END_TAG, 0]));
}

/** `Memory32Fixed (ReadWrite, address, size)` (6.4.3.4): a range below 4 GiB. */
export function memory32Fixed(address: number, size: number): Resource {
  if (address < 0 || size <= 0 || address + size > 2 ** 32) {
    throw new RangeError(`ACPI: the range at 0x${address.toString(16)} (${size} bytes) is not below 4 GiB`);
  }
  return terms([MEMORY32_FIXED, 9, 0, READ_WRITE], little(address, 4), little(size, 4));
}

/** `Interrupt (ResourceConsumer, trigger, ActiveHigh, Exclusive) { gsi }` (6.4.3.6). */
export function interrupt(gsi: number, trigger: Trigger): Resource {
  // Bit 0: consumer, bit 1: edge; active-high and exclusive are zeros.
  const flags = trigger === 'edge' ? 3 : 1;
  return terms([EXTENDED_INTERRUPT, 6, 0, flags, 1], little(gsi, 4));
}

/** `IO (Decode16, port, port, 1, count)` (6.4.2.5). */
export function ioPorts(port: number, count: number): Resource {
  return terms([IO_PORT, DECODE_16], little(port, 2), little(port, 2), [1, count]);
}
