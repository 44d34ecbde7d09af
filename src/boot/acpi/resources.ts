import { buffer, type Term } from './aml.js';

/** One resource descriptor (ACPI 6.5, 6.4), to be put into a template. */
export type Resource = Uint8Array;

const MEMORY32_FIXED = 0x86;
const EXTENDED_INTERRUPT = 0x89;
const IO_PORT = 0x47;
const END_TAG = 0x79;

/** How an interrupt line signals. All are active-high and exclusive. */
export type Trigger = 'edge' | 'level';

/** A resource template, as `_CRS` holds it: the descriptors and an end tag without a checksum. */
export function resourceTemplate(...resources: readonly Resource[]): Term {
  return buffer(Buffer.concat([...resources, Uint8Array.of(END_TAG, 0)]));
}

/** `Memory32Fixed (ReadWrite, address, size)` (6.4.3.4): a range below 4 GiB. */
export function memory32Fixed(address: number, size: number): Resource {
  if (address < 0 || size <= 0 || address + size > 2 ** 32) {
    throw new RangeError(`ACPI: the range at 0x${address.toString(16)} (${size} bytes) is not below 4 GiB`);
  }
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, MEMORY32_FIXED);
  view.setUint16(1, 9, true);
  view.setUint8(3, 1); // read and write
  view.setUint32(4, address, true);
  view.setUint32(8, size, true);
  return bytes;
}

/** `Interrupt (ResourceConsumer, trigger, ActiveHigh, Exclusive) { gsi }` (6.4.3.6). */
export function interrupt(gsi: number, trigger: Trigger): Resource {
  const bytes = new Uint8Array(9);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, EXTENDED_INTERRUPT);
  view.setUint16(1, 6, true);
  view.setUint8(3, 1 | (trigger === 'edge' ? 1 << 1 : 0)); // consumer; active-high and exclusive are zeros
  view.setUint8(4, 1);
  view.setUint32(5, gsi, true);
  return bytes;
}

/** `IO (Decode16, port, port, 1, count)` (6.4.2.5). */
export function ioPorts(port: number, count: number): Resource {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, IO_PORT);
  view.setUint8(1, 1); // decodes 16 bits
  view.setUint16(2, port, true);
  view.setUint16(4, port, true);
  view.setUint8(6, 1);
  view.setUint8(7, count);
  return bytes;
}
