/** Status, features and resets out of order (virtio 1.2, 2.1, 2.2, 2.4, 3.1), against every device. */
import { strict as assert } from 'node:assert';
import { FEATURE_EVENT_INDEX, FEATURE_INDIRECT, FEATURE_VERSION_1 } from '../../../src/virtio/queue.js';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import {
  ACKNOWLEDGE,
  DEFAULT_FEATURES,
  DRIVER,
  DRIVER_OK,
  type Driver,
  FAILED,
  FEATURES_OK,
  LIVE,
  NEEDS_RESET,
  reg,
} from '../../support/hostile-guest/driver.js';
import { type Operation, write } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';

const bench = await fullBench();

/** From a reset device: these, and then the status. */
async function statusAfter(driver: Driver, ...operations: Operation[]): Promise<number> {
  return await driver.rig.value(...driver.reset(), ...operations, driver.get(reg.status));
}

const status = (driver: Driver, ...values: number[]): Operation[] =>
  values.map((value) => driver.set(reg.status, value));

const asked = ACKNOWLEDGE | DRIVER | FEATURES_OK;

function offered(driver: Driver): bigint {
  return driver.device.description.features | FEATURE_VERSION_1 | FEATURE_INDIRECT | FEATURE_EVENT_INDEX;
}

/** A chain that waits in every ring, and what would show that it was taken. */
function bait(driver: Driver): () => void {
  for (const ring of driver.rings) {
    ring.chain(0, [{ address: driver.buffer(64), length: 64, flags: 2 }]);
    ring.put(0);
    driver.rig.memory.writeU16(ring.place.available + 2, 1);
  }
  const used = driver.rings.map(({ place }) => place.used);
  return () => {
    for (const at of used) assert.equal(driver.rig.memory.readU16(at + 2), 0, 'nothing came back');
  };
}

const notifyAll = (driver: Driver): Operation[] =>
  driver.rings.map(({ index }) => driver.set(reg.queueNotify, index));

const negotiation: readonly Case[] = [
  {
    name: 'FEATURES_OK without VERSION_1 is not taken',
    verdict: served,
    start: null,
    async attack(driver) {
      const steps = [
        ...status(driver, 1, 3),
        ...driver.acceptFeatures(FEATURE_INDIRECT),
        ...status(driver, asked),
      ];
      assert.equal(await statusAfter(driver, ...steps), ACKNOWLEDGE | DRIVER);
    },
  },
  {
    name: 'none of the features that are not offered is taken',
    verdict: served,
    start: null,
    async attack(driver) {
      for (let bit = 0n; bit < 64n; bit++) {
        const feature = 1n << bit;
        const steps = [
          ...status(driver, 1, 3),
          ...driver.acceptFeatures(FEATURE_VERSION_1 | feature),
          ...status(driver, asked),
        ];
        const wanted = (offered(driver) & feature) !== 0n ? asked : ACKNOWLEDGE | DRIVER;
        assert.equal(await statusAfter(driver, ...steps), wanted, `bit ${bit}`);
      }
    },
  },
  {
    name: 'all features at once are not taken',
    verdict: served,
    start: null,
    async attack(driver) {
      const steps = [
        ...status(driver, 1, 3),
        ...driver.acceptFeatures(0xffff_ffff_ffff_ffffn),
        ...status(driver, asked),
      ];
      assert.equal(await statusAfter(driver, ...steps), ACKNOWLEDGE | DRIVER);
    },
  },
  {
    name: 'features written after FEATURES_OK change nothing',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      const rings = driver.rings.flatMap((ring) => driver.setRing(ring.index, ring.place));
      await driver.rig.run([
        ...driver.acceptFeatures(0xffff_ffff_ffff_ffffn),
        ...rings,
        ...status(driver, LIVE),
        ...driver.acceptFeatures(0n),
      ]);
      assert.equal(await driver.status(), LIVE);
      await serves(driver);
    },
  },
  {
    name: 'feature words beyond the second are nothing',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, DRIVER);
      const operations = [2, 3, 32, 0xffff_ffff].flatMap((word) => [
        driver.set(reg.driverFeaturesSelect, word),
        driver.set(reg.driverFeatures, 0xffff_ffff),
        driver.set(reg.deviceFeaturesSelect, word),
        driver.get(reg.deviceFeatures),
      ]);
      const results = await driver.rig.run(operations);
      for (let i = 3; i < results.length; i += 4) assert.equal(results[i]?.value, 0n);
      const steps = [
        ...driver.acceptFeatures(DEFAULT_FEATURES),
        ...status(driver, asked),
        driver.get(reg.status),
      ];
      assert.equal(await driver.rig.value(...steps), asked);
    },
  },
  {
    name: 'FEATURES_OK without DRIVER is not taken',
    verdict: served,
    start: null,
    async attack(driver) {
      const steps = [
        ...status(driver, ACKNOWLEDGE),
        ...driver.acceptFeatures(DEFAULT_FEATURES),
        ...status(driver, ACKNOWLEDGE | FEATURES_OK),
      ];
      assert.equal(await statusAfter(driver, ...steps), ACKNOWLEDGE);
    },
  },
  {
    name: 'DRIVER_OK without FEATURES_OK is not taken, and nothing is served',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, DRIVER);
      const untouched = bait(driver);
      const rings = driver.rings.flatMap((ring) => driver.setRing(ring.index, ring.place));
      const steps = [...rings, ...status(driver, ACKNOWLEDGE | DRIVER | DRIVER_OK), ...notifyAll(driver)];
      assert.equal(await driver.rig.value(...steps, driver.get(reg.status)), ACKNOWLEDGE | DRIVER);
      untouched();
    },
  },
  {
    name: 'every status at once, from a reset device',
    verdict: served,
    start: null,
    async attack(driver) {
      for (const value of [0xff, 0x7f, LIVE, LIVE | NEEDS_RESET, 0xffff_ffff]) {
        const after = await statusAfter(driver, ...status(driver, value));
        assert.equal(after & (FEATURES_OK | DRIVER_OK | NEEDS_RESET), 0, `0x${value.toString(16)}`);
      }
    },
  },
  {
    name: 'bits of the status that there are not',
    verdict: served,
    start: null,
    async attack(driver) {
      for (const value of [0x10, 0x20, 0x30, 0x100, 0x8000_0000, 0xffff_ff00]) {
        assert.equal(await statusAfter(driver, ...status(driver, value)), 0, `0x${value.toString(16)}`);
      }
    },
  },
  {
    name: 'bits of the status cannot be taken back, and the device serves on',
    verdict: served,
    async attack(driver) {
      for (const value of [ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, 0x100]) {
        await driver.rig.run(status(driver, value));
        assert.equal(await driver.status(), LIVE);
      }
      await serves(driver);
    },
  },
  {
    name: 'DEVICE_NEEDS_RESET is not the driver’s to set',
    verdict: served,
    async attack(driver) {
      await driver.rig.run(status(driver, NEEDS_RESET, LIVE | NEEDS_RESET));
      assert.equal(await driver.status(), LIVE);
      await serves(driver);
    },
  },
  {
    name: 'DRIVER_OK a hundred times',
    verdict: served,
    async attack(driver) {
      await driver.rig.run(status(driver, ...new Array<number>(100).fill(LIVE)));
      await serves(driver);
    },
  },
  {
    name: 'FAILED, and then DRIVER_OK',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      assert.equal(
        await driver.rig.value(...status(driver, FAILED, LIVE), driver.get(reg.status)),
        asked | FAILED,
      );
    },
  },
  {
    name: 'a reset of 8, 16 or 64 bits, or beside the register, is none',
    verdict: served,
    async attack(driver) {
      const at = driver.base + reg.status;
      await driver.rig.run([
        write(1, at, 0),
        write(2, at, 0),
        write(8, at, 0),
        write(4, at - 1, 0),
        write(4, at + 1, 0),
        write(4, at + 2, 0),
        write(8, at - 4, 0),
      ]);
      assert.equal(await driver.status(), LIVE);
      await serves(driver);
    },
  },
  {
    name: 'a reset in each step of the start',
    verdict: served,
    start: null,
    async attack(driver) {
      for (const step of [0, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK]) {
        await driver.start({}, step);
        assert.equal(await statusAfter(driver), 0);
      }
    },
  },
  {
    name: 'fifty starts and resets in one go',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start();
      const round = [...driver.reset(), ...driver.steps(), ...notifyAll(driver)];
      await driver.rig.run(Array.from({ length: 50 }, () => round).flat());
      await driver.start();
      await serves(driver);
    },
  },
  {
    name: 'the selects and the interrupt status are as new after a reset',
    verdict: served,
    async attack(driver) {
      await serves(driver);
      const results = await driver.rig.run([
        driver.set(reg.queueSelect, 0xffff),
        driver.set(reg.deviceFeaturesSelect, 1),
        ...driver.reset(),
        driver.get(reg.interruptStatus),
        driver.get(reg.queueSizeMax),
        driver.get(reg.queueReady),
        driver.get(reg.deviceFeatures),
      ]);
      const [interrupts, size, ready, features] = results.slice(-4).map(({ value }) => Number(value));
      assert.equal(interrupts, 0);
      assert.equal(size, driver.device.description.queueSizes[0]);
      assert.equal(ready, 0);
      assert.equal(features, Number(offered(driver) & 0xffff_ffffn));
    },
  },
  {
    name: 'no queue is ready, and all are notified',
    verdict: served,
    async attack(driver) {
      const none = Object.fromEntries(driver.rings.map(({ index }) => [index, null]));
      await driver.start({ rings: none });
      const untouched = bait(driver);
      await driver.rig.run(notifyAll(driver));
      assert.equal(await driver.status(), LIVE);
      untouched();
    },
  },
  {
    name: 'only the last queue is ready, and all are notified',
    verdict: served,
    async attack(driver) {
      const others = driver.rings.slice(0, -1).map(({ index }) => [index, null]);
      await driver.start({ rings: Object.fromEntries(others) });
      await driver.rig.run(notifyAll(driver));
      assert.equal(await driver.status(), LIVE);
    },
  },
  {
    name: 'buffers that are available before DRIVER_OK are not touched',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      const untouched = bait(driver);
      const rings = driver.rings.flatMap((ring) => driver.setRing(ring.index, ring.place));
      await driver.rig.run([...rings, ...notifyAll(driver)]);
      untouched();
    },
  },
  {
    name: 'after a reset, nothing of the old rings is touched',
    verdict: served,
    async attack(driver) {
      await serves(driver);
      await driver.rig.run(driver.reset());
      for (const ring of driver.rings) ring.clear();
      const untouched = bait(driver);
      await driver.rig.run(notifyAll(driver));
      untouched();
    },
  },
  {
    name: 'while the device is broken, nothing is served and nothing starts it',
    verdict: /queue size is not a power of two/,
    start: null,
    async attack(driver) {
      await driver.start({ rings: { 0: { size: 3 } } });
      await driver.rig.run([driver.broken()]);
      const untouched = bait(driver);
      await driver.rig.run([...notifyAll(driver), ...status(driver, LIVE, 3, LIVE), ...notifyAll(driver)]);
      assert.equal(await driver.status(), LIVE | NEEDS_RESET);
      untouched();
    },
  },
  {
    name: 'a device that is reset with requests on their way takes none of them along',
    verdict: served,
    async attack(driver) {
      for (let i = 0; i < 20; i++) {
        bait(driver);
        await driver.rig.run([...notifyAll(driver), ...driver.reset()]);
        await driver.start();
      }
      await serves(driver);
    },
  },
];

for (const { device } of bench.drivers) {
  if (device.name !== 'read-only') attack(bench, device.name, negotiation);
}
bench.end();
