import { BootError } from '../error.js';
import {
  define,
  device,
  eisaId,
  integer,
  little,
  packageOf,
  scope,
  string,
  type Term,
  terms,
} from './aml.js';
import { interrupt, ioPorts, memory32Fixed, resourceTemplate, type Trigger } from './resources.js';

/** What of a machine ACPI announces. Addresses are guest physical, sizes in bytes. */
export interface AcpiMachine {
  /** Local APIC identifiers, one a vCPU; the boot processor's first. */
  readonly apicIds: readonly number[];
  readonly localApicAddress: number;
  readonly ioApic: { readonly id: number; readonly address: number; readonly gsiBase: number };
  readonly virtioMmio: readonly AcpiDevice[];
  /** The sleep control (+0), sleep status (+1) and reset (+2) registers, a byte each. */
  readonly powerAddress: number;
  /** What written to the reset register resets the machine; 1 unless given. */
  readonly resetValue?: number;
  readonly pvpanic?: { readonly address: number; readonly size: number };
  readonly serial?: { readonly port: number; readonly gsi: number };
  /** Whether there is an i8042 that a kernel without better means resets by; false unless given. */
  readonly i8042?: boolean;
  /**
   * Whether each vCPU is a device in the namespace as well (ACPI0007). The MADT suffices for Linux, which otherwise
   * spends start-up time on them; false unless given.
   */
  readonly processorDevices?: boolean;
}

/** A memory-mapped device with one interrupt. */
export interface AcpiDevice {
  readonly address: number;
  readonly size: number;
  readonly gsi: number;
  /** `edge` unless given: an irqfd pulses its line. */
  readonly trigger?: Trigger;
}

/** The SLP_TYP value of S5, soft off, as the power device expects it. */
const SLEEP_TYPE_S5 = 5;

const RSDP_SIZE = 36;
const HEADER_SIZE = 36;
const OEM_ID = 'TSVMM ';
const OEM_TABLE_ID = 'TSVMMVM ';
const CREATOR_ID = 'TSVM';
const REVISION = 1;

const FADT_SIZE = 276;
const FADT_WBINVD = 1 << 0;
const FADT_PWR_BUTTON = 1 << 4;
const FADT_SLP_BUTTON = 1 << 5;
const FADT_RESET_REG_SUP = 1 << 10;
const FADT_HW_REDUCED_ACPI = 1 << 20;
const IAPC_8042 = 1 << 1;
const IAPC_VGA_NOT_PRESENT = 1 << 2;
const IAPC_CMOS_RTC_NOT_PRESENT = 1 << 5;

const MADT_LOCAL_APIC = 0;
const MADT_IO_APIC = 1;
const MADT_LOCAL_X2APIC = 9;
const MADT_ENABLED = 1;
/** Local APIC identifiers from here on need x2APIC entries. */
const X2APIC_FROM = 255;

/**
 * The machine's ACPI tables as one block: the RSDP first, then DSDT, FADT, MADT and XSDT.
 * @param address where the block will be: a multiple of 16.
 * @param room bytes there are.
 * @throws BootError where the tables do not fit.
 */
export function buildAcpiTables(machine: AcpiMachine, address: number, room: number): Uint8Array {
  const block = new Uint8Array(room);
  let end = RSDP_SIZE;
  const place = (table: Uint8Array): number => {
    const at = Math.ceil(end / 16) * 16;
    if (at + table.length > room) {
      throw new BootError('unsupported', `the ACPI tables need more than the ${room} bytes that they have`);
    }
    block.set(table, at);
    end = at + table.length;
    return address + at;
  };
  const dsdt = place(buildDsdt(machine));
  const fadt = place(buildFadt(machine, dsdt));
  const madt = place(buildMadt(machine));
  const xsdt = place(buildXsdt([fadt, madt]));
  block.set(buildRsdp(xsdt));
  return block.subarray(0, end);
}

/** The Root System Description Pointer (ACPI 6.5, 5.2.5.3). */
export function buildRsdp(xsdt: number): Uint8Array {
  const bytes = new Uint8Array(RSDP_SIZE);
  const view = new DataView(bytes.buffer);
  setText(bytes, 0, 'RSD PTR ');
  setText(bytes, 9, OEM_ID);
  view.setUint8(15, 2);
  view.setUint32(20, RSDP_SIZE, true);
  view.setBigUint64(24, BigInt(xsdt), true);
  bytes[8] = checksum(bytes, 20);
  bytes[32] = checksum(bytes, RSDP_SIZE);
  return bytes;
}

/** The Extended System Description Table (5.2.8). */
export function buildXsdt(tables: readonly number[]): Uint8Array {
  return table('XSDT', 1, terms(...tables.map((address) => little(address, 8))));
}

/** The Fixed ACPI Description Table of a hardware-reduced machine (5.2.9, 4.1). */
export function buildFadt(machine: AcpiMachine, dsdt: number): Uint8Array {
  const body = new Uint8Array(FADT_SIZE - HEADER_SIZE);
  const view = new DataView(body.buffer);
  // Offsets as in table 5.9, which counts from the table's start.
  const at = (offset: number) => offset - HEADER_SIZE;
  view.setUint32(at(40), dsdt, true);
  const iapc = IAPC_VGA_NOT_PRESENT | IAPC_CMOS_RTC_NOT_PRESENT | (machine.i8042 === true ? IAPC_8042 : 0);
  view.setUint16(at(109), iapc, true);
  const flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP | FADT_HW_REDUCED_ACPI;
  view.setUint32(at(112), flags, true);
  setRegister(view, at(116), machine.powerAddress + 2);
  view.setUint8(at(128), machine.resetValue ?? 1);
  view.setUint8(at(131), 5); // minor version: ACPI 6.5
  view.setBigUint64(at(140), BigInt(dsdt), true);
  setRegister(view, at(244), machine.powerAddress);
  setRegister(view, at(256), machine.powerAddress + 1);
  setText(body, at(268), 'TSVMM');
  return table('FACP', 6, body);
}

/** A byte-wide register in memory, as a Generic Address Structure (5.2.3.2). */
function setRegister(view: DataView, offset: number, address: number): void {
  view.setUint8(offset, 0); // system memory
  view.setUint8(offset + 1, 8); // bits
  view.setUint8(offset + 3, 1); // byte access
  view.setBigUint64(offset + 4, BigInt(address), true);
}

/** The Multiple APIC Description Table (5.2.12). */
export function buildMadt(machine: AcpiMachine): Uint8Array {
  const { id, address, gsiBase } = machine.ioApic;
  return table(
    'APIC',
    5,
    terms(
      little(machine.localApicAddress, 4),
      little(0, 4), // flags: there are no 8259s to be switched off
      ...machine.apicIds.map((id, uid) => (id < X2APIC_FROM ? localApic(id, uid) : localX2apic(id, uid))),
      [MADT_IO_APIC, 12, id, 0],
      little(address, 4),
      little(gsiBase, 4),
    ),
  );
}

function localApic(id: number, uid: number): Term {
  // An entry has room for a UID of 8 bits; only identifiers with gaps make more, and those match no device then.
  return [MADT_LOCAL_APIC, 8, uid & 0xff, id, MADT_ENABLED, 0, 0, 0];
}

function localX2apic(id: number, uid: number): Term {
  return terms([MADT_LOCAL_X2APIC, 16, 0, 0], little(id, 4), little(MADT_ENABLED, 4), little(uid, 4));
}

/** The Differentiated System Description Table: the devices, and how to power off. */
export function buildDsdt(machine: AcpiMachine): Uint8Array {
  const devices: Term[] = machine.virtioMmio.map((virtio, index) =>
    device(
      numbered('VR', index),
      define('_HID', string('LNRO0005')),
      define('_UID', integer(index)),
      define('_CCA', integer(1)),
      define(
        '_CRS',
        resourceTemplate(
          memory32Fixed(virtio.address, virtio.size),
          interrupt(virtio.gsi, virtio.trigger ?? 'edge'),
        ),
      ),
    ),
  );
  if (machine.pvpanic !== undefined) {
    const { address, size } = machine.pvpanic;
    devices.push(
      device(
        'PEVT',
        define('_HID', string('QEMU0001')),
        define('_CRS', resourceTemplate(memory32Fixed(address, size))),
      ),
    );
  }
  if (machine.serial !== undefined) {
    const { port, gsi } = machine.serial;
    devices.push(
      device(
        'COM1',
        define('_HID', eisaId('PNP0501')),
        define('_UID', integer(0)),
        define('_CRS', resourceTemplate(ioPorts(port, 8), interrupt(gsi, 'edge'))),
      ),
    );
  }
  if (machine.processorDevices === true) {
    machine.apicIds.forEach((_, uid) => {
      devices.push(
        device(numbered('C', uid), define('_HID', string('ACPI0007')), define('_UID', integer(uid))),
      );
    });
  }
  const sleep = packageOf(integer(SLEEP_TYPE_S5), integer(0), integer(0), integer(0));
  return table('DSDT', 2, terms(define('\\_S5', sleep), scope('\\_SB', ...devices)));
}

/** A name of four characters: the prefix and a hexadecimal number. */
function numbered(prefix: string, index: number): string {
  return (
    prefix +
    index
      .toString(16)
      .toUpperCase()
      .padStart(4 - prefix.length, '0')
  );
}

/** A table with its header (5.2.6) and checksum. */
function table(signature: string, revision: number, body: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + body.length);
  const view = new DataView(bytes.buffer);
  setText(bytes, 0, signature);
  view.setUint32(4, bytes.length, true);
  view.setUint8(8, revision);
  setText(bytes, 10, OEM_ID);
  setText(bytes, 16, OEM_TABLE_ID);
  view.setUint32(24, REVISION, true);
  setText(bytes, 28, CREATOR_ID);
  view.setUint32(32, REVISION, true);
  bytes.set(body, HEADER_SIZE);
  bytes[9] = checksum(bytes, bytes.length);
  return bytes;
}

/** The byte that makes the sum of the first `length` zero; the place that it goes to must hold zero. */
function checksum(bytes: Uint8Array, length: number): number {
  let sum = 0;
  for (let index = 0; index < length; index++) sum += bytes[index]!;
  return -sum & 0xff;
}

function setText(bytes: Uint8Array, offset: number, text: string): void {
  for (let index = 0; index < text.length; index++) bytes[offset + index] = text.charCodeAt(index);
}
