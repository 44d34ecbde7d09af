import t from 'tap';
import * as aml from '../../../src/boot/acpi/aml.js';
import { interrupt, ioPorts, memory32Fixed, resourceTemplate } from '../../../src/boot/acpi/resources.js';
import { type AcpiMachine, buildAcpiTables } from '../../../src/boot/acpi/tables.js';
import { type AmlObject, readTables, walkAml } from '../../support/acpi-reader.js';

const BASE = 0xe0000;
const ROOM = 0x20000;
const machine: AcpiMachine = {
  apicIds: [0, 1, 254, 255, 300],
  localApicAddress: 0xfee0_0000,
  ioApic: { id: 7, address: 0xfec0_0000, gsiBase: 0 },
  virtioMmio: [
    { address: 0xc000_0000, size: 0x200, gsi: 5 },
    { address: 0xc000_1000, size: 0x200, gsi: 16, trigger: 'level' },
  ],
  powerAddress: 0xc00f_0000,
  pvpanic: { address: 0xc00f_1000, size: 2 },
  serial: { port: 0x3f8, gsi: 4 },
  processorDevices: true,
};

const hex = (bytes: Uint8Array | readonly number[]) => Buffer.from(bytes).toString('hex');
const find = (objects: readonly AmlObject[], name: string): AmlObject => {
  for (const object of objects) {
    if (object.name === name) return object;
    const inside = object.children === undefined ? undefined : findIn(object.children, name);
    if (inside !== undefined) return inside;
  }
  throw new Error(`no ${name}`);
};
const findIn = (objects: readonly AmlObject[], name: string): AmlObject | undefined => {
  try {
    return find(objects, name);
  } catch {
    return undefined;
  }
};

t.test('the tables are found from the RSDP, and their sums are right', async (t) => {
  const tables = readTables(buildAcpiTables(machine, BASE, ROOM), BASE);
  t.same([...tables.keys()].sort(), ['APIC', 'DSDT', 'FACP', 'XSDT']);
});

t.test('the FADT of a machine with reduced hardware', async (t) => {
  const fadt = readTables(buildAcpiTables(machine, BASE, ROOM), BASE).get('FACP')!;
  t.equal(fadt.byteLength, 276);
  t.equal(fadt.getUint8(8), 6);
  t.equal(fadt.getUint32(112, true) & (1 << 20), 1 << 20, 'HW_REDUCED_ACPI');
  t.equal(fadt.getUint32(112, true) & (1 << 10), 1 << 10, 'RESET_REG_SUP');
  t.equal(fadt.getUint16(109, true) & 2, 0, 'no i8042');
  for (const [offset, address] of [
    [116, 0xc00f_0002],
    [244, 0xc00f_0000],
    [256, 0xc00f_0001],
  ] as const) {
    t.same(
      [0, 1, 2, 3].map((n) => fadt.getUint8(offset + n)),
      [0, 8, 0, 1],
      'a byte in memory',
    );
    t.equal(Number(fadt.getBigUint64(offset + 4, true)), address);
  }
  t.equal(fadt.getUint8(128), 1, 'the reset value');
  const other = buildAcpiTables({ ...machine, i8042: true, resetValue: 6 }, BASE, ROOM);
  t.equal(readTables(other, BASE).get('FACP')!.getUint16(109, true) & 2, 2);
  t.equal(readTables(other, BASE).get('FACP')!.getUint8(128), 6);
});

t.test('the MADT: local APICs, x2APIC entries from 255 on, the IOAPIC', async (t) => {
  const madt = readTables(buildAcpiTables(machine, BASE, ROOM), BASE).get('APIC')!;
  t.equal(madt.getUint32(36, true), 0xfee0_0000);
  const entries: number[][] = [];
  for (let at = 44; at < madt.byteLength; at += madt.getUint8(at + 1)) {
    const type = madt.getUint8(at);
    if (type === 0)
      entries.push([type, madt.getUint8(at + 3), madt.getUint32(at + 4, true), madt.getUint8(at + 2)]);
    if (type === 9) {
      entries.push([type, ...[4, 8, 12].map((offset) => madt.getUint32(at + offset, true))]);
    }
    if (type === 1)
      entries.push([type, madt.getUint8(at + 2), madt.getUint32(at + 4, true), madt.getUint32(at + 8, true)]);
  }
  t.same(entries, [
    [0, 0, 1, 0],
    [0, 1, 1, 1],
    [0, 254, 1, 2],
    [9, 255, 1, 3],
    [9, 300, 1, 4],
    [1, 7, 0xfec0_0000, 0],
  ]);
});

t.test('the DSDT announces the devices', async (t) => {
  const dsdt = readTables(buildAcpiTables(machine, BASE, ROOM), BASE).get('DSDT')!;
  const objects = walkAml(new Uint8Array(dsdt.buffer, dsdt.byteOffset + 36, dsdt.byteLength - 36));
  t.same(find(objects, '_S5_').value, [5, 0, 0, 0]);
  const devices = find(objects, '_SB_').children!;
  t.same(
    devices.map((device) => device.name),
    ['VR00', 'VR01', 'PEVT', 'COM1', 'C000', 'C001', 'C002', 'C003', 'C004'],
  );
  const first = find(devices, 'VR00').children!;
  t.equal(find(first, '_HID').value, 'LNRO0005');
  t.equal(find(first, '_UID').value, 0);
  t.equal(
    hex(find(first, '_CRS').value as Uint8Array),
    '86090001000000c000020000' + '890600030105000000' + '7900',
  );
  const second = find(find(devices, 'VR01').children!, '_CRS').value as Uint8Array;
  t.equal(hex(second), '86090001001000c000020000' + '890600010110000000' + '7900');
  t.equal(find(find(devices, 'PEVT').children!, '_HID').value, 'QEMU0001');
  t.equal(find(find(devices, 'COM1').children!, '_HID').value, 0x0105_d041);
  t.equal(
    hex(find(find(devices, 'COM1').children!, '_CRS').value as Uint8Array),
    '4701f803f8030108' + '890600030104000000' + '7900',
  );
  t.equal(find(find(devices, 'C004').children!, '_UID').value, 4);
});

t.test('a bare machine', async (t) => {
  const { pvpanic, serial, ...bare } = machine;
  const tables = readTables(
    buildAcpiTables({ ...bare, virtioMmio: [], processorDevices: false }, BASE, ROOM),
    BASE,
  );
  const dsdt = tables.get('DSDT')!;
  const objects = walkAml(new Uint8Array(dsdt.buffer, dsdt.byteOffset + 36, dsdt.byteLength - 36));
  t.same(find(objects, '_SB_').children, []);
});

t.test('a machine of every size keeps whole tables', async (t) => {
  for (const count of [1, 3, 17, 24, 200]) {
    const virtioMmio = Array.from({ length: count }, (_, n) => ({
      address: 0xc000_0000 + n * 4096,
      size: 512,
      gsi: n,
    }));
    const block = buildAcpiTables({ ...machine, virtioMmio }, BASE, ROOM);
    const dsdt = readTables(block, BASE).get('DSDT')!;
    const objects = walkAml(new Uint8Array(dsdt.buffer, dsdt.byteOffset + 36, dsdt.byteLength - 36));
    t.equal(find(objects, '_SB_').children!.length, count + 7);
  }
});

t.test('tables that do not fit', async (t) => {
  t.throws(() => buildAcpiTables(machine, BASE, 500), { name: 'BootError', message: /500 bytes/ });
  const far = { ...machine, virtioMmio: [{ address: 2 ** 32, size: 512, gsi: 5 }] };
  t.throws(() => buildAcpiTables(far, BASE, ROOM), { message: /0x100000000 .* not below 4 GiB/ });
});

t.test('AML: names', async (t) => {
  t.equal(hex(aml.name('_S5')), hex(Buffer.from('_S5_')));
  t.equal(hex(aml.name('\\_SB')), hex(Buffer.from('\\_SB_')));
  t.equal(hex(aml.name('_SB.COM1')), hex(Buffer.from('._SB_COM1')));
  t.equal(hex(aml.name('\\A.B.C')), hex(Buffer.from('\\/\x03A___B___C___')));
  for (const bad of ['', 'a', 'ABCDE', '1ABC', 'A..B', 'A B', '\\'])
    t.throws(() => aml.name(bad), RangeError, bad);
});

t.test('AML: integers in their shortest form', async (t) => {
  for (const [value, bytes] of [
    [0, '00'],
    [1, '01'],
    [2, '0a02'],
    [255, '0aff'],
    [256, '0b0001'],
    [65536, '0c00000100'],
    [2 ** 32, '0e0000000001000000'],
  ] as const) {
    t.equal(hex(aml.integer(value)), bytes);
  }
  for (const bad of [-1, 0.5, Number.NaN, 2 ** 60]) t.throws(() => aml.integer(bad), RangeError);
});

t.test('AML: lengths of one to four bytes', async (t) => {
  for (const size of [0, 58, 59, 60, 4089, 4090, 4091, 4100, 1_048_560, 1_048_570, 1_048_580, 2_000_000]) {
    const data = find(
      walkAml(Uint8Array.from(aml.define('DATA', aml.buffer(Array.from({ length: size }, () => 0))))),
      'DATA',
    ).value;
    t.equal((data as Uint8Array).length, size);
  }
});

t.test('AML: strings, packages, methods', async (t) => {
  t.equal(hex(aml.string('AB')), '0d414200');
  t.throws(() => aml.string('ä'), RangeError);
  t.throws(() => aml.string('a\0b'), RangeError);
  t.equal(hex(aml.packageOf(aml.integer(1), aml.integer(2))), '120502010a02');
  t.throws(() => aml.packageOf(...Array.from({ length: 256 }, () => aml.integer(0))), RangeError);
  t.equal(
    hex(aml.method('_STA', 0, aml.returns(aml.integer(15)))),
    `1409${hex(Buffer.from('_STA'))}00a40a0f`,
  );
  t.throws(() => aml.method('_STA', 8), RangeError);
  t.throws(() => aml.eisaId('PNP05'), RangeError);
  t.equal(hex(aml.terms(aml.integer(0), aml.integer(1))), '0001');
});

t.test('resources', async (t) => {
  t.equal(hex(resourceTemplate()), '11050a027900');
  t.equal(hex(ioPorts(0x60, 1)), '4701600060000101');
  t.equal(hex(interrupt(9, 'level')), '890600010109000000');
  t.throws(() => memory32Fixed(2 ** 32 - 1, 2), RangeError);
  t.throws(() => memory32Fixed(-1, 2), RangeError);
  t.throws(() => memory32Fixed(0, 0), RangeError);
});
