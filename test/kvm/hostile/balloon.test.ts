/** What a driver can do wrong with the balloon (virtio 1.2, 5.5) and with the control messages of a console's ports (5.3.6). */
import { strict as assert } from 'node:assert';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import {
  DEFAULT_FEATURES,
  type Driver,
  reg,
  WRITE,
  writeDescriptor,
} from '../../support/hostile-guest/driver.js';
import { words } from '../../support/hostile-guest/fuse.js';
import { repeat, write } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { HIGH_RAM, NEXT_RAM } from '../../support/hostile-guest/rig.js';

const bench = await fullBench();

const INFLATE = 0;
const DEFLATE = 1;
const STATISTICS = 2;
const REPORTING = 4;
const PAGE = 4096;
const ALL = DEFAULT_FEATURES | (1n << 1n) | (1n << 5n);
const POISON = 1n << 4n;

/** Page numbers into the balloon; they come back with a used length of 0. */
async function inflate(driver: Driver, numbers: Uint8Array): Promise<void> {
  const { length } = await driver.request(INFLATE, [numbers], []);
  assert.equal(length, 0);
}

const pages = (name: string, ...numbers: number[]): Case => ({
  name,
  verdict: served,
  attack: (driver) => inflate(driver, words(...numbers)),
});

/** A page that somebody has written to. */
function used(address: number): number {
  bench.rig.memory.fill(address, PAGE, 0xaa);
  return address / PAGE;
}

const balloon: readonly Case[] = [
  pages('a page in the gap', 0x8_0000),
  pages('a page on a device’s registers', 0xc_0000),
  pages('the first page behind all RAM', (HIGH_RAM.address + HIGH_RAM.size) / PAGE),
  pages('the last page that there can be', 0xffff_ffff),
  pages('pages outside RAM between pages inside', 0x3b00, 0x8_0000, 0x3b01, 0xffff_ffff, 0x3b02),
  {
    name: 'a page twice, in one request and in two',
    verdict: served,
    async attack(driver) {
      await inflate(driver, words(used(0x3b0_0000), 0x3b00, 0x3b00));
      await inflate(driver, words(0x3b00));
      assert.equal(driver.rig.memory.readU32(0x3b0_0000), 0, 'what it held is gone');
    },
  },
  {
    name: 'pages across two regions of RAM',
    verdict: served,
    attack: (driver) => inflate(driver, words(used(NEXT_RAM.address - PAGE), used(NEXT_RAM.address))),
  },
  ...[1, 2, 3, 5, 7].map(
    (length): Case => ({
      name: `${length} bytes of page numbers`,
      verdict: served,
      attack: (driver) => inflate(driver, Buffer.alloc(length, 0xff)),
    }),
  ),
  {
    name: 'a page number in single bytes',
    verdict: served,
    async attack(driver) {
      const number = words(used(0x3b0_0000));
      await driver.request(
        INFLATE,
        [...number].map((byte) => Buffer.from([byte])),
        [],
      );
      assert.equal(driver.rig.memory.readU32(0x3b0_0000), 0);
    },
  },
  {
    name: 'page numbers in a writable buffer',
    verdict: served,
    attack: (driver) => driver.request(INFLATE, [], [64]),
  },
  {
    name: '64 MiB of page numbers: none is taken',
    verdict: served,
    async attack(driver) {
      driver.ring(INFLATE).chain(0, [{ address: 0, length: 64 << 20 }]);
      driver.ring(INFLATE).put(0);
      await driver.run(...driver.offer(INFLATE), driver.returned(INFLATE));
    },
  },
  {
    name: 'the page that the page numbers stand in',
    verdict: served,
    async attack(driver) {
      const at = 0x3b0_0000;
      driver.rig.memory.fill(at, PAGE, 0);
      // Not more than are read at once: then the rest would be zeros, and the guest's own first page.
      for (let i = 0; i < 64; i++) driver.rig.memory.writeU32(at + 4 * i, at / PAGE);
      driver.ring(INFLATE).chain(0, [{ address: at, length: 256 }]);
      driver.ring(INFLATE).put(0);
      await driver.run(...driver.offer(INFLATE), driver.returned(INFLATE));
    },
  },
  {
    name: 'the pages of its own rings',
    verdict: 'either',
    async attack(driver) {
      const base = 0x3c0_0000;
      driver.rig.memory.fill(base, 0x3000);
      const place = { descriptors: base, available: base + 0x1000, used: base + 0x2000 };
      await driver.start({ rings: { [INFLATE]: place } });
      const numbers = driver.buffer(words(base / PAGE, base / PAGE + 1, base / PAGE + 2));
      writeDescriptor(driver.rig, base, { address: numbers, length: 12 });
      driver.rig.memory.writeU16(base + 0x1004, 0);
      await driver.rig.run([write(2, base + 0x1002, 1), driver.set(reg.queueNotify, INFLATE)]);
    },
  },
  {
    name: 'pages out of the balloon that never went in, a whole queue of 2^24',
    verdict: served,
    async attack(driver) {
      driver.ring(DEFLATE).chain(0, [{ address: 0, length: 64 << 20 }]);
      for (let i = 0; i < 16; i++) driver.ring(DEFLATE).put(0);
      await driver.run(...driver.offer(DEFLATE), driver.returned(DEFLATE));
    },
  },
  {
    name: 'statistics that nobody asked for, sixteen buffers of them',
    verdict: served,
    start: { features: ALL },
    async attack(driver) {
      driver.ring(STATISTICS).describe(0, { address: driver.buffer(Buffer.alloc(10, 0xff)), length: 10 });
      for (let i = 0; i < driver.ring(STATISTICS).place.size; i++) driver.ring(STATISTICS).put(0);
      await driver.rig.run(driver.offer(STATISTICS));
    },
  },
  ...[0, 1, 9, 11, 64 << 10].map(
    (length): Case => ({
      name: `an answer of ${length} bytes to a question for statistics`,
      verdict: served,
      start: { features: ALL },
      async attack(driver) {
        const ring = driver.ring(STATISTICS);
        ring.describe(0, { address: driver.buffer(Buffer.alloc(length, 0xff)), length });
        ring.put(0);
        await driver.rig.run(driver.offer(STATISTICS));
        const asked = bench.balloon.statistics().then(
          () => {},
          () => {},
        );
        await driver.run(driver.returned(STATISTICS));
        ring.put(0);
        await driver.rig.run(driver.offer(STATISTICS));
        await driver.start();
        void asked;
      },
    }),
  ),
  {
    name: 'reports of readable memory, of the rings, and of all RAM behind them',
    verdict: served,
    start: { features: ALL },
    async attack(driver) {
      await driver.request(REPORTING, [Buffer.alloc(64)], []);
      await driver.request(REPORTING, [], [1, 4095, 4097]);
      const ring = driver.ring(REPORTING);
      ring.chain(0, [{ address: NEXT_RAM.address, length: NEXT_RAM.size, flags: WRITE }]);
      ring.put(0);
      await driver.run(...driver.offer(REPORTING), driver.returned(REPORTING));
    },
  },
  {
    name: 'reports, with no other queue ready',
    verdict: served,
    start: null,
    async attack(driver) {
      const rings = { 0: null, 1: null, 2: null, 3: null };
      await driver.start({ features: ALL, rings });
      await driver.request(REPORTING, [], [4096]);
    },
  },
  {
    name: 'reported memory that is poisoned keeps what is in it',
    verdict: served,
    start: { features: ALL | POISON },
    async attack(driver) {
      await driver.rig.run([write(4, driver.base + reg.config + 12, 0xaaaa_aaaa)]);
      used(NEXT_RAM.address);
      const ring = driver.ring(REPORTING);
      ring.chain(0, [{ address: NEXT_RAM.address, length: PAGE, flags: WRITE }]);
      ring.put(0);
      await driver.run(...driver.offer(REPORTING), driver.returned(REPORTING));
      assert.equal(driver.rig.memory.readU8(NEXT_RAM.address), 0xaa);
    },
  },
  {
    name: 'how much it holds, told a thousand times and wrongly',
    verdict: served,
    async attack(driver) {
      const told = [0xffff_ffff, 0, 1, 0x8000_0000].map((value) =>
        write(4, driver.base + reg.config + 4, value),
      );
      await driver.rig.run(repeat(250, told));
      await serves(driver);
    },
  },
];

const CONTROL_IN = 2;
const CONTROL_OUT = 3;
const MULTIPORT = { features: DEFAULT_FEATURES | 2n };

/** A control message: to which port, which event, which value. */
function message(id: number, event: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(id >>> 0, 0);
  bytes.writeUInt16LE(event, 4);
  bytes.writeUInt16LE(value, 6);
  return bytes;
}

const sends = (name: string, ...messages: readonly Uint8Array[]): Case => ({
  name,
  verdict: served,
  start: MULTIPORT,
  async attack(driver) {
    for (const each of messages) assert.equal((await driver.request(CONTROL_OUT, [each], [])).length, 0);
    await serves(driver);
  },
});

const ports: readonly Case[] = [
  sends(
    'control messages for ports that there are not',
    ...[3, 31, 0xffff, 0x1_0000, 0xffff_ffff].map((id) => message(id, 3, 1)),
  ),
  sends(
    'control messages of kinds that there are not',
    ...[1, 2, 4, 5, 7, 8, 0xffff].map((event) => message(1, event, 1)),
  ),
  sends('control messages that are too short', ...[1, 4, 7].map((length) => Buffer.alloc(length))),
  sends('a control message of 64 KiB', Buffer.concat([message(1, 3, 1), Buffer.alloc(65528)])),
  sends('the driver gives up', message(0, 0, 0), message(0, 0, 0xffff)),
  sends('a port is opened without having been added', message(1, 6, 1), message(2, 6, 1)),
  sends(
    'a port is opened and closed again and again',
    ...Array.from({ length: 40 }, (_, i) => message(2, 6, i % 2)),
  ),
  sends(
    'the device is made ready again and again, with ports open',
    ...Array.from({ length: 20 }, () => [message(0, 0, 1), message(1, 3, 1), message(1, 6, 1)]).flat(),
  ),
  {
    name: 'ten thousand messages, and no buffer for the answers',
    verdict: served,
    start: MULTIPORT,
    async attack(driver) {
      const ring = driver.ring(CONTROL_OUT);
      ring.describe(0, { address: driver.buffer(message(0, 0, 1)), length: 8 });
      for (let i = 0; i < 16; i++) ring.put(0);
      await driver.run(
        ...Array.from({ length: 625 }, (_, i) => [
          ...driver.offer(CONTROL_OUT, (16 * (i + 1)) & 0xffff),
          driver.returned(CONTROL_OUT, 16 * (i + 1)),
        ]).flat(),
      );
      assert.equal(driver.ring(CONTROL_IN).usedIndex, 0);
    },
  },
  {
    name: 'buffers too small for the answers come back empty, and later ones are filled',
    verdict: served,
    start: MULTIPORT,
    async attack(driver) {
      const ring = driver.ring(CONTROL_IN);
      const lengths = [0, 1, 7, 8, 64];
      lengths.forEach((length, i) => {
        ring.chain(i, [{ address: driver.buffer(64), length, flags: WRITE }]);
        ring.put(i);
      });
      driver.prepare(CONTROL_OUT, [message(0, 0, 1)], []);
      await driver.run(
        ...driver.offer(CONTROL_IN),
        ...driver.offer(CONTROL_OUT),
        driver.returned(CONTROL_IN),
      );
      const answers = lengths.map((_, n) => ring.usedEntry(n).length);
      assert.deepEqual(answers.slice(1), [0, 0, 8, 8], `${answers}`);
    },
  },
  {
    name: 'output to a port that was never opened, and input from one',
    verdict: served,
    start: MULTIPORT,
    async attack(driver) {
      driver.prepare(7, [Buffer.from('unopened')], []);
      driver.prepare(6, [], [64]);
      await driver.rig.run([...driver.offer(7), ...driver.offer(6)]);
      await bench.probe([bench.driver('rng')]);
    },
  },
  {
    name: 'the queues of ports without MULTIPORT',
    verdict: served,
    async attack(driver) {
      for (let queue = 2; queue < 8; queue++) driver.prepare(queue, [Buffer.alloc(8)], []);
      await driver.rig.run(driver.rings.flatMap(({ index }) => driver.offer(index)));
      await serves(driver);
    },
  },
];

attack(bench, 'balloon', balloon);
attack(bench, 'ports', ports);
bench.end();
