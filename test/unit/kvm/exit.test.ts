import t from 'tap';
import { decodeExit } from '../../../src/kvm/exit.js';

/** A kvm_run mapping whose union (offset 32) begins with the given 64-bit words. */
function page(reason: number, words: readonly bigint[] = []): DataView {
  const view = new DataView(new ArrayBuffer(8192));
  view.setUint32(8, reason, true);
  words.forEach((word, i) => {
    view.setBigUint64(32 + 8 * i, word, true);
  });
  return view;
}

/** The two 32-bit halves as one word. */
const pair = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);

t.test('port exits', async (t) => {
  // direction 1, size 2, port 0x3f8; count 3, data at 4096
  const view = page(2, [pair(0x03f80201, 3), 4096n]);
  view.setUint8(4096 + 5, 0x77);
  const exit = decodeExit(view);
  t.match(exit, { reason: 'io', direction: 'out', size: 2, port: 0x3f8, count: 3 });
  t.ok(exit.reason === 'io' && exit.data.length === 6 && exit.data[5] === 0x77);
  t.throws(() => decodeExit(page(2, [pair(0x03f80401, 1025), 4096n])), /do not fit/);
});

t.test('MMIO exits', async (t) => {
  t.match(decodeExit(page(6, [0xc0000000n, 0x55n, pair(4, 1)])), {
    reason: 'mmio',
    direction: 'write',
    address: 0xc0000000n,
    data: new Uint8Array([0x55, 0, 0, 0]),
  });
  t.match(decodeExit(page(6, [1n, 0n, pair(8, 0)])), { direction: 'read', data: new Uint8Array(8) });
});

t.test('exits without details', async (t) => {
  for (const [number, reason] of [
    [5, 'hlt'],
    [7, 'irq-window-open'],
    [8, 'shutdown'],
    [10, 'intr'],
  ] as const) {
    t.strictSame(decodeExit(page(number)), { reason });
  }
});

t.test('a refused entry', async (t) => {
  t.strictSame(decodeExit(page(9, [0x80000021n, 3n])), {
    reason: 'fail-entry',
    hardwareReason: 0x80000021n,
    cpu: 3,
  });
});

t.test('an internal error with its data', async (t) => {
  t.strictSame(decodeExit(page(17, [pair(3, 2), 11n, 12n, 13n])), {
    reason: 'internal-error',
    suberror: 3,
    message: 'exit while an event was delivered',
    data: [11n, 12n],
  });
  t.match(decodeExit(page(17, [pair(99, 0)])), { message: 'suberror 99', data: [] });
});

t.test('a failed emulation shows the instruction', async (t) => {
  // flags: bytes follow; size 2, 0f 0b
  const exit = decodeExit(page(17, [pair(1, 3), 1n, 0x0b0f02n, 0n]));
  t.match(exit, { message: 'emulation failure' });
  t.ok(exit.reason === 'internal-error');
  t.strictSame(exit.reason === 'internal-error' && [...(exit.instruction ?? [])], [0x0f, 0x0b]);
  t.notOk('instruction' in decodeExit(page(17, [pair(1, 3), 0n, 0x0b0f02n, 0n])), 'no flag');
  t.notOk('instruction' in decodeExit(page(17, [pair(1, 0)])), 'no data');
});

t.test('counts beyond the arrays are cut', async (t) => {
  const exit = decodeExit(page(17, [pair(2, 0xffffffff)]));
  t.ok(exit.reason === 'internal-error' && exit.data.length === 16);
});

t.test('system events', async (t) => {
  t.strictSame(decodeExit(page(24, [pair(2, 1), 0x1234n])), {
    reason: 'system-event',
    type: 2,
    data: [0x1234n],
  });
});

t.test('debug exits', async (t) => {
  t.strictSame(decodeExit(page(4, [3n, 0x1000n, 0x4000n, 0x402n])), {
    reason: 'debug',
    exception: 3,
    pc: 0x1000n,
    dr6: 0x4000n,
    dr7: 0x402n,
  });
});

t.test('others keep their number', async (t) => {
  t.strictSame(decodeExit(page(0, [0x55n])), { reason: 'unknown', number: 0, hardwareReason: 0x55n });
  t.match(decodeExit(page(31)), { reason: 'unknown', number: 31 });
});
