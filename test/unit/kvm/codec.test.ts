import t from 'tap';
import { array, bytes, lazy, reserved, s64, struct, u8, u16, u32, u64 } from '../../../src/kvm/codec.js';

t.test('members lie where C puts them', async (t) => {
  const table = struct('mixed', { a: u8, b: u32, c: u8, d: u64, e: u16 });
  t.strictSame(table.offsets, { a: 0, b: 4, c: 8, d: 16, e: 24 });
  t.equal(table.size, 32, 'padded to the alignment of the largest');
  t.equal(struct('inner', { a: u8, nested: struct('deep', { x: u64 }) }).offsets.nested, 8);
});

t.test('what is encoded is decoded', async (t) => {
  const table = struct('all', {
    byte: u8,
    half: u16,
    word: u32,
    gap: reserved(3),
    long: u64,
    signed: s64,
    raw: bytes(3),
    list: array(struct('pair', { x: u8, y: u16 }), 2),
  });
  const value = {
    byte: 0xff,
    half: 0xffff,
    word: 0xffffffff,
    long: 0xffffffffffffffffn,
    signed: -2n,
    raw: new Uint8Array([1, 2, 3]),
    list: [
      { x: 1, y: 2 },
      { x: 3, y: 0xfffe },
    ],
  };
  const view = table.encode(value);
  t.equal(view.byteLength, table.size);
  t.strictSame(table.decode(view), value);
  t.notOk('gap' in table.decode(view));
});

t.test('little endian, at an offset, in a view of a larger buffer', async (t) => {
  const table = struct('word', { word: u32 });
  const raw = new Uint8Array(16);
  const view = new DataView(raw.buffer, 4);
  table.set(view, 2, { word: 0x11223344 });
  t.strictSame([...raw.subarray(6, 10)], [0x44, 0x33, 0x22, 0x11]);
  t.strictSame(table.decode(view, 2), { word: 0x11223344 });
});

t.test('decoded bytes are a copy', async (t) => {
  const table = struct('raw', { raw: bytes(2) });
  const view = table.encode({ raw: new Uint8Array([1, 2]) });
  const { raw } = table.decode(view);
  view.setUint8(0, 9);
  t.strictSame([...raw], [1, 2]);
});

t.test('what does not fit is refused', async (t) => {
  t.throws(() => struct('raw', { raw: bytes(2) }).encode({ raw: new Uint8Array(3) }), RangeError);
  t.throws(() => struct('list', { list: array(u8, 2) }).encode({ list: [1] }), RangeError);
  t.throws(() => struct('word', { word: u32 }).decode(new DataView(new ArrayBuffer(3))), RangeError);
  t.throws(() => struct('word', { word: u32 }).decode(new DataView(new ArrayBuffer(8)), 5), RangeError);
});

t.test('a lazy table is built once, when it is first used', async (t) => {
  let built = 0;
  const table = lazy(() => ++built);
  t.equal(built, 0);
  t.equal(table(), 1);
  t.equal(table(), 1);
});
