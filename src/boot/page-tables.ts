import { PAGE_SIZE } from '../memory/layout.js';

const PRESENT = 1n << 0n;
const WRITABLE = 1n << 1n;
const LARGE = 1n << 7n;
const LARGE_PAGE = 2n << 20n;
const ENTRIES = 512;

/**
 * Page tables that map the first `gib` GiB of guest physical memory onto themselves, in pages of 2 MiB (Intel SDM
 * volume 3A, 4.5): a PML4, a page directory pointer table, and a page directory for each GiB.
 * @param address where they will be: a multiple of 4096; the PML4 comes first.
 * @param gib 1 to 4.
 * @returns (2 + gib) pages.
 */
export function identityPageTables(address: number, gib: number): Uint8Array {
  if (!Number.isInteger(gib) || gib < 1 || gib > 4)
    throw new RangeError(`page tables for ${gib} GiB: expected 1 to 4`);
  if (address % PAGE_SIZE !== 0)
    throw new RangeError(`page tables at 0x${address.toString(16)}: not page-aligned`);
  const bytes = new Uint8Array((2 + gib) * PAGE_SIZE);
  const tables = new BigUint64Array(bytes.buffer);
  const base = BigInt(address);
  const page = (index: number) => base + BigInt(index * PAGE_SIZE);
  tables[0] = page(1) | PRESENT | WRITABLE;
  for (let table = 0; table < gib; table++) {
    tables[ENTRIES + table] = page(2 + table) | PRESENT | WRITABLE;
  }
  for (let index = 0; index < gib * ENTRIES; index++) {
    tables[2 * ENTRIES + index] = (BigInt(index) * LARGE_PAGE) | PRESENT | WRITABLE | LARGE;
  }
  return bytes;
}
