import t from 'tap';
import * as layout from '../../../src/memory/layout.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

t.test('RAM below the gap, and the rest above it', async (t) => {
  t.same(layout.ramRegions(128 * MIB), [{ address: 0, size: 128 * MIB }]);
  t.same(layout.ramRegions(3 * GIB), [{ address: 0, size: 3 * GIB }]);
  t.same(layout.ramRegions(8 * GIB), [
    { address: 0, size: 3 * GIB },
    { address: 4 * GIB, size: 5 * GIB },
  ]);
});

t.test('sizes that no machine can have', async (t) => {
  for (const size of [0, -1, 4096, 1.5, Number.NaN, 2 ** 50, MIB + 1, Number.POSITIVE_INFINITY]) {
    t.throws(() => layout.ramRegions(size), RangeError, String(size));
  }
});

t.test('the e820 map lists all RAM but what lies under the tables', async (t) => {
  t.same(layout.e820(128 * MIB), [
    { address: 0, size: 0x9fc00, type: layout.E820_RAM },
    { address: 0xe0000, size: 0x20000, type: layout.E820_RESERVED },
    { address: MIB, size: 127 * MIB, type: layout.E820_RAM },
  ]);
  const large = layout.e820(8 * GIB);
  t.same(large.at(-1), { address: 4 * GIB, size: 5 * GIB, type: layout.E820_RAM });
  t.same(layout.e820(MIB).length, 2);
  for (const [index, entry] of large.entries()) {
    const before = large[index - 1];
    t.ok(before === undefined || before.address + before.size <= entry.address, 'ascending and disjoint');
  }
});

t.test('nothing of the boot lies on anything else', async (t) => {
  const places = [
    { address: layout.GDT_ADDRESS, size: 0x100 },
    { address: layout.ZERO_PAGE_ADDRESS, size: 4096 },
    { address: layout.PAGE_TABLES_ADDRESS, size: 6 * 4096 },
    { address: layout.COMMAND_LINE_ADDRESS, size: layout.COMMAND_LINE_SIZE },
    { address: layout.ACPI_ADDRESS, size: layout.ACPI_END - layout.ACPI_ADDRESS },
  ];
  for (const [index, place] of places.entries()) {
    t.ok(place.address + place.size <= (places[index + 1]?.address ?? layout.HIGH_MEMORY_START));
  }
  const devices = layout.VIRTIO_MMIO_GSIS.length * layout.VIRTIO_MMIO_STRIDE;
  t.ok(layout.VIRTIO_MMIO_ADDRESS >= layout.GAP_START);
  t.ok(layout.VIRTIO_MMIO_ADDRESS + devices <= layout.POWER_ADDRESS);
  t.ok(layout.LOCAL_APIC_ADDRESS < layout.GAP_END);
  const gsis = [...layout.VIRTIO_MMIO_GSIS, layout.COM1_GSI];
  t.equal(new Set(gsis).size, gsis.length, 'no interrupt is shared');
  t.ok(gsis.every((gsi) => gsi < 24));
});
