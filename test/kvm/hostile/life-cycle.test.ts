/** A hostile driver while the host suspends, saves, removes the device, or takes the machine down. */
import { strict as assert } from 'node:assert';
import t from 'tap';
import type { NativeValue } from '../../../src/addon/index.js';
import { attack, type Case, watch } from '../../support/hostile-guest/cases.js';
import { type Driver, LIVE, reg, WRITE } from '../../support/hostile-guest/driver.js';
import { read, repeat, until, write } from '../../support/hostile-guest/interpreter.js';
import { type FullBench, fullBench } from '../../support/hostile-guest/machine.js';
import { storm } from '../../support/hostile-guest/storm.js';

const bench = await fullBench({ cpus: 2 });
const FLAG = 0x3d0_0000;

type Step = 'pauseDevice' | 'resumeDevice' | 'saveDevice' | 'removeDevice';

function ask(of: FullBench, step: Step, name: string): Promise<NativeValue> {
  return new Promise((resolve, reject) => {
    of.rig.machine[step](name, (error, value) =>
      error === undefined ? resolve(value) : reject(new Error(error)),
    );
  });
}

function restore(of: FullBench, name: string, state: NativeValue): Promise<void> {
  return new Promise((resolve, reject) => {
    of.rig.machine.restoreDevice(name, state, (error) =>
      error === undefined ? resolve() : reject(new Error(error)),
    );
  });
}

const during = (name: string, run: (driver: Driver) => Promise<unknown>): Case => ({
  name,
  verdict: 'either',
  async attack(driver) {
    driver.rig.memory.writeU32(FLAG, 0);
    const storming = driver.rig.run(until(FLAG, storm(driver)), 1);
    try {
      await run(driver);
    } finally {
      driver.rig.memory.writeU32(FLAG, 1);
      await storming;
    }
    await driver.rig.run(driver.reset());
  },
});

const cases: readonly Case[] = [
  during('it is paused and resumed while the driver breaks and resets it', async ({ device: { name } }) => {
    for (let i = 0; i < 10; i++) {
      await ask(bench, 'pauseDevice', name);
      await ask(bench, 'resumeDevice', name);
    }
  }),
  during('pause and resume come together', async ({ device: { name } }) => {
    for (let i = 0; i < 10; i++) {
      const pausing = ask(bench, 'pauseDevice', name);
      await ask(bench, 'resumeDevice', name);
      // A pause that was ended before it was done need not be answered.
      await Promise.race([pausing, ask(bench, 'resumeDevice', name)]);
    }
  }),
  during('it is saved while the driver breaks and resets it', async ({ device: { name } }) => {
    for (let i = 0; i < 10; i++) {
      await ask(bench, 'pauseDevice', name);
      const state = await ask(bench, 'saveDevice', name);
      assert.equal(typeof state, 'object');
      await ask(bench, 'resumeDevice', name);
    }
  }),
  {
    name: 'while it is paused, nothing is served and nothing is written',
    verdict: 'either',
    async attack(driver) {
      const { name } = driver.device;
      await ask(bench, 'pauseDevice', name);
      for (const ring of driver.rings) {
        ring.chain(0, [{ address: driver.buffer(64), length: 64, flags: WRITE }]);
        ring.put(0);
      }
      await driver.rig.run(driver.rings.flatMap(({ index }) => driver.offer(index)));
      await bench.probe(bench.drivers.filter((other) => other !== driver));
      for (const ring of driver.rings) assert.equal(ring.usedIndex, 0);
      await ask(bench, 'resumeDevice', name);
    },
  },
  {
    name: 'it is reset, started and broken while it is paused',
    verdict: 'either',
    async attack(driver) {
      const { name } = driver.device;
      await ask(bench, 'pauseDevice', name);
      await driver.rig.run(driver.reset());
      await driver.rig.run(driver.steps());
      await driver.rig.run(driver.rings.flatMap(({ index }) => driver.offer(index, 0x4000)));
      await driver.rig.run(driver.reset());
      await ask(bench, 'resumeDevice', name);
    },
  },
  {
    name: 'it is paused when it is broken, then reset',
    verdict: 'either',
    async attack(driver) {
      const { name } = driver.device;
      await driver.start({ rings: { 0: { size: 3 } } });
      await driver.rig.run([driver.broken()]);
      await ask(bench, 'pauseDevice', name);
      await ask(bench, 'saveDevice', name);
      await driver.rig.run(driver.reset());
      await ask(bench, 'resumeDevice', name);
    },
  },
  {
    name: 'its saved state, with rings that the driver has moved to where none can be, is refused',
    verdict: 'either',
    async attack(driver) {
      const { name } = driver.device;
      await ask(bench, 'pauseDevice', name);
      const good = await ask(bench, 'saveDevice', name);
      const forge = (change: (state: Record<string, NativeValue>) => void): NativeValue => {
        const state = structuredClone(good) as Record<string, NativeValue>;
        change(state);
        return state;
      };
      const queue = (change: Record<string, NativeValue>) => (state: Record<string, NativeValue>) => {
        const queues = state.queues as NativeValue[];
        queues[0] = { ...(queues[0] as Record<string, NativeValue>), ...change };
      };
      for (const change of [
        queue({ size: 3 }),
        queue({ size: 0x8000 }),
        queue({ descriptors: 0x8000_0000 }),
        queue({ used: 0xffff_ffff_fffcn }),
        (state: Record<string, NativeValue>) => {
          state.queues = [];
        },
        (state: Record<string, NativeValue>) => {
          state.version = 99;
        },
        (state: Record<string, NativeValue>) => {
          state.config = new Uint8Array(1);
        },
      ]) {
        await assert.rejects(restore(bench, name, forge(change)), 'a state that cannot be');
      }
      await restore(bench, name, good);
      await ask(bench, 'resumeDevice', name);
    },
  },
];

const NAMES = ['blk', 'fs', 'vsock', 'console', 'rng', 'script', 'balloon', 'ports', 'net'];
for (const name of NAMES) attack(bench, name, cases);
bench.end();

for (const name of NAMES) {
  t.test(`${name}: removed in the middle of an attack`, async (t) => {
    const done = watch(`${name}: removed`);
    const of = await fullBench({ cpus: 2 });
    const driver = of.driver(name);
    of.rig.memory.writeU32(FLAG, 0);
    const storming = of.rig.run(until(FLAG, storm(driver)), 1);
    await ask(of, 'removeDevice', name);
    const everything = [0, reg.status, reg.queueNotify, reg.config].flatMap((offset) => [
      read(4, driver.base + offset),
      write(4, driver.base + offset, LIVE),
    ]);
    await of.rig.run(repeat(20, everything));
    of.rig.memory.writeU32(FLAG, 1);
    await storming;
    await of.probe(of.drivers.filter((other) => other !== driver));
    t.equal(of.rig.ended, undefined);
    of.close();
    done();
  });
  t.test(`${name}: the machine is closed in the middle of an attack`, async (t) => {
    const done = watch(`${name}: closed`);
    for (let i = 0; i < 3; i++) {
      const of = await fullBench({ cpus: 2 });
      const driver = of.driver(name);
      of.rig.memory.writeU32(FLAG, 0);
      const storming = of.rig.run(until(FLAG, storm(driver)), 1).catch(() => {});
      const other = of.driver(name === 'rng' ? 'blk' : 'rng');
      await of.rig.run([...repeat(20 * (i + 1), [driver.get(reg.status), ...storm(other)])]);
      of.close();
      void storming;
    }
    done();
    t.pass('it has ended');
  });
}
