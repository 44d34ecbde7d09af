/** Requests that break the rules of the block device (virtio 1.2, 5.2.6). */
import { strict as assert } from 'node:assert';
import { readFileSync, statSync } from 'node:fs';
import { FEATURE_VERSION_1 } from '../../../src/virtio/queue.js';
import { type Case, served } from './cases.js';
import { type Driver, type StartOptions, WRITE, writeDescriptor } from './driver.js';
import { type FullBench, SECTORS } from './machine.js';
import { blkHeader, sector } from './probes.js';
import { RAM } from './rig.js';

/** The cases against a writable disk, and those against a read-only one, of a bench. */
export function blkCases(bench: FullBench): {
  readonly blk: readonly Case[];
  readonly readOnly: readonly Case[];
} {
  const IN = 0;
  const OUT = 1;
  const FLUSH = 4;
  const GET_ID = 8;
  const DISCARD = 11;
  const SECURE_ERASE = 14;
  const WRITE_ZEROES = 13;
  const OK = 0;
  const IOERR = 1;
  const UNSUPP = 2;

  /** Sends a request; asserts its status, and returns its used length and what was written before the status. */
  async function send(
    driver: Driver,
    readable: readonly Uint8Array[],
    writable: readonly number[],
    status: number,
  ): Promise<{ length: number; bytes: Buffer }> {
    const answer = await driver.request(0, readable, writable);
    assert.equal(answer.bytes.at(-1), status, 'the status');
    assert.ok(answer.length >= 1 && answer.length <= answer.bytes.length, `used length ${answer.length}`);
    return { length: answer.length, bytes: answer.bytes.subarray(0, -1) };
  }

  const sends = (
    name: string,
    status: number,
    readable: readonly Uint8Array[],
    writable: readonly number[],
    start?: StartOptions,
  ): Case => ({
    name,
    verdict: served,
    ...(start === undefined ? {} : { start }),
    attack: (driver) => send(driver, readable, writable, status),
  });

  /** A segment of DISCARD and WRITE_ZEROES. */
  function segment(at: number | bigint, sectors: number, flags = 0): Buffer {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(at)), 0);
    bytes.writeUInt32LE(sectors, 8);
    bytes.writeUInt32LE(flags, 12);
    return bytes;
  }

  const content = Buffer.alloc(512, 'x');
  const split = (bytes: Buffer, ...lengths: number[]): Buffer[] => {
    let at = 0;
    return lengths.map((length) => {
      at += length;
      return bytes.subarray(at - length, at);
    });
  };

  /** The request's buffers come back without a status: there is no room for one. */
  const withoutStatus = (name: string, readable: readonly Uint8Array[]): Case => ({
    name,
    verdict: served,
    async attack(driver) {
      const { length } = await driver.request(0, readable, []);
      assert.equal(length, 0);
    },
  });

  const untouched = (): void => {
    const disk = readFileSync(bench.disk);
    for (let n = 0; n < SECTORS; n++) {
      assert.ok(disk.subarray(n * 512, (n + 1) * 512).equals(sector(n)), `sector ${n} is as it was`);
    }
    assert.equal(statSync(bench.disk).size, SECTORS * 512, 'the disk is as large as it was');
  };

  const header: readonly Case[] = [
    sends('no header at all', IOERR, [], [1]),
    ...[1, 4, 8, 15].map((length) =>
      sends(`a header of ${length} bytes`, IOERR, [blkHeader(IN, 0).subarray(0, length)], [512, 1]),
    ),
    sends(
      'a header in sixteen pieces',
      OK,
      split(blkHeader(IN, 0), ...new Array<number>(8).fill(2)),
      [512, 1],
    ),
    sends('a header that goes on into the data', OK, [Buffer.concat([blkHeader(OUT, 0), sector(0)])], [1]),
    sends(
      'a header and half of the data in one piece',
      OK,
      split(Buffer.concat([blkHeader(OUT, 0), sector(0)]), 100, 428),
      [1],
    ),
    withoutStatus('a read without a status', [blkHeader(IN, 0)]),
    withoutStatus('a write without a status', [blkHeader(OUT, 0), content]),
    withoutStatus('a flush without a status', [blkHeader(FLUSH, 0)]),
    withoutStatus('nothing at all', []),
    ...[2, 3, 5, 6, 7, 9, 10, 12, SECURE_ERASE, 15, 16, 0x100, 0x8000_0000, 0xffff_ffff].map((type) =>
      sends(`the request type 0x${type.toString(16)}`, UNSUPP, [blkHeader(type, 0), content], [512, 1]),
    ),
    sends(
      'a reserved field that is not zero',
      OK,
      [Buffer.from(blkHeader(IN, 0).fill(0xff, 4, 8))],
      [512, 1],
    ),
  ];

  const at = (name: string, where: number | bigint, sectors: number): Case[] => [
    sends(`a read ${name}`, IOERR, [blkHeader(IN, where)], [512 * sectors, 1]),
    sends(`a write ${name}`, IOERR, [blkHeader(OUT, where), Buffer.alloc(512 * sectors)], [1]),
  ];

  const transfers: readonly Case[] = [
    ...at('just behind the end', SECTORS, 1),
    ...at('across the end', SECTORS - 1, 2),
    ...at('at sector 2^32', 2 ** 32, 1),
    ...at('at sector 2^55, whose byte is 2^64', 2n ** 55n, 1),
    ...at('at sector 2^55 - 1', 2n ** 55n - 1n, 2),
    ...at('at sector 2^63', 2n ** 63n, 1),
    ...at('at the last sector that there can be', 2n ** 64n - 1n, 1),
    ...at('whose end wraps to sector 1', 2n ** 64n - 1n, 2),
    sends('a read of no sector', OK, [blkHeader(IN, 0)], [1]),
    sends('a write of no sector', OK, [blkHeader(OUT, 0)], [1]),
    sends('a read of no sector at the end', OK, [blkHeader(IN, SECTORS)], [1]),
    sends('a read of no sector behind the end', IOERR, [blkHeader(IN, SECTORS + 1)], [1]),
    ...[1, 511, 513].flatMap((length) => [
      sends(`a read of ${length} bytes`, IOERR, [blkHeader(IN, 0)], [length, 1]),
      sends(`a write of ${length} bytes`, IOERR, [blkHeader(OUT, 0), Buffer.alloc(length)], [1]),
    ]),
    sends('a read with data to write as well', OK, [blkHeader(IN, 0), content], [512, 1]),
    sends('a write with room to read as well', OK, [blkHeader(OUT, 0), sector(0)], [512, 1]),
    sends('a read in pieces of odd lengths', OK, [blkHeader(IN, 3)], [1, 510, 1, 1]),
    sends('a read whose status is in the data’s buffer', OK, [blkHeader(IN, 3)], [513]),
    {
      name: 'the used length is never more than was written (CVE-2024-8612)',
      verdict: served,
      async attack(driver) {
        const { length } = await send(driver, [blkHeader(IN, SECTORS)], [4096, 1], IOERR);
        assert.equal(length, 1, 'the status alone');
        const { bytes } = await send(driver, [blkHeader(0x77, 0)], [512, 1], UNSUPP);
        assert.ok(bytes.equals(Buffer.alloc(512, 0xee)), 'nothing of the host is in the buffer');
      },
    },
    {
      name: 'a flush with data both ways',
      verdict: served,
      attack: (driver) => send(driver, [blkHeader(FLUSH, 2n ** 63n), content], [512, 1], OK),
    },
    {
      name: 'an identity with less room than it needs',
      verdict: served,
      async attack(driver) {
        for (const room of [0, 1, 19])
          await send(driver, [blkHeader(GET_ID, 0)], [...(room ? [room] : []), 1], IOERR);
        const { bytes } = await send(driver, [blkHeader(GET_ID, 0)], [20, 1], OK);
        assert.equal(bytes.toString('latin1').replace(/\0+$/, ''), 'hostile');
      },
    },
    {
      name: 'a qcow2 header in sector 0 makes no other format of the disk (CVE-2026-27211)',
      verdict: served,
      async attack(driver) {
        const qcow = Buffer.alloc(512);
        qcow.write('QFI\xfb', 'latin1');
        qcow.writeUInt32BE(3, 4);
        await send(driver, [blkHeader(OUT, 0), qcow], [1], OK);
        await driver.start();
        const { bytes } = await send(driver, [blkHeader(IN, 0)], [512, 1], OK);
        assert.ok(bytes.equals(qcow), 'it is read as it was written');
        await send(driver, [blkHeader(OUT, 0), sector(0)], [1], OK);
      },
    },
    {
      name: 'the disk is what it was after all that was refused',
      verdict: served,
      async attack() {
        untouched();
      },
    },
  ];

  const ranges = [DISCARD, WRITE_ZEROES].flatMap((type): Case[] => {
    const what = type === DISCARD ? 'discard' : 'write-zeroes';
    const range = (name: string, status: number, ...data: Uint8Array[]): Case =>
      sends(`${what}: ${name}`, status, [blkHeader(type, 0), ...data], [1]);
    return [
      range('no segment', IOERR),
      ...[1, 8, 15, 17, 31].map((length) =>
        range(`${length} bytes of segments`, IOERR, Buffer.alloc(length)),
      ),
      range('17 segments', IOERR, Buffer.alloc(16 * 17)),
      range('65 KiB of segments', IOERR, Buffer.alloc(16 * 4160)),
      range('a segment behind the end', IOERR, segment(SECTORS, 1)),
      range('a segment across the end', IOERR, segment(SECTORS - 1, 2)),
      range('a segment that wraps', IOERR, segment(2n ** 64n - 1n, 2)),
      range('a segment at byte 2^64', IOERR, segment(2n ** 55n, 1)),
      range('a segment of 2^32 - 1 sectors', IOERR, segment(0, 0xffff_ffff)),
      range('flags that there are not', UNSUPP, segment(0, 1, 2)),
      range('all flags', UNSUPP, segment(0, 1, 0xffff_ffff)),
      range('an empty segment', OK, segment(0, 0)),
      range('an empty segment behind the end', IOERR, segment(SECTORS + 1, 0)),
      range(
        'a good segment, then one behind the end: nothing is done',
        IOERR,
        segment(0, 1),
        segment(SECTORS, 1),
      ),
      sends(`${what}: not negotiated`, UNSUPP, [blkHeader(type, 0), segment(0, 1)], [1], {
        features: FEATURE_VERSION_1,
      }),
    ];
  });
  const DISCARD_FEATURES = FEATURE_VERSION_1 | (1n << 13n) | (1n << 14n) | (1n << 9n);

  const readOnly: readonly Case[] = [
    sends('a write to a read-only disk', IOERR, [blkHeader(OUT, 0), content], [1]),
    sends('an empty write to a read-only disk', IOERR, [blkHeader(OUT, 0)], [1]),
    sends('a discard on a read-only disk', UNSUPP, [blkHeader(DISCARD, 0), segment(0, 1)], [1]),
    sends('a write-zeroes on a read-only disk', UNSUPP, [blkHeader(WRITE_ZEROES, 0), segment(0, 1)], [1]),
    sends('a flush of a read-only disk', OK, [blkHeader(FLUSH, 0)], [1]),
  ];

  const rings: readonly Case[] = [
    {
      name: 'the same head twice (CVE-2026-45782), both on their way to the disk',
      verdict: served,
      start: { features: FEATURE_VERSION_1 },
      async attack(driver) {
        // Without FLUSH a write is durable, so it waits for the disk.
        driver.prepare(0, [blkHeader(OUT, 9), sector(9)], [1]);
        driver.ring(0).put(0, 0, 0);
        await driver.run(...driver.offer(0), driver.returned(0, 4));
        for (let n = 0; n < 4; n++) assert.equal(driver.ring(0).usedEntry(n).head, 0);
      },
    },
    {
      name: 'more chains at once than there are descriptors',
      verdict: 'either',
      start: { features: FEATURE_VERSION_1 },
      async attack(driver) {
        driver.prepare(0, [blkHeader(OUT, 9), sector(9)], [1]);
        driver.ring(0).put(...new Array<number>(15).fill(0));
        await driver.rig.run(driver.offer(0));
        driver.ring(0).put(...new Array<number>(16).fill(0));
        await driver.rig.run(driver.offer(0));
      },
    },
    {
      name: 'a write whose data is the ring that it stands in',
      verdict: served,
      async attack(driver) {
        const ring = driver.ring(0);
        const status = driver.buffer(1);
        ring.chain(0, [
          { address: driver.buffer(blkHeader(OUT, 10)), length: 16 },
          { address: ring.place.used, length: 512 },
          { address: status, length: 1, flags: WRITE },
        ]);
        ring.put(0);
        await driver.run(...driver.offer(0), driver.returned(0));
        await send(driver, [blkHeader(OUT, 10), sector(10)], [1], OK);
      },
    },
    ...(['descriptors', 'available', 'used'] as const).map(
      (target): Case => ({
        name: `a read into the ${target} ring that it came by`,
        verdict: 'either',
        async attack(driver) {
          const ring = driver.ring(0);
          ring.chain(0, [
            { address: driver.buffer(blkHeader(IN, 1)), length: 16 },
            { address: ring.place[target], length: 512, flags: WRITE },
            { address: driver.buffer(1), length: 1, flags: WRITE },
          ]);
          ring.put(0);
          await driver.rig.run(driver.offer(0));
        },
      }),
    ),
    {
      name: 'a status byte in the used ring’s index',
      verdict: 'either',
      async attack(driver) {
        const ring = driver.ring(0);
        ring.chain(0, [
          { address: driver.buffer(blkHeader(IN, 1)), length: 16 },
          { address: driver.buffer(512), length: 512, flags: WRITE },
          { address: ring.place.used + 2, length: 1, flags: WRITE },
        ]);
        ring.put(0);
        await driver.rig.run(driver.offer(0));
      },
    },
    {
      name: 'the header, the data and the status in one place',
      verdict: served,
      async attack(driver) {
        const place = driver.buffer(Buffer.concat([blkHeader(IN, 1), Buffer.alloc(496)]));
        driver.ring(0).chain(0, [
          { address: place, length: 16 },
          { address: place, length: 512, flags: WRITE },
          { address: place, length: 1, flags: WRITE },
        ]);
        driver.ring(0).put(0);
        await driver.run(...driver.offer(0), driver.returned(0));
        assert.equal(driver.rig.memory.readU8(place), OK);
      },
    },
    {
      name: 'a read of 3.9 GiB, again and again into one place',
      verdict: served,
      async attack(driver) {
        const count = 63;
        const table = driver.buffer((count + 2) * 16);
        const status = driver.buffer(1);
        writeDescriptor(driver.rig, table, {
          address: driver.buffer(blkHeader(IN, 0)),
          length: 16,
          flags: 1,
          next: 1,
        });
        for (let i = 1; i <= count; i++) {
          const last = i === count;
          const place = last ? { address: status, length: 1 } : { address: 0, length: RAM.size };
          writeDescriptor(driver.rig, table + 16 * i, {
            ...place,
            flags: WRITE | (last ? 0 : 1),
            next: i + 1,
          });
        }
        driver.ring(0).describe(0, { address: table, length: (count + 1) * 16, flags: 4 });
        driver.ring(0).put(0);
        await driver.run(...driver.offer(0), driver.returned(0));
        assert.equal(driver.rig.memory.readU8(status), IOERR);
      },
    },
    {
      name: 'a reset with reads on their way: their buffers are the driver’s again',
      verdict: served,
      async attack(driver) {
        for (let i = 0; i < 10; i++) {
          await driver.start();
          const into = [0, 1, 2, 3, 4].flatMap((n) =>
            driver.prepare(0, [blkHeader(IN, 8 * n)], [4096, 1], 3 * n),
          );
          await driver.rig.run([...driver.offer(0), ...driver.reset()]);
          for (const { address, length } of into) driver.rig.memory.fill(address, length, 0x77);
          await bench.probe([bench.driver('rng'), bench.driver('read-only')]);
          for (const { address, length } of into) {
            assert.ok(driver.rig.memory.read(address, length).every((byte) => byte === 0x77));
          }
        }
      },
    },
    {
      name: 'a reset with writes on their way: none comes back',
      verdict: served,
      start: { features: FEATURE_VERSION_1 },
      async attack(driver) {
        for (let i = 0; i < 5; i++) {
          await driver.start({ features: FEATURE_VERSION_1 });
          for (let n = 0; n < 5; n++) driver.prepare(0, [blkHeader(OUT, 9), sector(9)], [1], 3 * n);
          await driver.rig.run([...driver.offer(0), ...driver.reset()]);
          driver.ring(0).clear();
          await bench.probe([bench.driver('rng')]);
          assert.equal(driver.ring(0).usedIndex, 0);
        }
      },
    },
  ];

  return {
    blk: [
      ...header,
      ...transfers,
      ...ranges.map((each): Case => ({ start: { features: DISCARD_FEATURES }, ...each })),
      ...rings,
    ],
    readOnly,
  };
}
