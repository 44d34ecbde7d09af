/** Rings and requests that a second processor rewrites while the device uses them. */
import { strict as assert } from 'node:assert';
import t from 'tap';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import {
  DEFAULT_FEATURES,
  type Driver,
  INDIRECT,
  LIVE,
  NEEDS_RESET,
  NEXT,
  reg,
  WRITE,
  writeDescriptor,
} from '../../support/hostile-guest/driver.js';
import { fuse, fuseInit, fuseRequest } from '../../support/hostile-guest/fuse.js';
import {
  add,
  copy,
  match,
  type Operation,
  repeat,
  until,
  write,
} from '../../support/hostile-guest/interpreter.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { blkHeader } from '../../support/hostile-guest/probes.js';
import { VSOCK, vsockPacket } from '../../support/hostile-guest/vsock.js';

let turns = 0;
let serves = 0;
let mostWithoutTurn = 0;
const turn = (): void => {
  turns++;
  mostWithoutTurn = Math.max(mostWithoutTurn, serves);
  serves = 0;
};

const bench = await fullBench({
  cpus: 2,
  script: {
    name: 'script',
    deviceId: 42,
    queueSizes: [64],
    serve(chain) {
      if (serves++ === 0) setImmediate(turn);
      chain.write(chain.read(Math.min(chain.readableSize, 1 << 16)));
    },
  },
});

/** How often the driver asks for BATCH requests and waits for them. */
const BATCHES = 8;
const BATCH = 6;
/** One word of the guest's that says that the first processor has done its part. */
const FLAG = 0x3d0_0000;

/** What the driver asks again and again, in one chain at entry 0. */
interface Honest {
  readonly queue: number;
  readonly readable: Uint8Array;
  readonly writable: number;
  readonly features?: bigint;
}

const honest: Readonly<Record<string, Honest>> = {
  blk: { queue: 0, readable: blkHeader(0, 1), writable: 513 },
  fs: { queue: 1, readable: fuseRequest(fuse.GETATTR, 1, Buffer.alloc(16)), writable: 120 },
  vsock: {
    queue: VSOCK.transmit,
    readable: vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 }),
    writable: 0,
  },
  console: { queue: 1, readable: Buffer.from('raced\n'), writable: 0 },
  rng: { queue: 0, readable: Buffer.alloc(0), writable: 64 },
  script: { queue: 0, readable: Buffer.from('ping'), writable: 64 },
  net: { queue: 1, readable: Buffer.alloc(72), writable: 0 },
  // Out of the balloon: into it would go the interpreter itself.
  balloon: { queue: 1, readable: Buffer.alloc(4), writable: 0 },
  ports: {
    queue: 3,
    readable: Buffer.from([1, 0, 0, 0, 3, 0, 1, 0]),
    writable: 0,
    features: DEFAULT_FEATURES | 2n,
  },
};

/** Where everything of the request lies. */
interface Place {
  readonly driver: Driver;
  readonly table: number;
  readonly available: number;
  readonly used: number;
  readonly request: number;
  readonly answer: number;
  readonly inner: number;
}

/** What the second processor writes, again and again. */
type Mischief = (place: Place) => Operation[];

const each = (
  width: 1 | 2 | 4 | 8,
  at: (place: Place) => number,
  ...values: (number | bigint)[]
): Mischief => {
  return (place) => values.map((value) => write(width, at(place), value));
};

const mischiefs: readonly (readonly [string, Mischief])[] = [
  [
    'a buffer’s address, in RAM and not',
    (p) => [write(8, p.table, 0x8000_0000), write(8, p.table, p.request)],
  ],
  [
    'a buffer’s address, to the end of the address space',
    (p) => [write(8, p.table, -16n), write(8, p.table, p.request)],
  ],
  ['a buffer’s length, from 1 to 4 GiB', each(4, (p) => p.table + 8, 1, 0xffff_ffff, 16, 0)],
  [
    'a descriptor’s flags: every kind',
    each(2, (p) => p.table + 12, 0, NEXT, WRITE, NEXT | WRITE, INDIRECT, 7, 1),
  ],
  ['a descriptor’s successor', each(2, (p) => p.table + 14, 0, 1, 15, 16, 0xffff, 1)],
  [
    'the second descriptor',
    (p) => [
      write(8, p.table + 16, -1n),
      write(4, p.table + 24, 0x7fff_ffff),
      write(8, p.table + 16, p.answer),
      write(4, p.table + 24, 64),
    ],
  ],
  [
    'the heads in the available ring',
    (p) => [0, 1, 2, 3].flatMap((i) => each(2, () => p.available + 4 + 2 * i, 16, 0, 0xffff, 0)(p)),
  ],
  ['the available ring’s flags', each(2, (p) => p.available, 0, 1, 0xffff)],
  [
    'the used ring: flags, index, entries',
    (p) => [write(2, p.used, 0xffff), write(2, p.used + 2, 0x1234), write(8, p.used + 4, -1n)],
  ],
  [
    'the request itself, its first words',
    (p) => [
      write(4, p.request, 0xffff_ffff),
      write(4, p.request + 4, 8),
      write(4, p.request, 0),
      write(4, p.request + 4, 3),
      write(4, p.request, 56),
    ],
  ],
  [
    'the request itself, its later words',
    (p) => [
      write(8, p.request + 8, -1n),
      write(8, p.request + 24, -1n),
      write(8, p.request + 8, 1),
      write(8, p.request + 24, 2n),
    ],
  ],
  ['the answer', each(8, (p) => p.answer, -1n, 0)],
];

const indirectMischiefs: readonly (readonly [string, Mischief])[] = [
  ['an indirect table’s addresses', (p) => [write(8, p.inner, 0x9000_0000), write(8, p.inner, p.request)]],
  ['an indirect table’s lengths', each(4, (p) => p.inner + 8, 0xffff_ffff, 8, 0)],
  [
    'an indirect table’s flags and successors',
    each(4, (p) => p.inner + 12, 0x0000_0001, 0xffff_0001, 0x0001_0005, 0x0001_0001, 0),
  ],
  ['where the indirect table is', (p) => [write(8, p.table, 0x9000_0000), write(8, p.table, p.inner)]],
  ['how long the indirect table is', each(4, (p) => p.table + 8, 16, 0xffff_fff0, 0, 32)],
];

function lay(driver: Driver, { queue, readable, writable }: Honest, indirect: boolean): Place {
  const ring = driver.ring(queue);
  const request = driver.buffer(Buffer.concat([readable, Buffer.alloc(64)]));
  const answer = driver.buffer(1024);
  const inner = driver.buffer(64);
  const table = ring.place.descriptors;
  const at = indirect ? inner : table;
  writeDescriptor(driver.rig, at, {
    address: request,
    length: readable.length,
    flags: writable > 0 ? NEXT : 0,
    next: 1,
  });
  writeDescriptor(driver.rig, at + 16, { address: answer, length: writable, flags: WRITE });
  if (indirect) ring.describe(0, { address: inner, length: 32, flags: INDIRECT });
  return { driver, table, available: ring.place.available, used: ring.place.used, request, answer, inner };
}

/** Both processors at once: the first asks, the second changes what is asked. */
const race = (device: string, name: string, mischief: Mischief, indirect: boolean): Case => ({
  name: `another processor rewrites ${name}`,
  verdict: 'either',
  async attack(driver) {
    const request = honest[device];
    assert.ok(request);
    await driver.start({ features: request.features ?? DEFAULT_FEATURES });
    if (device === 'fs') await driver.request(request.queue, [fuseInit()], [80]);
    const place = lay(driver, request, indirect);
    const broken = { orAddress: driver.base + reg.status, orMask: NEEDS_RESET };
    driver.rig.memory.writeU32(FLAG, 0);
    const asks = Array.from({ length: BATCH }, () => [
      add(2, place.available + 2, 1),
      driver.set(reg.queueNotify, request.queue),
    ]).flat();
    // The used index is not to be waited for where the other processor writes it.
    const raced = name.startsWith('the used ring');
    const taken = raced ? driver.get(reg.status) : match(2, place.used + 2, place.available + 2, broken);
    await Promise.all([
      driver.rig.run([...repeat(BATCHES, [...asks, taken]), write(4, FLAG, 1)], 0),
      driver.rig.run(until(FLAG, mischief(place)), 1),
    ]);
  },
});

const devices = Object.keys(honest);
for (const device of devices) {
  attack(bench, device, [
    ...mischiefs.map(([name, mischief]) => race(device, name, mischief, false)),
    ...indirectMischiefs.map(([name, mischief]) => race(device, name, mischief, true)),
    {
      name: 'another processor resets it while it serves',
      verdict: 'either',
      async attack(driver) {
        const request = honest[device];
        assert.ok(request);
        const place = lay(driver, request, false);
        driver.rig.memory.writeU32(FLAG, 0);
        const asks = repeat(200, [
          add(2, place.available + 2, 1),
          driver.set(reg.queueNotify, request.queue),
        ]);
        const restarts = [driver.set(reg.status, 0), ...driver.steps(), write(2, place.available + 2, 0)];
        await Promise.all([
          driver.rig.run([...asks, write(4, FLAG, 1)], 0),
          driver.rig.run(until(FLAG, restarts), 1),
        ]);
        await driver.start();
      },
    },
    {
      name: 'a DRIVER_OK from another processor in the middle of a reset: reset it is',
      verdict: served,
      start: null,
      async attack(driver) {
        const request = honest[device];
        assert.ok(request);
        await driver.start({}, 0);
        const place = lay(driver, request, false);
        driver.rig.memory.writeU32(FLAG, 0);
        // Only after a reset is there something to serve, so nobody may.
        const round = [
          ...driver.steps().slice(0, -1),
          driver.set(reg.status, 0),
          write(2, place.available + 2, 1),
          driver.set(reg.queueNotify, request.queue),
          driver.get(reg.status),
          driver.get(reg.status),
          write(2, place.available + 2, 0),
        ];
        await Promise.all([
          driver.rig.run([...repeat(150, round), write(4, FLAG, 1)], 0),
          driver.rig.run(until(FLAG, [driver.set(reg.status, LIVE)]), 1),
        ]);
        await bench.probe([bench.driver(device === 'rng' ? 'blk' : 'rng')]);
        assert.equal(driver.rig.memory.readU16(place.used + 2), 0, 'nothing is served after a reset');
      },
    },
    {
      name: 'two processors notify and acknowledge as fast as they can',
      verdict: 'either',
      async attack(driver) {
        const request = honest[device];
        assert.ok(request);
        const place = lay(driver, request, false);
        driver.rig.memory.writeU32(FLAG, 0);
        const asks = repeat(200, [
          add(2, place.available + 2, 1),
          driver.set(reg.queueNotify, request.queue),
        ]);
        const storm = [driver.set(reg.queueNotify, request.queue), driver.set(reg.interruptAck, 3)];
        await Promise.all([
          driver.rig.run([...asks, write(4, FLAG, 1)], 0),
          driver.rig.run(until(FLAG, storm), 1),
        ]);
      },
    },
  ]);
}

attack(bench, 'script', [
  {
    name: 'a driver that offers faster than it is served does not keep JavaScript from all else',
    verdict: 'either',
    start: { rings: { 0: { size: 64 } } },
    async attack(driver) {
      const request = honest.script;
      assert.ok(request);
      const place = lay(driver, request, false);
      driver.rig.memory.writeU32(FLAG, 0);
      mostWithoutTurn = serves = 0;
      const before = turns;
      // The ring is kept full: what has come back is available again.
      const refill = [
        copy(place.used + 2, FLAG + 8, 2),
        add(2, FLAG + 8, 64),
        copy(FLAG + 8, place.available + 2, 2),
      ];
      const running = driver.rig.run(until(FLAG, refill), 1);
      await driver.rig.run(
        repeat(500, [driver.set(reg.queueNotify, 0), driver.get(reg.status), driver.get(reg.status)]),
      );
      driver.rig.memory.writeU32(FLAG, 1);
      await running;
      assert.ok(turns > before, 'it was served at all');
      assert.ok(mostWithoutTurn <= 4 * 64, `${mostWithoutTurn} buffers without a turn of the event loop`);
    },
  },
]);
t.test('the disk is as it was', async () => {
  await bench.driver('blk').start();
  await bench.probe([bench.driver('blk')]);
});
bench.end();
