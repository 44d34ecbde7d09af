import t from 'tap';
import { deviceTables } from '../../../bench/device-report.js';
import { type DeviceResults, parseGuest } from '../../../bench/device-results.js';

t.test("the guest's lines, among those of the kernel", async (t) => {
  const output = [
    '[    0.1] Linux version 6.1',
    'bench: blk-d1-read 41000 42000\r',
    '[    0.2] random: crng initbench: net-out 1300000 1300001',
    'bench: end',
    '[    0.3] reboot: Power down',
  ].join('\n');
  t.strictSame(parseGuest(output), [
    { test: 'blk-d1-read', least: 41_000, median: 42_000 },
    { test: 'net-out', least: 1_300_000, median: 1_300_001 },
  ]);
});

t.test('a guest that fails, stops, or talks nonsense', async (t) => {
  t.throws(
    () => parseGuest('bench: error: /dev/vda: No such file or directory\n'),
    /program: \/dev\/vda: No such/,
  );
  t.throws(() => parseGuest('bench: blk-d1-read 1 2\n'), /did not come to its end/);
  t.throws(() => parseGuest(''), /did not come to its end/);
  t.throws(() => parseGuest('bench: blk-d1-read 1 x\nbench: end\n'), /said "blk-d1-read 1 x"/);
});

const results: DeviceResults = {
  unit: 'instructions',
  boots: 2,
  figures: [
    { test: 'blk-d1-read', contender: 'tsvmm', least: 40_000, median: 50_000 },
    { test: 'blk-d1-read', contender: 'QEMU', least: 100_000, median: 100_001 },
    { test: 'net-out', contender: 'tsvmm', least: 2_000_000, median: 2_000_000 },
    { test: 'fs-small-stat-old', contender: 'QEMU', least: 7, median: 8 },
  ],
  footprints: [],
  failures: [{ contender: 'QEMU', device: 'net', why: 'Error: no tap' }],
};

t.test('instructions: the least, the ratio, and the aim', async (t) => {
  const text = deviceTables(results);
  t.match(text, /depth 1 +40,000 +100,000 +0\.40 +42,000 +met$/m);
  t.match(text, /guest to host, a MiB +2,000,000 +- +- +1,300,000 +missed$/m);
  t.match(text, /1\.5 s ago +- +7 +- +5,000$/m);
  t.match(text, /^net, QEMU: Error: no tap$/m);
});

t.test('nanoseconds: the median, without an aim', async (t) => {
  const text = deviceTables({ ...results, unit: 'nanoseconds' });
  t.match(text, /depth 1 +50,000 +100,001 +0\.50$/m);
  t.notMatch(text, 'aim');
});

t.test('one monitor alone', async (t) => {
  const figures = results.figures.filter(({ contender }) => contender === 'tsvmm');
  t.match(deviceTables({ ...results, figures, failures: [] }), /depth 1 +40,000 +42,000 +met$/m);
});

t.test('what a device costs is its share of the difference to a machine without it', async (t) => {
  const footprints = [
    { name: 'none', copies: 0, resident: 50_000, proportional: 44_000 },
    { name: 'blk', copies: 8, resident: 54_400, proportional: 46_400 },
  ];
  const text = deviceTables({ ...results, figures: [], footprints, failures: [] });
  t.match(text, /^none +50,000 +44,000$/m);
  t.match(text, /^8 of blk +54,400 +46,400 +300$/m);
  t.notMatch(text, 'Devices:');
});
