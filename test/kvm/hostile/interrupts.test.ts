/** Interrupts (virtio 1.2, 2.7.7, 2.7.10, 4.2.2): none is lost, none comes without end, whatever the driver writes. */
import { strict as assert } from 'node:assert';
import { FEATURE_EVENT_INDEX, FEATURE_VERSION_1 } from '../../../src/virtio/queue.js';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import { DEFAULT_FEATURES, type Driver, type Ring, reg, WRITE } from '../../support/hostile-guest/driver.js';
import { fuse, fuseInit, fuseRequest } from '../../support/hostile-guest/fuse.js';
import {
  add,
  copy,
  differ,
  match,
  type Operation,
  read,
  repeat,
  write,
} from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { blkHeader } from '../../support/hostile-guest/probes.js';
import { VSOCK, vsockPacket } from '../../support/hostile-guest/vsock.js';

const bench = await fullBench();

const EVENT_INDEX = FEATURE_VERSION_1 | FEATURE_EVENT_INDEX;
const USED_BUFFER = 1;

/** A request that can be sent again and again, at entry 0 of a queue. */
function lay(driver: Driver): Ring {
  const [queue, readable, writable] = (
    {
      blk: [0, blkHeader(0, 1), 513],
      fs: [1, fuseRequest(fuse.GETATTR, 1, Buffer.alloc(16)), 120],
      vsock: [VSOCK.transmit, vsockPacket({ op: VSOCK.RST }), 0],
      console: [1, Buffer.from('.\n'), 0],
      rng: [0, Buffer.alloc(0), 16],
      script: [0, Buffer.from('ping'), 4],
      balloon: [1, Buffer.alloc(4), 0],
      ports: [1, Buffer.from('.\n'), 0],
    } as const
  )[driver.device.name as 'blk'];
  const ring = driver.ring(queue);
  ring.chain(0, [
    { address: driver.buffer(Buffer.concat([readable, Buffer.alloc(1)])), length: readable.length },
    { address: driver.buffer(1024), length: writable, flags: WRITE },
  ]);
  return ring;
}

/** Makes entry 0 available once more, and waits until it is back. */
const once = (driver: Driver, ring: Ring): Operation[] => {
  ring.put(0);
  return [...driver.offer(ring.index), driver.returned(ring.index)];
};

async function session(driver: Driver): Promise<void> {
  if (driver.device.name === 'fs') await driver.request(1, [fuseInit()], [80]);
}

/** How many interrupts the device raises for what `run` does. */
async function raised(driver: Driver, run: () => Promise<unknown>): Promise<number> {
  const before = driver.rig.interruptsRaised(driver.device);
  await run();
  await bench.probe([bench.driver(driver.device.name === 'rng' ? 'blk' : 'rng')]);
  return driver.rig.interruptsRaised(driver.device) - before;
}

const withRing = (
  name: string,
  features: bigint,
  run: (driver: Driver, ring: Ring) => Promise<unknown>,
): Case => ({
  name,
  verdict: served,
  start: { features },
  async attack(driver) {
    await session(driver);
    await run(driver, lay(driver));
  },
});

const usedEvent = (ring: Ring): number => ring.place.available + 4 + 2 * ring.place.size;
const availEvent = (ring: Ring): number => ring.place.used + 4 + 8 * ring.place.size;

const cases: readonly Case[] = [
  withRing('one request, one interrupt; it is acknowledged once', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.rig.run([driver.set(reg.interruptAck, 3)]);
    assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1);
    const [first, , second] = await driver.rig.run([
      driver.get(reg.interruptStatus),
      driver.set(reg.interruptAck, USED_BUFFER),
      driver.get(reg.interruptStatus),
    ]);
    assert.equal(first?.value, 1n);
    assert.equal(second?.value, 0n);
  }),
  withRing(
    'an interrupt that is never acknowledged does not keep later ones away',
    DEFAULT_FEATURES,
    async (driver, ring) => {
      for (let i = 0; i < 5; i++)
        assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1);
    },
  ),
  withRing('acknowledging what is not there, and the wrong bits', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.rig.run(
      [0xffff_ffff, 2, 4, 0x8000_0000, 0].map((value) => driver.set(reg.interruptAck, value)),
    );
    await driver.run(...once(driver, ring));
    await driver.rig.run([driver.set(reg.interruptAck, 0xffff_fffe)]);
    assert.equal(await driver.rig.value(driver.get(reg.interruptStatus)), USED_BUFFER);
  }),
  withRing('the interrupt status is written', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.rig.run([driver.set(reg.interruptAck, 3), driver.set(reg.interruptStatus, 0xffff_ffff)]);
    assert.equal(await driver.rig.value(driver.get(reg.interruptStatus)), 0);
    await driver.run(...once(driver, ring));
  }),
  withRing('no interrupt where the driver wants none', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.rig.run([write(2, ring.place.available, 1)]);
    assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 0);
    await driver.rig.run([write(2, ring.place.available, 0)]);
    assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1, 'and again where it does');
  }),
  withRing('flags of the available ring that there are not', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.rig.run([write(2, ring.place.available, 0xfffe)]);
    assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1);
  }),
  withRing(
    'the flags of the used ring are the driver’s own invention',
    DEFAULT_FEATURES,
    async (driver, ring) => {
      await driver.rig.run([write(2, ring.place.used, 0xffff)]);
      await driver.run(...once(driver, ring));
      await serves(driver);
    },
  ),
  withRing(
    'two hundred requests, each waited for by its interrupt',
    DEFAULT_FEATURES,
    async (driver, ring) => {
      // The counter goes up by at least one for each: the guest waits for it to differ from what it was.
      const counter = driver.rig.interruptCounter(driver.device);
      const seen = driver.buffer(16);
      const step = [
        copy(counter, seen, 4),
        add(2, ring.place.available + 2, 1),
        driver.set(reg.queueNotify, ring.index),
        // Equal while the interrupt has not come.
        differ(4, counter, seen),
        driver.set(reg.interruptAck, USED_BUFFER),
      ];
      await driver.run(...repeat(200, step));
    },
  ),
  withRing('a reset takes the interrupt back', DEFAULT_FEATURES, async (driver, ring) => {
    await driver.run(...once(driver, ring));
    assert.equal(await driver.rig.value(...driver.reset(), driver.get(reg.interruptStatus)), 0);
    assert.equal(await raised(driver, () => driver.rig.run([driver.set(reg.queueNotify, 0)])), 0);
  }),
  withRing(
    'event index: an interrupt when the event is reached, none before',
    EVENT_INDEX,
    async (driver, ring) => {
      const from = ring.available;
      await driver.rig.run([write(2, usedEvent(ring), from + 2)]);
      assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 0, 'the first');
      assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 0, 'the second');
      assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1, 'the third');
      assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 0, 'not again');
    },
  ),
  ...[0x7fff, 0x8000, 0x8001, 0xffff].map((far) =>
    withRing(`event index: an event 0x${far.toString(16)} ahead`, EVENT_INDEX, async (driver, ring) => {
      await driver.rig.run([write(2, usedEvent(ring), (ring.available + far) & 0xffff)]);
      for (let i = 0; i < 4; i++) {
        assert.ok((await raised(driver, () => driver.run(...once(driver, ring)))) <= 1);
      }
    }),
  ),
  withRing(
    'event index: the device’s own event is the driver’s invention',
    EVENT_INDEX,
    async (driver, ring) => {
      for (const value of [0, 0x8000, 0xffff]) {
        await driver.rig.run([write(2, availEvent(ring), value)]);
        await driver.run(...once(driver, ring));
      }
      await serves(driver);
    },
  ),
  withRing('event index: the flags mean nothing', EVENT_INDEX, async (driver, ring) => {
    await driver.rig.run([write(2, usedEvent(ring), ring.available), write(2, ring.place.available, 1)]);
    assert.equal(await raised(driver, () => driver.run(...once(driver, ring))), 1);
  }),
  withRing('a batch of sixteen: sixteen at most', DEFAULT_FEATURES, async (driver, ring) => {
    const batch = async (): Promise<void> => {
      for (let i = 0; i < 16; i++) ring.put(0);
      await driver.run(...driver.offer(ring.index), driver.returned(ring.index));
    };
    const count = await raised(driver, batch);
    assert.ok(count >= 1 && count <= 16, `${count}`);
  }),
  withRing('the used index goes on past 65535', DEFAULT_FEATURES, async (driver, { index }) => {
    const size = Math.min(64, driver.device.description.queueSizes[index] ?? 0);
    await driver.start({ rings: { [index]: { size } } });
    await session(driver);
    const ring = lay(driver);
    const { available, used } = ring.place;
    const from = ring.available;
    for (let i = 0; i < size; i++) ring.put(0);
    const rounds = Math.ceil(66_000 / size);
    const step = [
      add(2, available + 2, size),
      driver.set(reg.queueNotify, ring.index),
      match(2, used + 2, available + 2),
    ];
    await driver.run(...repeat(rounds, step));
    assert.equal(await driver.rig.value(read(2, used + 2)), (from + rounds * size) & 0xffff);
  }),
];

for (const name of ['blk', 'fs', 'vsock', 'console', 'rng', 'script', 'balloon', 'ports']) {
  attack(bench, name, cases);
}
bench.end();
