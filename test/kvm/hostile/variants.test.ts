/** Devices with other options: a share whose locks are the host's, a disk with several queues. */
import { strict as assert } from 'node:assert';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import {
  DEFAULT_FEATURES,
  type Driver,
  NEEDS_RESET,
  reg,
  WRITE,
} from '../../support/hostile-guest/driver.js';
import { fuse, fuseRequest, longs, words } from '../../support/hostile-guest/fuse.js';
import {
  call,
  expects,
  HIGH_PRIORITY,
  init,
  inSession,
  lookup,
  OUT_HEADER,
  open,
  REQUESTS,
} from '../../support/hostile-guest/fuse-session.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { blkHeader, sector } from '../../support/hostile-guest/probes.js';

const bench = await fullBench({ fs: { locks: 'host' }, blk: { queues: 4 } });

const EAGAIN = -11;
const EBADF = -9;
const EINVAL = -22;
const READ_LOCK = 0;
const WRITE_LOCK = 1;
const UNLOCK = 2;
const END = 0x7fff_ffff_ffff_ffffn;

const lock = (
  handle: bigint,
  owner: number,
  kind: number,
  start: bigint | number = 0,
  end: bigint | number = END,
): Buffer => Buffer.concat([longs(handle, owner, start, end), words(kind, 0, 0, 0)]);

/** Puts a request that waits into entry `first` and on; it does not come back yet. */
function waits(driver: Driver, node: bigint, body: Buffer, unique: bigint, first: number): void {
  const request = fuseRequest(fuse.SETLKW, node, body, { unique });
  driver.ring(REQUESTS).chain(first, [
    { address: driver.buffer(request), length: request.length },
    { address: driver.buffer(OUT_HEADER), length: OUT_HEADER, flags: WRITE },
  ]);
  driver.ring(REQUESTS).put(first);
}

/** A file that owner 1 has locked, and `count` requests of other owners that wait for it. */
async function queueUp(driver: Driver, count: number): Promise<{ node: bigint; handle: bigint }> {
  const node = await lookup(driver, 'file');
  const handle = await open(driver, node);
  await expects(0, call(driver, fuse.SETLK, node, lock(handle, 1, WRITE_LOCK)));
  for (let i = 0; i < count; i++)
    waits(driver, node, lock(handle, 2 + i, WRITE_LOCK), 100n + BigInt(i), 2 + 2 * i);
  await driver.rig.run(driver.offer(REQUESTS));
  await bench.probe([bench.driver('rng')]);
  return { node, handle };
}

const locks: readonly Case[] = [
  inSession('a lock of a kind, a range or a handle that there is not', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node);
    for (const kind of [3, 77, 0xffff_ffff])
      await expects(EINVAL, call(driver, fuse.SETLK, node, lock(handle, 1, kind)));
    for (const [start, end] of [
      [1n, 0n],
      [1n << 63n, (1n << 63n) + 1n],
      [0n, 0xffff_ffff_ffff_ffffn],
    ] as const) {
      await expects(EINVAL, call(driver, fuse.SETLK, node, lock(handle, 1, WRITE_LOCK, start, end)));
      await expects(EINVAL, call(driver, fuse.GETLK, node, lock(handle, 1, WRITE_LOCK, start, end)));
    }
    await expects(EBADF, call(driver, fuse.SETLKW, node, lock(99n, 1, WRITE_LOCK)));
    await expects(
      EAGAIN,
      (async () => {
        await expects(0, call(driver, fuse.SETLK, node, lock(handle, 1, WRITE_LOCK)));
        return await call(driver, fuse.SETLK, node, lock(handle, 2, READ_LOCK));
      })(),
    );
  }),
  inSession('requests that wait for a lock for ever, then a reset', async (driver) => {
    await queueUp(driver, 6);
    assert.equal(await driver.status(), 15);
  }),
  inSession('requests that wait, and INIT again: they come back', async (driver) => {
    await queueUp(driver, 4);
    await init(driver);
    await driver.run(driver.returned(REQUESTS));
  }),
  inSession('requests that wait, and DESTROY', async (driver) => {
    await queueUp(driver, 4);
    await call(driver, fuse.DESTROY, 0);
    await driver.run(driver.returned(REQUESTS));
  }),
  inSession('requests that wait, the lock is given back', async (driver) => {
    const { node, handle } = await queueUp(driver, 1);
    await expects(0, call(driver, fuse.SETLK, node, lock(handle, 1, UNLOCK)));
    await driver.run(driver.returned(REQUESTS));
  }),
  inSession('requests that wait are interrupted by numbers right and wrong', async (driver) => {
    await queueUp(driver, 3);
    for (const unique of [0n, 99n, 100n, 100n, 102n, 0xffff_ffff_ffff_ffffn]) {
      await driver.request(HIGH_PRIORITY, [fuseRequest(fuse.INTERRUPT, 0, longs(unique))], [OUT_HEADER]);
    }
  }),
  inSession('requests that wait, and the file is released and forgotten', async (driver) => {
    const { node, handle } = await queueUp(driver, 3);
    const release = fuseRequest(fuse.RELEASE, node, Buffer.concat([longs(handle), words(0, 0), longs(0)]));
    driver.prepare(REQUESTS, [release], [OUT_HEADER], 0);
    driver.prepare(REQUESTS, [fuseRequest(fuse.FORGET, node, longs(100))], [], 12);
    await driver.run(...driver.offer(REQUESTS), driver.returned(REQUESTS));
  }),
  inSession('one request twice: the same chain waits for two locks', async (driver) => {
    await queueUp(driver, 1);
    driver.ring(REQUESTS).put(2, 2, 2);
    await driver.rig.run(driver.offer(REQUESTS));
    await bench.probe([bench.driver('rng')]);
  }),
  {
    name: 'the ring breaks while requests wait',
    verdict: /more than the queue's size ahead/,
    async attack(driver) {
      await init(driver);
      await queueUp(driver, 4);
      await driver.rig.run(driver.offer(REQUESTS, 0x5000));
    },
  },
  inSession('locks of two hundred owners', async (driver) => {
    const node = await lookup(driver, 'file');
    const handle = await open(driver, node);
    const request = fuseRequest(fuse.SETLK, node, lock(handle, 1, READ_LOCK));
    const at = driver.buffer(request);
    driver.ring(REQUESTS).chain(0, [
      { address: at, length: request.length },
      { address: driver.buffer(OUT_HEADER), length: OUT_HEADER, flags: WRITE },
    ]);
    for (let owner = 0; owner < 200; owner++) {
      driver.rig.memory.writeU64(at + 48, BigInt(owner));
      driver.ring(REQUESTS).put(0);
      await driver.run(...driver.offer(REQUESTS), driver.returned(REQUESTS));
    }
  }),
];

const MQ = DEFAULT_FEATURES | (1n << 12n);
const queues = [0, 1, 2, 3];

const several: readonly Case[] = [
  {
    name: 'all queues write one sector, from one buffer, with one status',
    verdict: served,
    start: { features: MQ },
    async attack(driver) {
      const header = driver.buffer(blkHeader(1, 7));
      const data = driver.buffer(sector(7));
      const status = driver.buffer(1);
      for (const queue of queues) {
        driver.ring(queue).chain(0, [
          { address: header, length: 16 },
          { address: data, length: 512 },
          { address: status, length: 1, flags: WRITE },
        ]);
        driver.ring(queue).put(0, 0, 0, 0);
      }
      await driver.run(
        ...queues.flatMap((queue) => driver.offer(queue)),
        ...queues.map((queue) => driver.returned(queue)),
      );
      assert.equal(driver.rig.memory.readU8(status), 0);
    },
  },
  {
    name: 'one queue breaks while the others have requests on their way',
    verdict: /available entry is not below/,
    start: { features: MQ },
    async attack(driver) {
      for (const queue of [0, 1, 3]) {
        for (let n = 0; n < 4; n++) driver.prepare(queue, [blkHeader(1, 7), sector(7)], [1], 3 * n);
      }
      driver.ring(2).put(0xffff);
      await driver.rig.run(queues.flatMap((queue) => driver.offer(queue)));
    },
  },
  {
    name: 'the queues share their rings',
    verdict: 'either',
    start: null,
    async attack(driver) {
      const base = 0x3c0_0000;
      driver.rig.memory.fill(base, 0x3000);
      const place = { descriptors: base, available: base + 0x1000, used: base + 0x2000 };
      await driver.start({ features: MQ, rings: { 0: place, 1: place, 2: place, 3: place } });
      for (let n = 0; n < 5; n++) driver.prepare(0, [blkHeader(1, 7), sector(7)], [1], 3 * n);
      await driver.rig.run([
        ...driver.offer(0),
        ...queues.map((queue) => driver.set(reg.queueNotify, queue)),
      ]);
      await bench.probe([bench.driver('rng')]);
    },
  },
  {
    name: 'a reset with all queues full, again and again',
    verdict: served,
    start: null,
    async attack(driver) {
      for (let i = 0; i < 10; i++) {
        // Without FLUSH each write waits for the disk.
        await driver.start({ features: MQ });
        for (const queue of queues) {
          for (let n = 0; n < 5; n++) driver.prepare(queue, [blkHeader(1, 7), sector(7)], [1], 3 * n);
        }
        await driver.rig.run([...queues.flatMap((queue) => driver.offer(queue)), ...driver.reset()]);
      }
      assert.equal((await driver.status()) & NEEDS_RESET, 0);
    },
  },
];

attack(bench, 'fs', locks);
attack(bench, 'blk', several);
bench.end();
