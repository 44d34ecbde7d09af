/** The registers of every device in every state, and the configuration space (virtio 1.2, 4.2.2). */
import { strict as assert } from 'node:assert';
import { VIRTIO_MMIO_SIZE } from '../../../src/memory/layout.js';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import {
  ACKNOWLEDGE,
  DRIVER,
  DRIVER_OK,
  type Driver,
  FAILED,
  FEATURES_OK,
  LIVE,
  NEEDS_RESET,
  reg,
} from '../../support/hostile-guest/driver.js';
import { type Operation, read, type Width, write } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench();

const VALUES = [0n, 1n, 0x8000_0000n, 0x0102_0304n];
const WIDTHS: readonly Width[] = [1, 2, 4, 8];
/** Registers that are there to be read, with the values that do not depend on the state. */
const MAGIC = 0x74726976;
const readable: readonly number[] = [
  reg.magic,
  reg.version,
  reg.deviceId,
  reg.vendor,
  reg.deviceFeatures,
  reg.queueSizeMax,
  reg.queueReady,
  reg.interruptStatus,
  reg.status,
  reg.shmLengthLow,
  reg.shmLengthLow + 4,
  reg.shmLengthLow + 8,
  reg.shmLengthLow + 12,
  reg.generation,
];

interface State {
  readonly name: string;
  readonly status: number;
  /** From a reset device to the state. */
  readonly enter: (driver: Driver) => Promise<unknown>;
}

const until =
  (step: number) =>
  (driver: Driver): Promise<number> =>
    driver.start({}, step);

async function breakIt(driver: Driver): Promise<void> {
  await driver.start({ rings: { 0: { size: 3 } } });
  await driver.rig.run([driver.broken()]);
}

const states: readonly State[] = [
  { name: 'reset', status: 0, enter: until(0) },
  { name: 'ACKNOWLEDGE', status: ACKNOWLEDGE, enter: until(ACKNOWLEDGE) },
  { name: 'DRIVER', status: ACKNOWLEDGE | DRIVER, enter: until(DRIVER) },
  { name: 'FEATURES_OK', status: ACKNOWLEDGE | DRIVER | FEATURES_OK, enter: until(FEATURES_OK) },
  { name: 'DRIVER_OK', status: LIVE, enter: until(DRIVER_OK) },
  {
    name: 'FAILED',
    status: LIVE | FAILED,
    enter: async (driver) => {
      await driver.start();
      await driver.rig.run([driver.set(reg.status, FAILED)]);
    },
  },
  { name: 'DEVICE_NEEDS_RESET', status: LIVE | NEEDS_RESET, enter: breakIt },
];

const verdictOf = (state: State): Case['verdict'] =>
  (state.status & NEEDS_RESET) !== 0 ? /queue size is not a power of two/ : served;

const le = (bytes: Uint8Array): bigint => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

/** In [0, 0x208): every offset for 32 bits; each register, and some in between, for the other widths. */
function offsetsFor(width: Width): number[] {
  const all = Array.from({ length: VIRTIO_MMIO_SIZE + 8 }, (_, i) => i);
  return width === 4 ? all : all.filter((offset) => offset % 4 === 0 || offset % 16 === 3);
}

/** Reads everything with every width, aligned and not. */
async function readAll(driver: Driver, status: number): Promise<void> {
  const { config, writableConfig, deviceId, queueSizes } = driver.device.description;
  await driver.rig.run([driver.set(reg.queueSelect, 0), driver.set(reg.deviceFeaturesSelect, 1)]);
  for (const width of WIDTHS) {
    const offsets = offsetsFor(width);
    const results = await driver.rig.run(offsets.map((offset) => read(width, driver.base + offset)));
    for (const [i, offset] of offsets.entries()) {
      const value = results[i]?.value ?? -1n;
      const where = `${width} bytes at 0x${offset.toString(16)}: 0x${value.toString(16)}`;
      if (offset + width > VIRTIO_MMIO_SIZE) {
        // Behind the registers nothing answers; an access that crosses their end may be split.
        if (offset >= VIRTIO_MMIO_SIZE) assert.equal(value, (1n << BigInt(8 * width)) - 1n, where);
      } else if (offset >= reg.config) {
        const at = offset - reg.config;
        const wanted = new Uint8Array(width);
        wanted.set(config.subarray(at, at + width));
        const theirs = writableConfig ?? { offset: 0, length: 0 };
        if (at + width <= theirs.offset || at >= theirs.offset + theirs.length)
          assert.equal(value, le(wanted), where);
      } else if (offset + width > reg.config) {
        assert.equal(value & 0xffn, 0n, where);
      } else if (width !== 4 || offset % 4 !== 0 || !readable.includes(offset)) {
        assert.equal(value, 0n, where);
      } else if (offset === reg.magic) {
        assert.equal(value, BigInt(MAGIC), where);
      } else if (offset === reg.deviceId) {
        assert.equal(value, BigInt(deviceId), where);
      } else if (offset === reg.status) {
        assert.equal(value, BigInt(status), where);
      } else if (offset === reg.queueSizeMax) {
        assert.equal(value, BigInt(queueSizes[0] ?? 0), where);
      } else if (offset === reg.deviceFeatures) {
        assert.equal(value & 1n, 1n, 'VERSION_1');
      }
    }
  }
}

/** Writes to everything but the status: ones with every width, aligned and not, and other values to each register. */
async function writeAll(driver: Driver): Promise<void> {
  const to = (width: Width, offset: number, value: bigint): Operation[] =>
    width === 4 && offset === reg.status ? [] : [write(width, driver.base + offset, value)];
  for (const width of WIDTHS) {
    await driver.rig.run(offsetsFor(width).flatMap((offset) => to(width, offset, -1n)));
  }
  for (const value of VALUES) {
    const registers = offsetsFor(4).filter((offset) => offset % 4 === 0);
    await driver.rig.run(registers.flatMap((offset) => to(4, offset, value)));
  }
}

const matrix = states.flatMap((state): Case[] => [
  {
    name: `in the state ${state.name}, everything is read, with every width and unaligned`,
    verdict: verdictOf(state),
    start: null,
    async attack(driver) {
      await state.enter(driver);
      await readAll(driver, state.status);
    },
  },
  {
    name: `in the state ${state.name}, everything but the status is written, with every width and unaligned`,
    verdict: verdictOf(state),
    start: null,
    async attack(driver) {
      await state.enter(driver);
      await writeAll(driver);
      assert.equal(await driver.status(), state.status);
      // The queue registers are frozen (CVE-2026-5747), and the configuration space is not the driver's.
      if (state.status === LIVE) await serves(driver);
      await readAll(driver, state.status);
    },
  },
]);

const statusAsNumber = (value: bigint | number): number => Number(value);

const more: readonly Case[] = [
  {
    name: 'each queue select beyond the queues reads as no queue, and writes reach none',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      const count = driver.device.description.queueSizes.length;
      for (const select of [count, count + 1, 255, 256, 0xffff, 0x10000, 0x7fff_ffff, 0xffff_ffff]) {
        const results = await driver.rig.run([
          ...driver.setRing(select, { size: 16, descriptors: 0, available: 0, used: 0 }),
          driver.get(reg.queueSizeMax),
          driver.get(reg.queueReady),
        ]);
        assert.deepEqual(
          results.slice(-2).map(({ value }) => statusAsNumber(value)),
          [0, 0],
        );
      }
    },
  },
  {
    name: 'the configuration space is read and written at its end, beyond it, unaligned and wide (CVE-2021-45464)',
    verdict: served,
    async attack(driver) {
      const { config } = driver.device.description;
      const offsets = [-1, 0, 1, 2, 3, 5, 7].map((d) => Math.max(0, config.length + d - 4));
      const operations = [...offsets, 0xf8, 0xfc, 0xff, 0x100, 0x1000].flatMap((offset) =>
        WIDTHS.flatMap((width) => [
          write(width, driver.base + reg.config + offset, 0xa5a5_a5a5_a5a5_a5a5n),
          read(width, driver.base + reg.config + offset),
        ]),
      );
      // What lies 4 KiB further is the next device's: only reads there.
      await driver.rig.run(operations.filter(({ address = 0 }) => address < driver.base + 0x1000));
      await serves(driver);
      await readAll(driver, LIVE);
    },
  },
  {
    name: 'queue indexes beyond the queues are notified',
    verdict: served,
    async attack(driver) {
      const count = driver.device.description.queueSizes.length;
      const values = [count, count + 1, 0xff, 0x100, 0xffff, 0x10000, 0x8000_0000, 0xffff_ffff];
      await driver.rig.run(values.map((value) => driver.set(reg.queueNotify, value)));
      await serves(driver);
    },
  },
  {
    name: 'notifications of 8, 16 and 64 bits, and beside the register',
    verdict: served,
    async attack(driver) {
      await driver.rig.run(
        WIDTHS.flatMap((width) =>
          [-3, -2, -1, 0, 1, 2, 3].map((d) => write(width, driver.base + reg.queueNotify + d, 0)),
        ),
      );
      await serves(driver);
    },
  },
  {
    name: 'a thousand notifications of nothing',
    verdict: served,
    async attack(driver) {
      const all = driver.rings.map(({ index }) => driver.set(reg.queueNotify, index));
      await driver.rig.run(Array.from({ length: 1000 / all.length }, () => all).flat());
      await serves(driver);
    },
  },
];

// The read-only disk differs from the other in nothing that is tested here.
for (const { device } of bench.drivers) {
  if (device.name !== 'read-only') attack(bench, device.name, [...matrix, ...more]);
}
bench.end();
