/** Rings and descriptor chains that break each rule of virtio 1.2, 2.7, against every device that takes buffers. */

import { VIRTIO_MMIO_ADDRESS } from '../../../src/memory/layout.js';
import { FEATURE_INDIRECT } from '../../../src/virtio/queue.js';
import { attack, type Case, served, type Verdict } from '../../support/hostile-guest/cases.js';
import type { Driver } from '../../support/hostile-guest/driver.js';
import {
  DEFAULT_FEATURES,
  INDIRECT,
  NEXT,
  type Ring,
  WRITE,
  writeDescriptor,
} from '../../support/hostile-guest/driver.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { HIGH_RAM, NEXT_RAM, RAM } from '../../support/hostile-guest/rig.js';

const bench = await fullBench();

const READABLE = 0;
const notInRam = /a descriptor's buffer is not inside RAM/;
const aheadOf = /available index is more than the queue's size ahead/;
const outside = /successor is outside its table/;
const loop = /chain has a loop/;
const order = /readable descriptor follows a writable one/;
const table = /indirect table is outside RAM, of a wrong length, or has a successor/;

/** How a defect is made: in the ring, whose memory is the driver's; returns the available index to claim. */
type Make = (ring: Ring, driver: Driver) => number;

/** One chain at entry 0 of these descriptors. */
const chain =
  (...descriptors: Parameters<Ring['chain']>[1]): Make =>
  (ring) => {
    ring.chain(0, descriptors);
    return ring.put(0);
  };

/** One descriptor that leads to an indirect table of these. */
const indirect =
  (
    entries: readonly { address?: number | bigint; length?: number; flags?: number; next?: number }[],
    more: { address?: number | bigint; length?: number; flags?: number; next?: number } = {},
  ): Make =>
  (ring, driver) => {
    const at = driver.buffer(Math.max(1, entries.length) * 16);
    const data = driver.buffer(64);
    entries.forEach((entry, i) => {
      writeDescriptor(driver.rig, at + 16 * i, { address: data, length: 8, ...entry });
    });
    const length = more.length ?? entries.length * 16;
    ring.describe(0, { address: at, flags: INDIRECT, ...more, length });
    return ring.put(0);
  };

const anywhere = 0x3f0_0000; // RAM that nobody uses

/** Each defect, how it is made, and what comes of it: the same for every device. */
const defects: readonly (readonly [name: string, make: Make, verdict: Verdict])[] = [
  // The available ring.
  ['the available index is the size + 1 ahead', (ring) => ring.place.size + 1, aheadOf],
  ['the available index is half the space ahead', () => 0x8000, aheadOf],
  ['the available index goes backwards', () => 0xffff, aheadOf],
  [
    'a head is the queue’s size',
    (ring) => ring.put(ring.place.size),
    /available entry is not below the queue's size/,
  ],
  ['a head is 65535', (ring) => ring.put(0xffff), /available entry is not below/],
  [
    'a good chain, then a head out of range',
    (ring) => {
      ring.chain(0, [{ address: anywhere, length: 0 }]);
      return ring.put(0, 0x7fff);
    },
    /available entry is not below/,
  ],
  // The chain.
  [
    'a successor is the queue’s size',
    chain({ address: anywhere, length: 8, flags: NEXT, next: 16 }),
    outside,
  ],
  ['a successor is 65535', chain({ address: anywhere, length: 8, flags: NEXT, next: 0xffff }), outside],
  ['a descriptor leads to itself', chain({ address: anywhere, length: 8, flags: NEXT, next: 0 }), loop],
  [
    'two descriptors lead to each other',
    chain({ address: anywhere, length: 8 }, { address: anywhere, length: 8, flags: NEXT, next: 0 }),
    loop,
  ],
  [
    'zero-length descriptors in a loop (CVE-2023-5158)',
    chain({ address: anywhere, length: 0 }, { address: anywhere, length: 0, flags: NEXT, next: 0 }),
    loop,
  ],
  [
    'a loop that begins behind the head',
    chain(
      { address: anywhere, length: 8 },
      { address: anywhere, length: 8 },
      { address: anywhere, length: 8, flags: NEXT, next: 1 },
    ),
    loop,
  ],
  [
    'a readable descriptor behind a writable one',
    chain({ address: anywhere, length: 8, flags: WRITE }, { address: anywhere, length: 8 }),
    order,
  ],
  [
    'an empty readable one hides a readable behind a writable',
    chain(
      { address: anywhere, length: 8, flags: WRITE },
      { address: anywhere, length: 0 },
      { address: anywhere, length: 8 },
    ),
    order,
  ],
  // Buffers.
  ['a buffer in the gap', chain({ address: 0x8000_0000, length: 16 }), notInRam],
  ['a writable buffer in the gap', chain({ address: 0x8000_0000, length: 16, flags: WRITE }), notInRam],
  ['a buffer just behind RAM', chain({ address: NEXT_RAM.address + NEXT_RAM.size, length: 1 }), notInRam],
  ['a buffer behind all RAM', chain({ address: HIGH_RAM.address + HIGH_RAM.size, length: 1 }), notInRam],
  [
    'a buffer whose last byte is outside',
    chain({ address: HIGH_RAM.address + HIGH_RAM.size - 8, length: 9, flags: WRITE }),
    notInRam,
  ],
  ['a buffer across two regions of RAM', chain({ address: RAM.size - 8, length: 16 }), notInRam],
  ['a buffer that wraps 2^64', chain({ address: 0xffff_ffff_ffff_fff0n, length: 32 }), notInRam],
  [
    'a buffer that ends at 2^64',
    chain({ address: 0xffff_ffff_ffff_fff0n, length: 16, flags: WRITE }),
    notInRam,
  ],
  ['a buffer at 2^63', chain({ address: 0x8000_0000_0000_0000n, length: 16 }), notInRam],
  ['a buffer of 4 GiB - 1', chain({ address: 0, length: 0xffff_ffff }), notInRam],
  [
    'a buffer on a device’s registers (CVE-2021-3748, 2024-3446: DMA re-entrancy)',
    chain({ address: VIRTIO_MMIO_ADDRESS + 0x50, length: 4, flags: WRITE }),
    notInRam,
  ],
  ['a buffer on the local APIC', chain({ address: 0xfee0_0000, length: 4096, flags: WRITE }), notInRam],
  // Indirect tables.
  ['an indirect table in the gap', indirect([], { address: 0x9000_0000, length: 16 }), table],
  ['an indirect table that wraps 2^64', indirect([], { address: 0xffff_ffff_ffff_fff0n, length: 32 }), table],
  ['an indirect table across two regions', indirect([], { address: RAM.size - 16, length: 32 }), table],
  [
    'an indirect table on a device’s registers',
    indirect([], { address: VIRTIO_MMIO_ADDRESS, length: 512 }),
    table,
  ],
  ['an empty indirect table', indirect([{}], { length: 0 }), table],
  ['an indirect table of 15 bytes', indirect([{}], { length: 15 }), table],
  ['an indirect table of 17 bytes', indirect([{}, {}], { length: 17 }), table],
  ['an indirect table of 2 MiB', indirect([{}], { address: 0, length: 2 << 20 }), table],
  ['an indirect table of 4 GiB - 16', indirect([{}], { address: 0, length: 0xffff_fff0 }), table],
  ['an indirect table with a successor', indirect([{}], { flags: INDIRECT | NEXT, next: 1 }), table],
  ['an indirect table in an indirect table', indirect([{ flags: INDIRECT, length: 16 }]), /nested/],
  ['a successor outside its indirect table', indirect([{ flags: NEXT, next: 1 }]), outside],
  [
    'a loop in an indirect table',
    indirect([
      { flags: NEXT, next: 1 },
      { flags: NEXT, next: 0 },
    ]),
    loop,
  ],
  ['a buffer of an indirect table in the gap', indirect([{ address: 0x8000_0000 }]), notInRam],
  ['an indirect table, readable behind writable', indirect([{ flags: WRITE | NEXT, next: 1 }, {}]), order],
];

/** More than 4 GiB in one chain: 65 times 64 MiB less a page. */
const tooLarge: Make = (ring, driver) => {
  const count = 65;
  const at = driver.buffer(count * 16);
  for (let i = 0; i < count; i++) {
    const last = i === count - 1;
    writeDescriptor(driver.rig, at + 16 * i, {
      address: 0,
      length: RAM.size,
      flags: READABLE | (last ? 0 : NEXT),
      next: i + 1,
    });
  }
  ring.describe(0, { address: at, length: count * 16, flags: INDIRECT });
  return ring.put(0);
};

function cases(queue: number, features: bigint): Case[] {
  const all = [...defects, ['a chain of more than 4 GiB', tooLarge, /more than 4 GiB/] as const];
  return [
    ...all.map(
      ([name, make, verdict]): Case => ({
        name: `queue ${queue}: ${name}`,
        verdict,
        async attack(driver) {
          const index = make(driver.ring(queue), driver);
          await driver.rig.run(driver.offer(queue, index));
        },
      }),
    ),
    {
      name: `queue ${queue}: an indirect descriptor that was not negotiated`,
      verdict: /not negotiated/,
      start: { features: features & ~FEATURE_INDIRECT },
      async attack(driver) {
        indirect([{}])(driver.ring(queue), driver);
        await driver.rig.run(driver.offer(queue));
      },
    },
    {
      name: `queue ${queue}: every descriptor is empty and in one chain (zero lengths make progress)`,
      verdict: served,
      async attack(driver) {
        const ring = driver.ring(queue);
        ring.chain(
          0,
          Array.from({ length: ring.place.size }, () => ({ address: 0xffff_ffff_ffffn, length: 0 })),
        );
        ring.put(0);
        await driver.run(...driver.offer(queue), driver.returned(queue));
      },
    },
    {
      name: `queue ${queue}: flags beyond those that there are`,
      verdict: served,
      async attack(driver) {
        driver.ring(queue).chain(0, [{ address: anywhere, length: 0, flags: 0xfff8 }]);
        driver.ring(queue).put(0);
        await driver.run(...driver.offer(queue), driver.returned(queue));
      },
    },
  ];
}

/** Which queues take whatever comes as soon as they are notified. */
const targets: readonly (readonly [device: string, queue: number, features?: bigint])[] = [
  ['blk', 0],
  ['fs', 0],
  ['fs', 1],
  ['vsock', 1],
  ['console', 1],
  ['rng', 0],
  ['balloon', 0],
  ['balloon', 1],
  ['balloon', 4, DEFAULT_FEATURES | (1n << 5n)], // reports
  ['ports', 1],
  ['ports', 3, DEFAULT_FEATURES | 2n], // control messages
  ['ports', 5, DEFAULT_FEATURES | 2n],
  ['net', 1],
  ['net', 2, DEFAULT_FEATURES | (1n << 17n)], // commands
  ['script', 0],
];
for (const [device, queue, features = DEFAULT_FEATURES] of targets) {
  attack(
    bench,
    device,
    cases(queue, features).map((each): Case => ({ start: { features }, ...each })),
  );
}
bench.end();
