import t from 'tap';
import { BOOT_CS, BOOT_DS, buildGdt, linux64Entry, pvhEntry } from '../../../src/boot/entry.js';
import { identityPageTables } from '../../../src/boot/page-tables.js';

t.test('the 64-bit entry is in long mode, with paging on', async (t) => {
  const state = linux64Entry(0x100_0000, 0x7000, 0x9000);
  t.match(state, { rip: 0x100_0000, rsi: 0x7000, rflags: 2, cr3: 0x9000, cr4: 0x20, efer: 0x500 });
  t.equal(state.cr0, 0x8000_0011);
  t.match(state.cs, { selector: 0x10, l: true, db: false, type: 11, present: true, dpl: 0 });
  t.match(state.data, { selector: 0x18, l: false, db: true, type: 3 });
});

t.test('the PVH entry is in protected mode, with paging off', async (t) => {
  const state = pvhEntry(0x100_0040, 0x7000);
  t.match(state, { rip: 0x100_0040, rbx: 0x7000, cr0: 0x11, cr3: 0, cr4: 0, efer: 0 });
  t.match(state.cs, { l: false, db: true });
});

t.test('the GDT holds what the registers hold', async (t) => {
  const gdt = new DataView(buildGdt(linux64Entry(0, 0, 0)).buffer);
  t.equal(gdt.byteLength, 48);
  t.equal(gdt.getBigUint64(0, true), 0n);
  t.equal(gdt.getBigUint64(BOOT_CS, true), 0x00af_9b00_0000_ffffn, 'flat 64-bit code');
  t.equal(gdt.getBigUint64(BOOT_DS, true), 0x00cf_9300_0000_ffffn, 'flat data');
  t.equal(gdt.getBigUint64(0x20, true), 0x0000_8b00_0000_0067n, 'a busy TSS');
  const pvh = new DataView(buildGdt(pvhEntry(0, 0)).buffer);
  t.equal(pvh.getBigUint64(BOOT_CS, true), 0x00cf_9b00_0000_ffffn, 'flat 32-bit code');
});

/** What a processor would make of an address; undefined where it would fault. */
function translate(tables: Uint8Array, base: number, address: number): number | undefined {
  const view = new DataView(tables.buffer);
  const entry = (table: number, index: number) => Number(view.getBigUint64(table - base + index * 8, true));
  const pml4e = entry(base, Math.floor(address / 2 ** 39) % 512);
  if ((pml4e & 1) === 0) return undefined;
  const pdpte = entry(pml4e - (pml4e % 4096), Math.floor(address / 2 ** 30) % 512);
  if ((pdpte & 1) === 0) return undefined;
  const pde = entry(pdpte - (pdpte % 4096), Math.floor(address / 2 ** 21) % 512);
  if ((pde & 0x83) !== 0x83) return undefined;
  return pde - (pde % 2 ** 21) + (address % 2 ** 21);
}

t.test('the page tables map low memory onto itself, and nothing else', async (t) => {
  for (const gib of [1, 4]) {
    const tables = identityPageTables(0x9000, gib);
    t.equal(tables.length, (2 + gib) * 4096);
    for (const address of [0, 0x7000, 0x1f_ffff, 0x20_0000, 0x100_0000, 0x3fff_ffff]) {
      t.equal(translate(tables, 0x9000, address), address);
    }
    t.equal(translate(tables, 0x9000, 0xfee0_0000), gib === 4 ? 0xfee0_0000 : undefined);
    t.equal(translate(tables, 0x9000, gib * 2 ** 30), undefined);
  }
});

t.test('page tables that cannot be', async (t) => {
  for (const gib of [0, 5, 1.5]) t.throws(() => identityPageTables(0x9000, gib), RangeError);
  t.throws(() => identityPageTables(0x9001, 1), RangeError);
});
