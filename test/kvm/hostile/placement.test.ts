/** Rings of wrong sizes, at wrong places, moved, shrunk and overlapping (virtio 1.2, 2.6, 2.7), against every device. */
import { strict as assert } from 'node:assert';
import { VIRTIO_MMIO_ADDRESS } from '../../../src/memory/layout.js';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import { type Driver, FEATURES_OK, LIVE, type RingPlace, reg } from '../../support/hostile-guest/driver.js';
import { type Operation, write } from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { HIGH_RAM, NEXT_RAM, RAM } from '../../support/hostile-guest/rig.js';

const bench = await fullBench();

const SIZE = 16;
const wrongSize = /queue size is not a power of two within the device's limit/;
const unaligned = /ring is not aligned/;
const outside = /ring is not inside RAM/;
const GAP = 0x8000_0000;
const REGISTERS = VIRTIO_MMIO_ADDRESS;

/** The device is started with queue 0 like that. */
const placed = (
  name: string,
  verdict: Case['verdict'],
  place: (driver: Driver) => Partial<RingPlace>,
): Case => ({
  name,
  verdict,
  start: null,
  async attack(driver) {
    await driver.start({ rings: { 0: place(driver) } });
  },
});

const at = (
  name: string,
  ring: 'descriptors' | 'available' | 'used',
  address: number,
  verdict: RegExp,
): Case => placed(`the ${ring} ${name}`, verdict, () => ({ [ring]: address }));

/** Sizes and addresses as numbers that the registers' 32 bits would hold. */
const rawSize = (size: number): Case => ({
  name: `a queue of 0x${size.toString(16)} descriptors`,
  verdict: wrongSize,
  start: null,
  async attack(driver) {
    await driver.start({}, FEATURES_OK);
    const place = { ...driver.ring(0).place, size };
    await driver.rig.run([...driver.setRing(0, place), driver.set(reg.status, LIVE)]);
  },
});

const lengths = { descriptors: SIZE * 16, available: 6 + SIZE * 2, used: 6 + SIZE * 8 } as const;
const alignments = { descriptors: [1, 8], available: [1], used: [1, 2] } as const;
const rings = ['descriptors', 'available', 'used'] as const;

const places = rings.flatMap((ring): Case[] => [
  ...alignments[ring].map((off) => at(`off by ${off}`, ring, RAM.size / 2 + off, unaligned)),
  at('in the gap', ring, GAP, outside),
  at('on a device’s registers', ring, REGISTERS, outside),
  at('on the local APIC', ring, 0xfee0_0000, outside),
  at('across two regions of RAM', ring, RAM.size - 16, outside),
  at('across the end of RAM', ring, NEXT_RAM.address + NEXT_RAM.size - 16, outside),
  at('just behind all RAM', ring, HIGH_RAM.address + HIGH_RAM.size, outside),
  at('beyond 2^52', ring, 2 ** 52, outside),
  at('wrapping 2^64', ring, 2 ** 64 - 2 ** 11, outside),
  placed(`the ${ring} one unit beyond the last place`, outside, () => {
    const unit = { descriptors: 16, available: 2, used: 4 }[ring];
    const last = Math.floor((HIGH_RAM.address + HIGH_RAM.size - lengths[ring]) / unit) * unit;
    return { [ring]: last + unit };
  }),
]);

/** Rings that are odd but inside RAM: the device must take them. */
const odd = (name: string, place: (driver: Driver) => Partial<RingPlace>): Case => ({
  name,
  verdict: served,
  start: null,
  async attack(driver) {
    // The vsock's, console's and fs's probes use other queues too; all are at their own places.
    assert.equal(await driver.start({ rings: { 0: place(driver) } }), LIVE);
    await serves(driver);
  },
});

const served0: readonly Case[] = [
  odd('the rings at the very end of RAM', () => {
    const end = HIGH_RAM.address + HIGH_RAM.size;
    const used = Math.floor((end - lengths.used) / 4) * 4;
    const available = used - 64;
    return { used, available, descriptors: Math.floor((available - lengths.descriptors) / 16) * 16 };
  }),
  odd('the rings above 4 GiB', () => ({
    descriptors: HIGH_RAM.address,
    available: HIGH_RAM.address + 0x1000,
    used: HIGH_RAM.address + 0x2000,
  })),
  odd('the rings in three regions', () => ({
    descriptors: RAM.size - 256,
    available: NEXT_RAM.address,
    used: HIGH_RAM.address,
  })),
];

/** Rings that overlap one another: whatever comes of it, it ends. */
const overlapping: readonly Case[] = (
  [
    ['all three rings in one place', 0, 0, 0],
    ['the used ring on the available ring', 0, 0x1000, 0x1000],
    ['the used ring’s entries on the available index', 0, 0x1008, 0x1000],
    ['the available ring in the descriptor table', 0, 0x10, 0x2000],
    ['the used ring in the descriptor table', 0, 0x1000, 0x10],
    ['the available ring in the used ring’s entries', 0, 0x2004, 0x2000],
  ] as const
).map(([name, descriptors, available, used]) => ({
  name,
  // Any of: served on, or the ring breaks a rule by what the device itself has written.
  verdict: 'either',
  start: null,
  async attack(driver) {
    const base = 0x3c0_0000;
    const place = { descriptors: base + descriptors, available: base + available, used: base + used };
    driver.rig.memory.fill(base, 0x3000);
    const queue = driver.rings.length > 1 && driver.device.name !== 'fs' ? 1 : 0;
    await driver.start({ rings: { [queue]: place } });
    driver.rig.memory.fill(base, 0x3000);
    // Every word is a small number: heads, lengths, flags and indexes that make sense somehow.
    for (let word = 0; word < 64; word++) driver.rig.memory.writeU16(base + descriptors + 2 * word, word % 3);
    const offers = [1, 2, 3, 5, 8, 15].flatMap((index): Operation[] => [
      write(2, base + available + 2, index),
      driver.set(reg.queueNotify, queue),
    ]);
    await driver.rig.run(offers);
  },
}));

/** Queue registers after DRIVER_OK: frozen (CVE-2026-5747: the size changed after activation). */
const live = (name: string, change: (driver: Driver) => Operation[]): Case => ({
  name: `while the device is live, ${name}`,
  verdict: served,
  async attack(driver) {
    await serves(driver);
    await driver.rig.run(
      driver.rings.flatMap(({ index }) => [driver.set(reg.queueSelect, index), ...change(driver)]),
    );
    await serves(driver);
  },
});

const frozen: readonly Case[] = [
  live('the queues shrink', (driver) => [driver.set(reg.queueSize, 1)]),
  live('the queues grow', (driver) => [driver.set(reg.queueSize, 0x8000)]),
  live('the queues get size 0', (driver) => [driver.set(reg.queueSize, 0)]),
  live('the queues move', (driver) =>
    [reg.descriptorsLow, reg.availableLow, reg.usedLow].map((register) => driver.set(register, 0x3e0_0000)),
  ),
  live('the queues move out of RAM', (driver) =>
    [reg.descriptorsHigh, reg.availableHigh, reg.usedHigh].map((register) => driver.set(register, 0xffff)),
  ),
  live('the queues are made unready', (driver) => [driver.set(reg.queueReady, 0)]),
  live('the queues are made unready, moved and ready again', (driver) => [
    driver.set(reg.queueReady, 0),
    driver.set(reg.queueSize, 4),
    driver.set(reg.descriptorsLow, 0x3e0_0000),
    driver.set(reg.queueReady, 1),
  ]),
  live('the queues are reset, which was not negotiated', (driver) => [driver.set(reg.queueReset, 1)]),
];

const ready: readonly Case[] = [
  {
    name: 'a queue that is ready is not changed before DRIVER_OK either',
    verdict: served,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      await driver.rig.run([
        ...driver.rings.flatMap((ring) => [
          ...driver.setRing(ring.index, ring.place),
          driver.set(reg.queueSize, 3),
          driver.set(reg.descriptorsHigh, 0xffff_ffff),
        ]),
        driver.set(reg.status, LIVE),
      ]);
      assert.equal(await driver.status(), LIVE);
      await serves(driver);
    },
  },
  {
    name: 'a queue that is ready without having been set up',
    verdict: wrongSize,
    start: null,
    async attack(driver) {
      await driver.start({}, FEATURES_OK);
      await driver.rig.run([driver.set(reg.queueReady, 1), driver.set(reg.status, LIVE)]);
    },
  },
];

const sizes = [0, 3, 5, 12, 0x401, 0x800, 0x8000, 0xffff, 0x1_0000, 0x1_0010, 0xffff_ffff].map(rawSize);
for (const { device } of bench.drivers) {
  if (device.name === 'read-only') continue;
  attack(bench, device.name, [...sizes, ...places, ...served0, ...overlapping, ...frozen, ...ready]);
}
bench.end();
