import t from 'tap';
import { parseStatistics } from '../../../src/virtio/balloon/balloon.js';
import { type BalloonOptions, describeBalloon } from '../../../src/virtio/balloon/index.js';

const MIB = 1 << 20;
const describe = (options: Partial<BalloonOptions> = {}) =>
  describeBalloon({ name: 'balloon', memory: 128 * MIB, ...options });

t.test('describes the balloon', async (t) => {
  const { description, balloon } = describe({ target: 8 * MIB });
  t.equal(description.deviceId, 5);
  t.equal(description.features, 0b110110n, 'statistics, deflate on OOM, poison, reporting');
  t.equal(description.queueSizes.length, 5);
  t.equal(description.config.length, 16);
  t.equal(new DataView(description.config.buffer).getUint32(0, true), 2048);
  t.same(description.writableConfig, { offset: 4, length: 12 });
  t.equal(balloon.target, 8 * MIB);
  t.equal(balloon.actual, 0);
  balloon.setTarget(128 * MIB);
  t.equal(balloon.target, 128 * MIB);
  const bare = describe({ deflateOnOom: false, statistics: false, reporting: false });
  t.equal(bare.description.features, 0n);
});

t.test('bad options', async (t) => {
  const bad = (options: Partial<BalloonOptions>, message: RegExp): void => {
    t.throws(() => describe(options), message);
  };
  bad({ name: '' }, /balloon: name: /);
  bad({ target: -4096 }, /balloon balloon: target: expected a whole number from 0 to 134217728, got -4096/);
  bad({ target: 129 * MIB }, /balloon balloon: target: expected a whole number/);
  bad({ target: 5000 }, /balloon balloon: target: 5000 bytes are no multiple of 4096/);
  bad(
    { statistics: { interval: 1 } },
    /balloon balloon: statistics\.interval: expected a whole number from 100/,
  );
  const { balloon } = describe();
  t.throws(() => balloon.setTarget(1), /no multiple of 4096/);
  t.throws(() => balloon.setTarget(Number.NaN), /target: expected a whole number/);
  t.equal(balloon.target, 0);
});

t.test('statistics that do not come', async (t) => {
  const { balloon } = describe();
  await t.rejects(balloon.statistics(1), /balloon balloon: the guest has given no statistics within 1 ms/);
  await t.rejects(balloon.statistics(0), /timeout: expected a whole number from 1/);
  const waiting = balloon.statistics(60_000);
  balloon.close();
  await t.rejects(waiting, /the machine was closed/);
  const { balloon: without } = describe({ statistics: false });
  await t.rejects(without.statistics(), /balloon balloon: was made without statistics/);
  const { balloon: polled } = describe({ statistics: { interval: 100 } });
  polled.close();
});

t.test('statistics as a guest writes them', async (t) => {
  const entry = (tag: number, value: bigint): Buffer => {
    const bytes = Buffer.alloc(10);
    bytes.writeUInt16LE(tag, 0);
    bytes.writeBigUInt64LE(value, 2);
    return bytes;
  };
  t.same(parseStatistics(Buffer.concat([entry(4, 12_345n), entry(5, 1n << 40n), entry(9, 0n)])), {
    freeMemory: 12_345,
    totalMemory: 2 ** 40,
    hugePageFailures: 0,
  });
  t.same(parseStatistics(Buffer.concat([entry(10, 1n), entry(65_535, 2n), entry(0, 3n), Buffer.alloc(9)])), {
    swapIn: 3,
  });
  t.same(parseStatistics(Buffer.concat([entry(7, 1n), entry(7, (1n << 64n) - 1n)])), { diskCaches: 2 ** 64 });
  t.same(parseStatistics(Buffer.alloc(0)), {});
});
