/** Frames, buffers and commands that break the rules of the network device (virtio 1.2, 5.1.6). */
import { strict as assert } from 'node:assert';
import { attack, type Case, served, serves } from '../../support/hostile-guest/cases.js';
import {
  DEFAULT_FEATURES,
  type Driver,
  INDIRECT,
  NEXT,
  WRITE,
  writeDescriptor,
} from '../../support/hostile-guest/driver.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { frame, netHeader } from '../../support/hostile-guest/probes.js';

const bench = await fullBench();

const RECEIVE = 0;
const TRANSMIT = 1;
const CONTROL = 2;
const MRG_RXBUF = 1n << 15n;
const CTRL = (1n << 17n) | (1n << 18n) | (1n << 19n) | (1n << 20n) | (1n << 23n);

const errors = (): number => bench.rig.machine.metrics().net?.errors ?? 0;

/** A frame that the device gives back without having sent it. */
const dropped = (name: string, ...readable: readonly Uint8Array[]): Case => ({
  name,
  verdict: served,
  async attack(driver) {
    const before = errors();
    assert.equal((await driver.request(TRANSMIT, readable, [])).length, 0);
    assert.equal(errors(), before + 1, 'it is counted');
    await serves(driver);
  },
});

/** A header of which the first ten bytes are these, and a frame behind it. */
const headed = (bytes: readonly number[], length = 60): Buffer => {
  const header = Buffer.alloc(netHeader);
  header.set(bytes);
  return Buffer.concat([header, frame(length)]);
};

const transmits: readonly Case[] = [
  dropped('nothing at all'),
  ...[1, 4, 10, 11].map((length) => dropped(`a header of ${length} bytes`, Buffer.alloc(length))),
  dropped('a header without a frame', Buffer.alloc(netHeader)),
  ...[1, 13].map((length) => dropped(`a frame of ${length} bytes`, headed([], length))),
  dropped('a frame of 70,000 bytes', headed([], 70_000)),
  dropped('a checksum that was not negotiated', headed([1, 0, 0, 0, 0, 0, 14, 0, 2, 0])),
  ...[1, 3, 4, 5, 0x80, 0x81, 0xff].map((type) =>
    dropped(`a segmentation of type ${type}`, headed([1, type, 54, 0, 100, 0, 14, 0, 16, 0])),
  ),
  {
    name: 'a header in single bytes',
    verdict: served,
    async attack(driver) {
      const bytes = headed([]);
      const pieces = [...bytes.subarray(0, 15)].map((byte) => Buffer.from([byte]));
      await driver.request(TRANSMIT, [...pieces, bytes.subarray(15)], []);
    },
  },
  {
    name: 'a header full of ones but for what asks for something',
    verdict: served,
    async attack(driver) {
      await driver.request(TRANSMIT, [headed([0xfe, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])], []);
    },
  },
  {
    name: 'a frame with a writable part',
    verdict: served,
    async attack(driver) {
      const { length, bytes } = await driver.request(TRANSMIT, [headed([])], [64]);
      assert.equal(length, 0);
      assert.ok(bytes.every((byte) => byte === 0xee));
    },
  },
  ...[1000, 1023, 1024].map(
    (count): Case => ({
      name: `a frame of ${count} pieces`,
      verdict: served,
      async attack(driver) {
        const table = driver.buffer(count * 16);
        const data = driver.buffer(Buffer.alloc(64));
        for (let i = 0; i < count; i++) {
          const flags = i < count - 1 ? NEXT : 0;
          writeDescriptor(driver.rig, table + 16 * i, {
            address: data,
            length: i === 0 ? 12 : 17,
            flags,
            next: i + 1,
          });
        }
        driver.ring(TRANSMIT).describe(0, { address: table, length: count * 16, flags: INDIRECT });
        driver.ring(TRANSMIT).put(0);
        await driver.run(...driver.offer(TRANSMIT), driver.returned(TRANSMIT));
      },
    }),
  ),
  {
    name: 'a frame of 64 MiB',
    verdict: served,
    async attack(driver) {
      driver.ring(TRANSMIT).chain(0, [{ address: 0, length: 64 << 20 }]);
      driver.ring(TRANSMIT).put(0);
      await driver.run(...driver.offer(TRANSMIT), driver.returned(TRANSMIT));
    },
  },
  {
    name: 'the rings as a frame',
    verdict: served,
    async attack(driver) {
      const { place } = driver.ring(TRANSMIT);
      driver.ring(TRANSMIT).chain(0, [
        { address: place.descriptors, length: 128 },
        { address: place.used, length: 128 },
      ]);
      driver.ring(TRANSMIT).put(0);
      await driver.run(...driver.offer(TRANSMIT), driver.returned(TRANSMIT));
    },
  },
  {
    name: 'a reset with frames on their way, again and again',
    verdict: served,
    async attack(driver) {
      for (let i = 0; i < 10; i++) {
        const address = driver.buffer(headed([], 60_000));
        driver.ring(TRANSMIT).chain(0, [{ address, length: 60_012 }]);
        for (let n = 0; n < 16; n++) driver.ring(TRANSMIT).put(0);
        await driver.rig.run([...driver.offer(TRANSMIT), ...driver.reset()]);
        await driver.start();
      }
    },
  },
];

/** The peer sends a frame. */
function send(length: number): void {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(length);
  bench.peer.write(Buffer.concat([size, Buffer.alloc(length, 'r')]));
}

/** The peer sends frames, while there are such buffers to receive into. */
const receives = (
  name: string,
  buffers: readonly { readonly length: number; readonly readable?: boolean }[],
  verdict: Case['verdict'],
  { features = DEFAULT_FEATURES, size = 60 }: { features?: bigint; size?: number } = {},
  check: (driver: Driver) => Promise<unknown> = async () => {},
): Case => ({
  name,
  verdict,
  start: { features },
  async attack(driver) {
    const ring = driver.ring(RECEIVE);
    buffers.forEach(({ length, readable = false }, i) => {
      ring.chain(i, [{ address: driver.buffer(Math.max(16, length)), length, flags: readable ? 0 : WRITE }]);
      ring.put(i);
    });
    send(size);
    await driver.rig.run(driver.offer(RECEIVE));
    await check(driver);
  },
});

const tooSmall = /a receive buffer is smaller than the header/;

const receiving: readonly Case[] = [
  ...[0, 1, 11].map((length) =>
    receives(`a buffer of ${length} bytes to receive into`, [{ length }], tooSmall),
  ),
  receives('a readable buffer to receive into', [{ length: 2048, readable: true }], tooSmall),
  receives('a good buffer, then one that is too small', [{ length: 2048 }, { length: 4 }], tooSmall, {
    features: DEFAULT_FEATURES | MRG_RXBUF,
    size: 1500,
  }),
  receives('buffers with room for the header only', [{ length: 12 }, { length: 12 }], served),
  receives('a frame larger than its buffer, not merged', [{ length: 64 }, { length: 64 }], served, {
    size: 1000,
  }),
  receives(
    'a frame over sixteen buffers, merged',
    Array.from({ length: 16 }, () => ({ length: 80 })),
    served,
    { features: DEFAULT_FEATURES | MRG_RXBUF, size: 1200 },
    async (driver) => {
      await driver.run(driver.returned(RECEIVE, 16));
      const lengths = Array.from({ length: 16 }, (_, n) => driver.ring(RECEIVE).usedEntry(n).length);
      assert.equal(
        lengths.reduce((sum, length) => sum + length, 0),
        1212,
        'all of it, and no more',
      );
    },
  ),
  receives('a frame larger than all buffers together', [{ length: 100 }, { length: 100 }], served, {
    features: DEFAULT_FEATURES | MRG_RXBUF,
    size: 60_000,
  }),
  {
    name: 'a frame into the used ring',
    verdict: 'either',
    async attack(driver) {
      const ring = driver.ring(RECEIVE);
      ring.chain(0, [{ address: ring.place.used, length: 128, flags: WRITE }]);
      ring.put(0);
      send(100);
      await driver.rig.run(driver.offer(RECEIVE));
    },
  },
  {
    name: 'a head out of range to receive into',
    verdict: /available entry is not below/,
    async attack(driver) {
      driver.ring(RECEIVE).put(999);
      send(100);
      await driver.rig.run(driver.offer(RECEIVE));
    },
  },
  {
    name: 'frames that come while it is reset again and again',
    verdict: 'either',
    async attack(driver) {
      for (let i = 0; i < 20; i++) {
        send(500);
        driver.ring(RECEIVE).chain(0, [{ address: driver.buffer(2048), length: 2048, flags: WRITE }]);
        driver.ring(RECEIVE).put(0);
        await driver.rig.run([...driver.offer(RECEIVE), ...driver.reset()]);
        await driver.start();
      }
    },
  },
];

const OK = 0;
const ERR = 1;

/** A command by its bytes, and the answer to it. */
const command = (name: string, bytes: readonly number[], answer: number, features = CTRL): Case => ({
  name: `the command ${name}`,
  verdict: served,
  start: { features: DEFAULT_FEATURES | features },
  async attack(driver) {
    const reply = await driver.request(CONTROL, [Buffer.from(bytes)], [1]);
    assert.equal(reply.bytes[0], answer);
    assert.equal(reply.length, 1);
    await serves(driver);
  },
});

const count = (n: number): number[] => [n & 0xff, (n >>> 8) & 0xff, (n >>> 16) & 0xff, n >>> 24];

const commands: readonly Case[] = [
  command('without its bytes', [], ERR),
  command('of a class alone', [1], ERR),
  ...[3, 5, 6, 77, 255].map((kind) => command(`of class ${kind}`, [kind, 0, 0, 0], ERR)),
  ...[0, 5].map((mode) => command(`for receive mode ${mode}`, [0, mode, 1], OK)),
  ...[6, 255].map((mode) => command(`for receive mode ${mode}, which there is not`, [0, mode, 1], ERR)),
  command('for a receive mode, without its value', [0, 0], ERR),
  command('for MAC tables, without them', [1, 0], ERR),
  command('for MAC tables, of one only', [1, 0, ...count(0)], ERR),
  command('for MAC tables of 2^32 - 1 addresses', [1, 0, ...count(0xffff_ffff), 1, 2, 3], ERR),
  command(
    'for MAC tables of 0x2aaaaaab addresses, whose bytes wrap',
    [1, 0, ...count(0x2aaa_aaab), 1, 2],
    ERR,
  ),
  command(
    'for MAC tables with one address too few',
    [1, 0, ...count(2), ...new Array<number>(6).fill(1), ...count(0)],
    ERR,
  ),
  command(
    'for MAC tables of a thousand addresses',
    [1, 0, ...count(1000), ...new Array<number>(6000).fill(1), ...count(0)],
    OK,
  ),
  command('for a MAC of five bytes', [1, 1, 1, 2, 3, 4, 5], ERR),
  command('for a MAC of a group', [1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], OK),
  command('for VLAN 4095', [2, 0, 0xff, 0x0f], OK),
  command('for VLAN 4096', [2, 0, 0x00, 0x10], ERR),
  command('for VLAN 65535', [2, 1, 0xff, 0xff], ERR),
  command('for a VLAN, of a kind that there is not', [2, 2, 1, 0], ERR),
  ...[0, 1, 2, 0xffff].map((pairs) =>
    command(`for ${pairs} pairs, without MQ`, [4, 0, pairs & 0xff, pairs >> 8], ERR),
  ),
  command(
    'for offloads that were not negotiated',
    [5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ERR,
  ),
  command('for a receive mode that was not negotiated', [0, 0, 1], ERR, 1n << 17n),
  command('for a MAC, which was not negotiated', [1, 1, 2, 0, 0, 0, 0, 9], ERR, 1n << 17n),
  {
    name: 'a command without room for an answer',
    verdict: served,
    start: { features: DEFAULT_FEATURES | CTRL },
    async attack(driver) {
      assert.equal((await driver.request(CONTROL, [Buffer.from([0, 0, 1])], [])).length, 0);
    },
  },
  {
    name: 'commands without a control queue',
    verdict: served,
    async attack(driver) {
      driver.prepare(CONTROL, [Buffer.from([0, 0, 1])], [1]);
      await driver.rig.run(driver.offer(CONTROL));
      await bench.probe([bench.driver('rng')]);
      assert.equal(driver.ring(CONTROL).usedIndex, 0);
    },
  },
  {
    name: 'two thousand commands, sixteen at a time',
    verdict: served,
    start: { features: DEFAULT_FEATURES | CTRL },
    async attack(driver) {
      const ring = driver.ring(CONTROL);
      ring.chain(0, [
        { address: driver.buffer(Buffer.from([1, 1, 2, 0, 0, 0, 0, 9])), length: 8 },
        { address: driver.buffer(1), length: 1, flags: WRITE },
      ]);
      for (let i = 0; i < 16; i++) ring.put(0);
      await driver.run(
        ...Array.from({ length: 128 }, (_, i) => [
          ...driver.offer(CONTROL, 16 * (i + 1)),
          driver.returned(CONTROL, 16 * (i + 1)),
        ]).flat(),
      );
    },
  },
];

attack(bench, 'net', [...transmits, ...receiving, ...commands]);
bench.end();
