import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { GuestMemory, type GuestMemoryOptions, MemoryError } from '../../../src/memory/guest-memory.js';

const page = 4096;

function memory(
  test: { teardown(end: () => void): unknown },
  options: Partial<GuestMemoryOptions> = {},
): GuestMemory {
  const made = new GuestMemory({
    regions: [
      { address: 0, size: 16 * page },
      { address: 0x1_0000_0000, size: 4 * page },
    ],
    ...options,
  });
  test.teardown(() => made.close());
  return made;
}

const end = 16 * page;
const high = 0x1_0000_0000;

t.test('bytes come back from both regions', async (t) => {
  const m = memory(t);
  t.equal(m.size, 20 * page);
  for (const address of [0, 5, end - 3, high, high + 4 * page - 3]) {
    m.write(address, new Uint8Array([1, 2, 3]));
    t.strictSame([...m.read(address, 3)], [1, 2, 3]);
  }
  const into = new Uint8Array([9, 9, 9, 9]);
  m.readInto(high, into.subarray(1, 3));
  t.strictSame([...into], [9, 1, 2, 9]);
});

t.test('numbers are little endian and may lie anywhere', async (t) => {
  const m = memory(t);
  m.writeU8(1, 0x11);
  m.writeU16(3, 0x2233);
  m.writeU32(5, 0x44556677);
  m.writeU64(0xfff, 0x8899aabbccddeeffn);
  t.equal(m.readU8(1), 0x11);
  t.equal(m.readU16(3), 0x2233);
  t.equal(m.readU32(5), 0x44556677);
  t.equal(m.readU64(0xfff), 0x8899aabbccddeeffn);
  t.strictSame([...m.read(3, 6)], [0x33, 0x22, 0x77, 0x66, 0x55, 0x44]);
});

t.test('an access that is not wholly inside one region throws and changes nothing', async (t) => {
  const m = memory(t);
  const outside: [number, number][] = [
    [end - 1, 2],
    [end, 1],
    [high - 1, 2],
    [high + 4 * page, 1],
    [high + 4 * page - 7, 8],
    [0, 17 * page],
    [2 ** 53 - 1, 1],
    [2 ** 53 - 1, 20 * page],
  ];
  for (const [address, length] of outside) {
    t.throws(() => m.read(address, length), { name: 'MemoryError', address, length });
    t.throws(() => m.write(address, new Uint8Array(length).fill(1)), MemoryError);
    t.throws(() => m.fill(address, length, 1), MemoryError);
    t.throws(() => m.copy(address, 0, length), MemoryError);
    t.throws(() => m.copy(0, address, length), MemoryError);
    t.throws(() => m.unsafeView(address, length), MemoryError);
  }
  t.throws(() => m.writeU64(end - 7, 1n), /write: guest memory \[0xfff9, 0x10001\)/);
  t.throws(() => m.read(0, 2 ** 40), MemoryError, 'no allocation of that size is tried');
  t.equal(m.readU8(end - 1), 0);
  t.equal(m.readU8(high), 0);
});

t.test('an address that is not an integer is a mistake of the caller', async (t) => {
  const m = memory(t);
  for (const address of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
    t.throws(() => m.readU8(address), TypeError, String(address));
    t.throws(() => m.writeU8(address, 1), TypeError, String(address));
  }
});

t.test('an empty access must be inside too', async (t) => {
  const m = memory(t);
  t.equal(m.read(0, 0).length, 0);
  t.equal(m.unsafeView(8, 0).length, 0);
  t.throws(() => m.read(end, 0), MemoryError);
});

t.test('fill and copy, overlapping too', async (t) => {
  const m = memory(t);
  m.fill(100, 3, 7);
  t.strictSame([...m.read(99, 5)], [0, 7, 7, 7, 0]);
  m.write(0, new Uint8Array([1, 2, 3, 4, 5]));
  m.copy(0, 2, 5);
  t.strictSame([...m.read(0, 7)], [1, 2, 1, 2, 3, 4, 5]);
  m.copy(0, high, 7);
  t.strictSame([...m.read(high, 7)], [1, 2, 1, 2, 3, 4, 5]);
});

t.test('a file is loaded straight into memory', async (t) => {
  const m = memory(t);
  const folder = mkdtempSync(join(tmpdir(), 'memory-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  writeFileSync(path, 'hello, guest');
  const fd = openSync(path, 'r');
  t.teardown(() => closeSync(fd));
  m.load(fd, 7, 0x100, 5);
  t.equal(Buffer.from(m.read(0x100, 5)).toString(), 'guest');
  t.throws(() => m.load(fd, 7, 0x100, 6), /the file ends before 13 bytes/);
  t.throws(() => m.load(fd, 0, end - 2, 5), { name: 'MemoryError', address: end - 2, length: 5 });
  t.throws(() => m.load(9999, 0, 0, 5), /EBADF/);
});

t.test('a view is the memory itself and outlives it', async (t) => {
  const m = memory(t);
  const view = m.unsafeView(0x10, 4);
  view[1] = 0x42;
  t.equal(m.readU8(0x11), 0x42);
  m.writeU8(0x13, 0x43);
  t.equal(view[3], 0x43);
  const again = m.unsafeView(0x10, 4);
  again[0] = 1;
  t.equal(view[0], 1);
  m.close();
  t.throws(() => m.readU8(0), /closed/);
  t.strictSame([...view], [1, 0x42, 0, 0x43]);
});

t.test('a view is not transferred: it stays what it is', async (t) => {
  const m = memory(t);
  const { buffer } = m.unsafeView(0, page);
  t.ok(buffer instanceof ArrayBuffer);
  if (buffer instanceof ArrayBuffer) {
    try {
      // Node 20 makes a copy, later ones refuse.
      const copy = new Uint8Array(structuredClone(buffer, { transfer: [buffer] }));
      m.writeU8(0, 6);
      t.equal(copy[0], 0);
    } catch (error) {
      t.match(error, { name: 'DataCloneError' });
    }
  }
  m.writeU8(1, 7);
  t.equal(buffer.byteLength, page);
  t.equal(new Uint8Array(buffer)[1], 7);
});

t.test('a view larger than an ArrayBuffer is refused', async (t) => {
  const m = memory(t, { regions: [{ address: 0, size: 2 ** 32 + page }] });
  t.throws(() => m.unsafeView(0, 2 ** 32 + page), RangeError);
  const view = m.unsafeView(0, 2 ** 32);
  t.equal(view.length, 2 ** 32);
  view[2 ** 32 - 1] = 9;
  t.equal(m.readU8(2 ** 32 - 1), 9);
});

t.test('a memfd holds the same bytes', async (t) => {
  const m = memory(t, { backing: 'memfd' });
  const fd = m.memfd;
  t.ok(fd !== undefined);
  m.write(high + 1, new Uint8Array([1, 2, 3]));
  const offset = m.regions[1]?.fileOffset ?? 0;
  t.equal(offset, 16 * page);
  const bytes = Buffer.alloc(3);
  readSync(fd ?? -1, bytes, 0, 3, offset + 1);
  t.strictSame([...bytes], [1, 2, 3]);
  t.equal(memory(t).memfd, undefined);
});

t.test('memory is not touched before it is used', async (t) => {
  const resident = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
  const before = resident();
  memory(t, { regions: [{ address: 0, size: 1 << 30 }] });
  t.ok(resident() - before < 64 * 1024);
});

t.test('regions that cannot be are refused', async (t) => {
  const bad = [
    [{ address: 1, size: page }],
    [{ address: 0, size: 0 }],
    [{ address: 0, size: 100 }],
    [
      { address: page, size: page },
      { address: 0, size: page },
    ],
    [
      { address: 0, size: 2 * page },
      { address: page, size: page },
    ],
  ];
  for (const regions of bad) {
    t.throws(() => new GuestMemory({ regions }), /regions must/);
  }
  t.throws(() => new GuestMemory({ regions: [{ address: -page, size: page }] }), TypeError);
});
