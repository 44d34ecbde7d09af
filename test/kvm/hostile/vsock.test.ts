/** Packets that break the rules of the socket device (virtio 1.2, 5.10.6). */
import { strict as assert } from 'node:assert';
import type { Duplex } from 'node:stream';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import { type Driver, WRITE } from '../../support/hostile-guest/driver.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { ECHO, VSOCK, VsockGuest, type VsockHeader, vsockPacket } from '../../support/hostile-guest/vsock.js';

const bench = await fullBench();

const SILENT = 7001;
const streams = new Set<Duplex>();
const remember = (stream: Duplex): void => {
  streams.add(stream);
  stream.on('error', () => {}).on('close', () => streams.delete(stream));
};
bench.vsock.listen(ECHO, (stream) => {
  remember(stream);
  stream.pipe(stream);
});
bench.vsock.listen(SILENT, (stream) => remember(stream.pause()));

const guest = (name: string, run: (guest: VsockGuest, driver: Driver) => Promise<unknown>): Case => ({
  name,
  verdict: served,
  attack: (driver) => run(new VsockGuest(driver), driver),
});

/** A packet that nobody answers. */
const ignored = (name: string, header: VsockHeader, payload?: Uint8Array): Case =>
  guest(name, async (guest) => {
    await guest.packet(header, payload);
    await bench.probe([bench.driver('rng')]);
    assert.equal(guest.waiting, 0, 'no answer');
  });

const OPERATIONS = Object.entries(VSOCK).filter(([name]) =>
  ['RESPONSE', 'SHUTDOWN', 'RW', 'CREDIT_UPDATE', 'CREDIT_REQUEST'].includes(name),
) as [string, number][];

const addresses: readonly Case[] = [
  ...[0, 1, 16, 43].map((length) =>
    guest(`a packet of ${length} bytes`, async (guest, driver) => {
      driver.prepare(VSOCK.transmit, [Buffer.alloc(length)], [], 0);
      await driver.run(...driver.offer(VSOCK.transmit), driver.returned(VSOCK.transmit));
      assert.equal(guest.waiting, 0);
    }),
  ),
  ...[0n, 1n, 2n, 4n, 0xffff_ffffn, 0x1_0000_0003n, 0xffff_ffff_ffff_ffffn].map((sourceCid) =>
    ignored(`from the CID ${sourceCid}, which is not the guest’s`, {
      op: VSOCK.REQUEST,
      sourceCid,
      destinationPort: ECHO,
    }),
  ),
  ...[0n, 1n, 3n, 4n, 0xffff_ffffn, 0x1_0000_0002n, 0xffff_ffff_ffff_ffffn].map((destinationCid) =>
    ignored(`to the CID ${destinationCid}, which is not the host’s`, {
      op: VSOCK.REQUEST,
      destinationCid,
      destinationPort: ECHO,
    }),
  ),
  ignored('a RST of what there is not', { op: VSOCK.RST }),
];

const withoutConnection: readonly Case[] = [
  ...OPERATIONS.map(([name, op]) =>
    guest(`${name} without a connection`, async (guest) => {
      await guest.packet({ op, destinationPort: ECHO });
      await guest.refused();
    }),
  ),
  ...[0, 8, 255, 0xffff].map((op) =>
    guest(`the operation ${op} without a connection`, async (guest) => {
      await guest.packet({ op, destinationPort: ECHO });
      await guest.refused();
    }),
  ),
  ...[0, 2, 3, 0xffff].map((type) =>
    guest(`the type ${type}, which is not stream`, async (guest) => {
      await guest.packet({ op: VSOCK.REQUEST, type, destinationPort: ECHO });
      await guest.expect(VSOCK.RST, { type });
    }),
  ),
  ...[0, 1, 1024, 0xffff_ffff].map((port) =>
    guest(`a connection to port ${port}, where nobody listens`, async (guest) => {
      await guest.packet({ op: VSOCK.REQUEST, destinationPort: port });
      await guest.refused();
    }),
  ),
];

const established: readonly Case[] = [
  guest('a connection that is honest', async (guest) => {
    await guest.connect();
    await guest.packet({ destinationPort: ECHO }, Buffer.from('hello'));
    let packet = await guest.next();
    while (packet.op !== VSOCK.RW) packet = await guest.next();
    assert.equal(packet.payload.toString(), 'hello');
  }),
  guest('REQUEST twice', async (guest) => {
    await guest.connect();
    await guest.packet({ op: VSOCK.REQUEST, destinationPort: ECHO });
    await guest.refused();
  }),
  guest('RESPONSE to an established connection', async (guest) => {
    await guest.connect();
    await guest.packet({ op: VSOCK.RESPONSE, destinationPort: ECHO });
    await guest.refused();
  }),
  ...[0, 8, 77, 0xffff].map((op) =>
    guest(`the operation ${op} on a connection`, async (guest) => {
      await guest.connect();
      await guest.packet({ op, destinationPort: ECHO });
      await guest.refused();
    }),
  ),
  ...[0, 2, 0xffff].map((type) =>
    guest(`the type ${type} on a connection`, async (guest) => {
      await guest.connect();
      await guest.packet({ op: VSOCK.RW, type, destinationPort: ECHO }, Buffer.from('x'));
      await guest.expect(VSOCK.RST, { type });
    }),
  ),
  ...[
    [0, 5],
    [4, 5],
    [6, 5],
    [4096, 5],
    [0x7fff_ffff, 5],
    [0xffff_ffff, 5],
    [0xffff_ffff, 0],
    [0xffff_ffd4, 0], // with the header: 2^32 (CVE-2019-18960)
  ].map(([length = 0, sent = 0]) =>
    guest(`a length of ${length} with ${sent} bytes (CVE-2019-18960)`, async (guest) => {
      await guest.connect();
      await guest.packet({ destinationPort: ECHO, length }, Buffer.alloc(sent, 'x'));
      await guest.refused();
    }),
  ),
  ...(['REQUEST', 'SHUTDOWN', 'CREDIT_UPDATE'] as const).map((name) =>
    guest(`a length in a ${name}, without its bytes`, async (guest) => {
      await guest.connect();
      await guest.packet({ op: VSOCK[name], destinationPort: ECHO, length: 100 });
      await guest.refused();
    }),
  ),
  guest('RW of nothing', async (guest) => {
    await guest.connect();
    await guest.packet({ destinationPort: ECHO });
    await guest.packet({ op: VSOCK.CREDIT_REQUEST, destinationPort: ECHO });
    await guest.expect(VSOCK.CREDIT_UPDATE);
  }),
  guest('SHUTDOWN with all flags, twice, then RW', async (guest) => {
    await guest.connect();
    await guest.packet({ op: VSOCK.SHUTDOWN, destinationPort: ECHO, flags: 0xffff_ffff });
    await guest.packet({ op: VSOCK.SHUTDOWN, destinationPort: ECHO, flags: 0xffff_ffff });
    await guest.refused();
    await guest.packet({ destinationPort: ECHO }, Buffer.from('late'));
    await guest.refused();
  }),
  guest('RW after it said that it sends no more', async (guest) => {
    await guest.connect(SILENT);
    await guest.packet({ op: VSOCK.SHUTDOWN, destinationPort: SILENT, flags: 2 });
    await guest.packet({ destinationPort: SILENT }, Buffer.from('late'));
    await guest.refused();
  }),
  guest('SHUTDOWN without flags', async (guest) => {
    await guest.connect();
    await guest.packet({ op: VSOCK.SHUTDOWN, destinationPort: ECHO, flags: 0 });
    await guest.packet({ op: VSOCK.CREDIT_REQUEST, destinationPort: ECHO });
    await guest.expect(VSOCK.CREDIT_UPDATE);
  }),
  guest('a RST in the middle, then RW', async (guest) => {
    await guest.connect();
    await guest.packet({ op: VSOCK.RST, destinationPort: ECHO });
    await guest.packet({ destinationPort: ECHO }, Buffer.from('late'));
    await guest.refused();
  }),
];

const credit: readonly Case[] = [
  guest('more bytes than the host has given credit for', async (guest, driver) => {
    await guest.connect(SILENT);
    const payload = Buffer.alloc(32 << 10, 'x');
    // The window is 256 KiB, and what waits for the reader is bounded by the socket's buffer.
    let reset = false;
    for (let i = 0; i < 64 && !reset; i++) {
      await guest.packet({ destinationPort: SILENT }, payload.subarray(0, 8 << 10));
      while (guest.waiting > 0) reset = (await guest.next()).op === VSOCK.RST || reset;
    }
    await bench.probe([bench.driver('rng')]);
    assert.equal(await driver.status(), 15);
  }),
  guest('no credit at all: the host sends nothing, and the guest’s later credit is enough', async (guest) => {
    await guest.connect(ECHO, 1234, { bufferSize: 0 });
    await guest.packet({ destinationPort: ECHO, bufferSize: 0 }, Buffer.from('hello'));
    await guest.packet({ op: VSOCK.CREDIT_UPDATE, destinationPort: ECHO, bufferSize: 3 });
    let packet = await guest.next();
    while (packet.op !== VSOCK.RW) packet = await guest.next();
    assert.equal(packet.payload.toString(), 'hel', 'no more than there was room for');
  }),
  ...[
    [0xffff_ffff, 0],
    [0, 0xffff_ffff],
    [0xffff_ffff, 0xffff_ffff],
    [1, 0x8000_0000],
    [65536, 1],
  ].map(([bufferSize = 0, forwarded = 0]) =>
    guest(
      `a buffer of ${bufferSize} of which ${forwarded} were forwarded, though nothing was sent`,
      async (guest) => {
        await guest.connect(ECHO);
        await guest.packet({ destinationPort: ECHO, bufferSize, forwarded }, Buffer.from('x'));
        await bench.probe([bench.driver('rng')]);
      },
    ),
  ),
  guest('a thousand CREDIT_REQUESTs', async (guest, driver) => {
    await guest.connect();
    const ring = driver.ring(VSOCK.transmit);
    const packet = vsockPacket({ op: VSOCK.CREDIT_REQUEST, destinationPort: ECHO });
    const from = ring.available;
    ring.chain(0, [{ address: driver.buffer(packet), length: packet.length }]);
    for (let i = 0; i < 16; i++) ring.put(0);
    await driver.run(
      ...Array.from({ length: 64 }, (_, i) => [
        ...driver.offer(VSOCK.transmit, (from + 16 * (i + 1)) & 0xffff),
        driver.returned(VSOCK.transmit, from + 16 * (i + 1)),
      ]).flat(),
    );
  }),
];

/** `count` packets, each made by `make`, sixteen at a time; nothing is received meanwhile. */
async function flood(driver: Driver, count: number, make: (n: number) => VsockHeader): Promise<void> {
  const ring = driver.ring(VSOCK.transmit);
  const buffers = Array.from({ length: 16 }, () => driver.buffer(VSOCK.header));
  buffers.forEach((address, i) => {
    ring.chain(i, [{ address, length: VSOCK.header }]);
  });
  for (let n = 0; n < count; n += 16) {
    buffers.forEach((address, i) => {
      driver.rig.memory.write(address, vsockPacket(make(n + i)));
      ring.put(i);
    });
    await driver.run(...driver.offer(VSOCK.transmit), driver.returned(VSOCK.transmit));
  }
}

const floods: readonly Case[] = [
  {
    name: 'two thousand connections to where nobody listens, and no buffer for the answers',
    verdict: served,
    attack: (driver) =>
      flood(driver, 2048, (n) => ({ op: VSOCK.REQUEST, sourcePort: n, destinationPort: 9 })),
  },
  {
    name: 'a thousand connections that are made, and no buffer for the answers',
    verdict: served,
    async attack(driver) {
      await flood(driver, 1024, (n) => ({ op: VSOCK.REQUEST, sourcePort: n, destinationPort: SILENT }));
      assert.ok(bench.vsock.connections <= 1024);
      await driver.start();
      await bench.probe([bench.driver('rng')]);
      assert.equal(bench.vsock.connections, 0, 'a reset ends them all');
    },
  },
  {
    name: 'a connection made and cut a thousand times',
    verdict: served,
    async attack(driver) {
      await flood(driver, 2000, (n) => ({
        op: n % 2 === 0 ? VSOCK.REQUEST : VSOCK.RST,
        sourcePort: 5,
        destinationPort: SILENT,
      }));
      assert.ok(bench.vsock.connections <= 1);
    },
  },
  {
    name: 'packets of every operation from every state, in no order',
    verdict: served,
    async attack(driver) {
      let seed = 12345;
      const random = (below: number): number => {
        seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
        return (seed >>> 8) % below;
      };
      await flood(driver, 4096, () => ({
        op: random(9),
        sourcePort: random(4),
        destinationPort: [ECHO, SILENT, 9][random(3)] ?? 0,
        flags: random(4),
        bufferSize: random(3) * 1000,
        forwarded: random(3),
        length: random(20) === 0 ? 1 : 0,
        type: random(20) === 0 ? 2 : 1,
      }));
    },
  },
];

const receiving: readonly Case[] = [
  {
    name: 'buffers too small for a header to receive into',
    verdict: served,
    async attack(driver) {
      const ring = driver.ring(VSOCK.receive);
      for (let i = 0; i < 8; i++) {
        ring.chain(i, [{ address: driver.buffer(64), length: [0, 1, 43, 43][i % 4] ?? 0, flags: WRITE }]);
        ring.put(i);
      }
      driver.prepare(VSOCK.transmit, [vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 })], [], 0);
      await driver.run(
        ...driver.offer(VSOCK.receive),
        ...driver.offer(VSOCK.transmit),
        driver.returned(VSOCK.receive),
      );
      for (let n = 0; n < 8; n++) assert.equal(ring.usedEntry(n).length, 0);
    },
  },
  {
    name: 'buffers with room for a header only, and data to receive',
    verdict: served,
    async attack(driver) {
      const guest = new VsockGuest(driver, VSOCK.header);
      await guest.connect();
      await guest.packet({ destinationPort: ECHO }, Buffer.from('hello'));
      await bench.probe([bench.driver('rng')]);
      assert.equal(await driver.status(), 15);
    },
  },
  {
    name: 'readable buffers to receive into',
    verdict: served,
    async attack(driver) {
      const ring = driver.ring(VSOCK.receive);
      ring.chain(0, [{ address: driver.buffer(512), length: 512 }]);
      ring.put(0);
      driver.prepare(VSOCK.transmit, [vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 })], [], 0);
      await driver.run(
        ...driver.offer(VSOCK.receive),
        ...driver.offer(VSOCK.transmit),
        driver.returned(VSOCK.receive),
      );
      assert.equal(ring.usedEntry(0).length, 0);
    },
  },
  ...(
    [
      ['a head out of range in the receive queue', 0xffff, /available entry is not below/],
      ['a loop in the receive queue', 0, /loop/],
    ] as const
  ).map(
    ([name, head, verdict]): Case => ({
      name,
      verdict,
      async attack(driver) {
        const ring = driver.ring(VSOCK.receive);
        ring.describe(0, { address: 0, length: 8, flags: 1 | WRITE, next: 0 });
        ring.put(head);
        driver.prepare(VSOCK.transmit, [vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 })], [], 0);
        await driver.rig.run([...driver.offer(VSOCK.receive), ...driver.offer(VSOCK.transmit)]);
      },
    }),
  ),
  {
    name: 'packets with writable parts to send',
    verdict: served,
    async attack(driver) {
      const packet = vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 });
      const { length } = await driver.request(VSOCK.transmit, [packet], [512]);
      assert.equal(length, 0);
    },
  },
  {
    name: 'the header of a packet in single bytes',
    verdict: served,
    async attack(driver) {
      const guest = new VsockGuest(driver);
      const packet = vsockPacket({ op: VSOCK.REQUEST, destinationPort: 9 });
      const pieces = [...packet.subarray(0, 15)].map((byte) => Buffer.from([byte]));
      driver.prepare(VSOCK.transmit, [...pieces, packet.subarray(15)], [], 0);
      await driver.run(
        ...driver.offer(VSOCK.receive),
        ...driver.offer(VSOCK.transmit),
        driver.returned(VSOCK.transmit),
      );
      await guest.refused();
    },
  },
  {
    name: 'the event queue is used for what it is not',
    verdict: served,
    async attack(driver) {
      driver.prepare(VSOCK.event, [Buffer.alloc(8)], [8], 0);
      await driver.run(...driver.offer(VSOCK.event));
      await bench.probe([bench.driver('rng')]);
      assert.equal(driver.ring(VSOCK.event).usedIndex, 0, 'kept until there is an event');
    },
  },
];

attack(bench, 'vsock', [
  ...addresses,
  ...withoutConnection,
  ...established,
  ...credit,
  ...floods,
  ...receiving,
]);
bench.end();
