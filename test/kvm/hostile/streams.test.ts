/** What a driver can do wrong with the console, the entropy source and a device written in TypeScript (virtio 1.2, 5.3, 5.4). */
import { strict as assert } from 'node:assert';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import { type Driver, INDIRECT, NEXT, WRITE, writeDescriptor } from '../../support/hostile-guest/driver.js';
import { write } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { RAM } from '../../support/hostile-guest/rig.js';

const RECEIVE = 0;
const TRANSMIT = 1;

/** What the device written in TypeScript does next. */
let behaviour: 'echo' | 'throw' | 'reject' | 'never' | 'twice' | 'late' = 'echo';
const kept: (() => void)[] = [];

const bench = await fullBench({
  script: {
    name: 'script',
    deviceId: 42,
    queueSizes: [64],
    serve(chain) {
      if (behaviour === 'throw') throw new Error('thrown on purpose');
      if (behaviour === 'reject') return Promise.reject(new Error('rejected on purpose'));
      if (behaviour === 'never') return new Promise(() => {});
      chain.write(chain.read(Math.min(chain.readableSize, 1 << 16)));
      if (behaviour === 'twice') while (chain.write(new Uint8Array(64)) > 0);
      if (behaviour === 'late') return new Promise((resolve) => kept.push(resolve));
      return undefined;
    },
  },
});

/** A chain whose one buffer of RAM stands in it `count` times. */
function many(driver: Driver, queue: number, count: number, flags: number, length: number = RAM.size): void {
  const table = driver.buffer(count * 16);
  for (let i = 0; i < count; i++) {
    const more = i < count - 1 ? NEXT : 0;
    writeDescriptor(driver.rig, table + 16 * i, { address: 0, length, flags: flags | more, next: i + 1 });
  }
  driver.ring(queue).describe(0, { address: table, length: count * 16, flags: INDIRECT });
  driver.ring(queue).put(0);
}

const printed = (): string => Buffer.concat(bench.output).toString('latin1');

const console: readonly Case[] = [
  {
    name: 'output with a writable part',
    verdict: served,
    async attack(driver) {
      const { length } = await driver.request(TRANSMIT, [Buffer.from('mixed\n')], [64]);
      assert.equal(length, 0);
      while (!printed().includes('mixed')) await new Promise((resolve) => setImmediate(resolve));
    },
  },
  {
    name: 'output that is only a writable part',
    verdict: served,
    async attack(driver) {
      assert.equal((await driver.request(TRANSMIT, [], [64])).length, 0);
    },
  },
  {
    name: 'output of nothing, a thousand times',
    verdict: served,
    async attack(driver) {
      const ring = driver.ring(TRANSMIT);
      for (let i = 0; i < 16; i++) ring.put(0);
      await driver.run(
        ...Array.from({ length: 64 }, (_, i) => [
          ...driver.offer(TRANSMIT, 16 * (i + 1)),
          driver.returned(TRANSMIT, 16 * (i + 1)),
        ]).flat(),
      );
    },
  },
  {
    name: 'output from the rings themselves',
    verdict: served,
    async attack(driver) {
      const ring = driver.ring(TRANSMIT);
      ring.chain(0, [
        { address: ring.place.descriptors, length: 256 },
        { address: ring.place.used, length: 64 },
      ]);
      ring.put(0);
      await driver.run(...driver.offer(TRANSMIT), driver.returned(TRANSMIT));
    },
  },
  {
    name: 'output of 1,024 pieces of a byte',
    verdict: served,
    async attack(driver) {
      many(driver, TRANSMIT, 1024, 0, 1);
      await driver.run(...driver.offer(TRANSMIT), driver.returned(TRANSMIT));
    },
  },
  {
    name: 'a reset with output on its way',
    verdict: served,
    async attack(driver) {
      for (let i = 0; i < 10; i++) {
        many(driver, TRANSMIT, 16, 0, 4096);
        await driver.rig.run([...driver.offer(TRANSMIT), ...driver.reset()]);
        await driver.start();
      }
    },
  },
  {
    name: 'input into readable, empty and no buffers',
    verdict: served,
    async attack(driver) {
      bench.console.write(0, Buffer.from('input'));
      const ring = driver.ring(RECEIVE);
      ring.chain(0, [{ address: driver.buffer(8), length: 8 }]);
      ring.chain(1, [{ address: driver.buffer(8), length: 0, flags: WRITE }]);
      ring.chain(2, [
        { address: driver.buffer(8), length: 8 },
        { address: driver.buffer(8), length: 0, flags: WRITE },
      ]);
      const into = driver.buffer(8);
      ring.chain(4, [{ address: into, length: 8, flags: WRITE }]);
      ring.put(0, 1, 2, 4);
      await driver.run(...driver.offer(RECEIVE), driver.returned(RECEIVE));
      assert.deepEqual(
        [0, 1, 2, 3].map((n) => ring.usedEntry(n).length),
        [0, 0, 0, 5],
      );
      assert.equal(Buffer.from(driver.rig.memory.read(into, 5)).toString(), 'input');
    },
  },
  {
    name: 'input into the used ring',
    verdict: 'either',
    async attack(driver) {
      bench.console.write(0, Buffer.alloc(64, 0xff));
      const ring = driver.ring(RECEIVE);
      ring.chain(0, [{ address: ring.place.used, length: 64, flags: WRITE }]);
      ring.put(0);
      await driver.rig.run(driver.offer(RECEIVE));
      await serves(driver);
    },
  },
  {
    name: 'a head out of range where input waits',
    verdict: /available entry is not below/,
    async attack(driver) {
      bench.console.write(0, Buffer.from('x'));
      driver.ring(RECEIVE).put(500);
      await driver.rig.run(driver.offer(RECEIVE));
    },
  },
  {
    name: 'input that nobody takes is bounded',
    verdict: served,
    async attack() {
      let taken = 0;
      for (let i = 0; i < 100; i++) taken += bench.console.write(0, Buffer.alloc(1 << 16));
      assert.ok(taken <= 2 << 16, `${taken} bytes`);
    },
  },
  {
    name: 'the size changes while the device is reset again and again',
    verdict: served,
    async attack(driver) {
      for (let i = 1; i <= 20; i++) {
        bench.console.resize(0, i, i);
        await driver.rig.run([...driver.reset(), ...driver.steps()]);
      }
    },
  },
];

const rng: readonly Case[] = [
  {
    name: 'a readable buffer to fill',
    verdict: served,
    async attack(driver) {
      assert.equal((await driver.request(0, [Buffer.alloc(16)], [])).length, 0);
    },
  },
  {
    name: 'a request of 4 GiB less 64 MiB: no more than the device’s limit, and the others have their turn',
    verdict: served,
    async attack(driver) {
      // Into the second region, which holds nothing.
      const count = 1024;
      const table = driver.buffer(count * 16);
      for (let i = 0; i < count; i++) {
        writeDescriptor(driver.rig, table + 16 * i, {
          address: 64 << 20,
          length: 2 << 20,
          flags: WRITE | (i < count - 1 ? NEXT : 0),
          next: i + 1,
        });
      }
      driver.ring(0).describe(0, { address: table, length: count * 16, flags: INDIRECT });
      for (let i = 0; i < 16; i++) driver.ring(0).put(0);
      await driver.run(...driver.offer(0), driver.returned(0));
      for (let n = 0; n < 16; n++) assert.ok(driver.ring(0).usedEntry(n).length <= 1 << 20);
    },
  },
  {
    name: 'random bytes for its own descriptors',
    verdict: 'either',
    async attack(driver) {
      const { place } = driver.ring(0);
      driver.ring(0).describe(0, { address: place.descriptors, length: 256, flags: WRITE });
      for (let i = 0; i < 16; i++) driver.ring(0).put(0);
      await driver.rig.run(driver.offer(0));
    },
  },
  {
    name: 'random bytes for its own available ring',
    verdict: 'either',
    async attack(driver) {
      const { place } = driver.ring(0);
      driver.ring(0).describe(0, { address: place.available, length: 38, flags: WRITE });
      driver.ring(0).put(0);
      for (let i = 0; i < 50; i++) {
        await driver.start();
        driver.ring(0).describe(0, { address: place.available, length: 38, flags: WRITE });
        driver.ring(0).put(0);
        await driver.rig.run(driver.offer(0));
      }
    },
  },
];

/** Sets what the device does for the length of a case. */
const behaves = (what: typeof behaviour, each: Case): Case => ({
  ...each,
  async attack(driver) {
    behaviour = what;
    try {
      await each.attack(driver);
    } finally {
      behaviour = 'echo';
    }
  },
});

const script: readonly Case[] = [
  behaves('throw', {
    name: 'its code throws for a request',
    verdict: /thrown on purpose/,
    async attack(driver) {
      driver.prepare(0, [Buffer.from('x')], [8]);
      await driver.rig.run([...driver.offer(0), driver.broken()]);
    },
  }),
  behaves('reject', {
    name: 'its promise rejects',
    verdict: /rejected on purpose/,
    async attack(driver) {
      driver.prepare(0, [Buffer.from('x')], [8]);
      await driver.rig.run([...driver.offer(0), driver.broken()]);
    },
  }),
  behaves('never', {
    name: 'all descriptors are with it for ever, then a reset',
    verdict: served,
    async attack(driver) {
      for (let i = 0; i < 16; i++) driver.ring(0).put(i);
      await driver.rig.run(driver.offer(0));
      await bench.probe([bench.driver('rng')]);
      assert.equal(driver.ring(0).usedIndex, 0);
    },
  }),
  behaves('twice', {
    name: 'it writes more than there is room for',
    verdict: served,
    async attack(driver) {
      const { length } = await driver.request(0, [Buffer.alloc(100)], [10, 20]);
      assert.equal(length, 30);
    },
  }),
  behaves('late', {
    name: 'it answers after a reset: nothing is written into the driver’s memory',
    verdict: served,
    async attack(driver) {
      driver.prepare(0, [Buffer.from('late')], [8]);
      await driver.rig.run(driver.offer(0));
      await bench.probe([bench.driver('rng')]);
      while (kept.length === 0) await new Promise((resolve) => setImmediate(resolve));
      await driver.start();
      for (const finish of kept.splice(0)) finish();
      await bench.probe([bench.driver('rng')]);
      assert.equal(driver.ring(0).usedIndex, 0);
    },
  }),
  {
    name: 'the used ring on the available ring, so that each answer is a new request',
    verdict: 'either',
    async attack(driver) {
      // used.ring[0].id is where available.idx is: the device's own heads are what is available.
      const base = 0x3c0_0000;
      driver.rig.memory.fill(base, 0x3000);
      const place = { descriptors: base, available: base + 0x1000, used: base + 0x1000 };
      await driver.start({ rings: { 0: { ...place, size: 2 } } });
      driver.rig.memory.fill(base, 0x3000);
      await driver.rig.run([write(2, base + 0x1002, 1), driver.set(0x50, 0)]);
      await driver.rig.run([write(2, base + 0x1002, 2), driver.set(0x50, 0)]);
    },
  },
];

attack(bench, 'console', console);
attack(bench, 'rng', rng);
attack(bench, 'script', script);
bench.end();
