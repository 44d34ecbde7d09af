/** Reads ACPI tables back as a system would: from the RSDP on, with every length and sum checked. */

export interface AmlObject {
  readonly name: string;
  /** Of a scope or a device. */
  readonly children?: readonly AmlObject[];
  /** Of a named value. */
  readonly value?: AmlValue;
}

type AmlValue = number | string | Uint8Array | readonly AmlValue[];

/** The tables by signature, followed from the RSDP at the start of `block`. Throws where one is not whole. */
export function readTables(block: Uint8Array, base: number): Map<string, DataView> {
  const tables = new Map<string, DataView>();
  const rsdp = block.subarray(0, 36);
  check(text(rsdp, 0, 8) === 'RSD PTR ' && sum(rsdp.subarray(0, 20)) === 0 && sum(rsdp) === 0, 'RSDP');
  const table = (address: number): DataView => {
    const bytes = block.subarray(address - base);
    const length = view(bytes).getUint32(4, true);
    check(length >= 36 && length <= bytes.length, `length of ${text(bytes, 0, 4)}`);
    const whole = bytes.subarray(0, length);
    check(sum(whole) === 0, `checksum of ${text(bytes, 0, 4)}`);
    tables.set(text(bytes, 0, 4), view(whole));
    return view(whole);
  };
  const xsdt = table(Number(view(rsdp).getBigUint64(24, true)));
  for (let at = 36; at < xsdt.byteLength; at += 8) {
    const found = table(Number(xsdt.getBigUint64(at, true)));
    if (found.getUint8(0) === 0x46) table(Number(found.getBigUint64(140, true)));
  }
  return tables;
}

/** The objects of a list of AML terms: names, scopes, devices. Throws on anything else, and on lengths that are wrong. */
export function walkAml(bytes: Uint8Array): AmlObject[] {
  let at = 0;
  const byte = (): number => {
    const value = bytes[at++];
    check(value !== undefined, 'the terms end too early');
    return value!;
  };
  const little = (size: number): number => {
    let value = 0;
    for (let index = 0; index < size; index++) value += byte() * 256 ** index;
    return value;
  };
  /** The end of what a PkgLength covers. */
  const packageEnd = (): number => {
    const start = at;
    const lead = byte();
    let length = lead >> 6 === 0 ? lead & 0x3f : lead & 0xf;
    for (let index = 0; index < lead >> 6; index++) length += byte() * 16 * 256 ** index;
    check(start + length <= bytes.length, 'a PkgLength reaches beyond the table');
    return start + length;
  };
  const name = (): string => {
    if (bytes[at] === 0x5c) at++;
    const start = at;
    at += 4;
    return text(bytes, start, 4);
  };
  const value = (): AmlValue => {
    const op = byte();
    if (op <= 1) return op;
    const size = { 10: 1, 11: 2, 12: 4, 14: 8 }[op];
    if (size !== undefined) return little(size);
    if (op === 13) {
      const end = bytes.indexOf(0, at);
      const start = at;
      at = end + 1;
      return text(bytes, start, end - start);
    }
    const end = packageEnd();
    if (op === 0x11) {
      const length = value();
      check(at + Number(length) === end, 'a buffer of another length than its package');
      at = end;
      return bytes.subarray(end - Number(length), end);
    }
    check(op === 0x12, `value ${op}`);
    const elements = Array.from({ length: byte() }, value);
    check(at === end, 'a package of another length than its elements');
    return elements;
  };
  const list = (end: number): AmlObject[] => {
    const objects: AmlObject[] = [];
    while (at < end) {
      const op = byte();
      if (op === 0x08) {
        objects.push({ name: name(), value: value() });
        continue;
      }
      check(op === 0x10 || (op === 0x5b && byte() === 0x82), `operator ${op}`);
      const inner = packageEnd();
      objects.push({ name: name(), children: list(inner) });
    }
    check(at === end, 'a scope of another length than its terms');
    return objects;
  };
  return list(bytes.length);
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`ACPI: ${what}`);
}

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
}

function text(bytes: Uint8Array, offset: number, length: number): string {
  return Buffer.from(bytes.subarray(offset, offset + length)).toString('latin1');
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
