/** A hostile answer to what the host does with the socket device: connections that it asks for, streams, lines (virtio 1.2, 5.10.6). */
import { strict as assert } from 'node:assert';
import type { Duplex } from 'node:stream';
import { attack, type Case, served } from '../../support/hostile-guest/cases.js';
import type { Driver } from '../../support/hostile-guest/driver.js';
import { fullBench } from '../../support/hostile-guest/machine.js';
import { VSOCK, VsockGuest, type VsockHeader } from '../../support/hostile-guest/vsock.js';

const bench = await fullBench();

const PORT = 4321;

/** What becomes of a connection that the host has asked for. */
type Outcome = { readonly stream?: Duplex; readonly code?: string };

function connect(): Promise<Outcome> {
  return bench.vsock.connect(PORT).then(
    (stream) => ({ stream: stream.on('error', () => {}) }),
    (error) => ({ code: error.code }),
  );
}

/** The host connects; `answer` is what the guest does with the REQUEST. */
const asked = (
  name: string,
  answer: (guest: VsockGuest, request: Required<VsockHeader>, driver: Driver) => Promise<unknown>,
  check: (outcome: Outcome) => void,
  verdict: Case['verdict'] = served,
): Case => ({
  name: `the host connects: ${name}`,
  verdict,
  async attack(driver) {
    const guest = new VsockGuest(driver);
    await guest.offer();
    const connecting = connect();
    const request = await guest.expect(VSOCK.REQUEST, { destinationPort: PORT });
    await answer(guest, request, driver);
    const outcome = await connecting;
    check(outcome);
    outcome.stream?.destroy();
  },
});

const to = (request: Required<VsockHeader>, more: VsockHeader): VsockHeader => ({
  sourcePort: PORT,
  destinationPort: request.sourcePort,
  ...more,
});

const refused =
  (code: string) =>
  (outcome: Outcome): void => {
    assert.equal(outcome.code, code);
  };

const connects: readonly Case[] = [
  asked(
    'it is refused',
    (guest, request) => guest.packet(to(request, { op: VSOCK.RST })),
    refused('ECONNREFUSED'),
  ),
  asked(
    'it is answered by bytes',
    (guest, request) => guest.packet(to(request, { op: VSOCK.RW }), Buffer.from('early')),
    ({ stream }) => assert.equal(stream, undefined),
  ),
  ...[VSOCK.REQUEST, VSOCK.SHUTDOWN, VSOCK.CREDIT_UPDATE, VSOCK.CREDIT_REQUEST, 0, 99].map((op) =>
    asked(
      `it is answered by the operation ${op}`,
      (guest, request) => guest.packet(to(request, { op })),
      ({ stream }) => assert.equal(stream, undefined),
    ),
  ),
  asked(
    'another port answers, then the right one',
    async (guest, request) => {
      await guest.packet(to(request, { op: VSOCK.RESPONSE, sourcePort: PORT + 1 }));
      await guest.packet(to(request, { op: VSOCK.RESPONSE, destinationPort: request.sourcePort + 1 }));
      await guest.packet(to(request, { op: VSOCK.RESPONSE }));
    },
    ({ stream }) => assert.ok(stream),
  ),
  asked(
    'it is accepted twice',
    async (guest, request) => {
      await guest.packet(to(request, { op: VSOCK.RESPONSE }));
      await guest.packet(to(request, { op: VSOCK.RESPONSE }));
    },
    ({ stream }) => assert.ok(stream),
  ),
  asked(
    'it is accepted without any credit, and bytes come',
    async (guest, request) => {
      await guest.packet(to(request, { op: VSOCK.RESPONSE, bufferSize: 0 }));
      await guest.packet(to(request, { op: VSOCK.RW, bufferSize: 0 }), Buffer.from('hello'));
    },
    ({ stream }) => assert.ok(stream),
  ),
  asked(
    'the device is reset instead of an answer',
    (_guest, _request, driver) => driver.start(),
    refused('ECONNRESET'),
  ),
  asked(
    'the device breaks instead of an answer, and is reset',
    async (_guest, _request, driver) => {
      await driver.rig.run([...driver.offer(VSOCK.transmit, 0x4000), driver.broken()]);
      await driver.start();
    },
    refused('ECONNRESET'),
    'either',
  ),
];

/** An established connection that the host has asked for. */
const established = (
  name: string,
  run: (
    guest: VsockGuest,
    request: Required<VsockHeader>,
    stream: Duplex,
    driver: Driver,
  ) => Promise<unknown>,
  { room = 512, bufferSize = 65536 } = {},
): Case => ({
  name: `a stream of the host’s: ${name}`,
  verdict: served,
  async attack(driver) {
    const guest = new VsockGuest(driver, room);
    await guest.offer();
    const connecting = connect();
    const request = await guest.expect(VSOCK.REQUEST);
    await guest.packet(to(request, { op: VSOCK.RESPONSE, bufferSize }));
    const { stream } = await connecting;
    assert.ok(stream);
    await run(guest, request, stream, driver);
    stream.destroy();
  },
});

const streams: readonly Case[] = [
  established(
    'it is read by a byte a buffer',
    async (guest, _request, stream) => {
      stream.write(Buffer.from('0123456789'));
      let text = '';
      while (text.length < 10) {
        const packet = await guest.next();
        assert.equal(packet.op, VSOCK.RW);
        assert.equal(packet.length, 1);
        text += packet.payload.toString();
      }
      assert.equal(text, '0123456789');
    },
    { room: VSOCK.header + 1 },
  ),
  established(
    'credit of three bytes is all that is sent',
    async (guest, _request, stream) => {
      stream.write(Buffer.from('0123456789'));
      const packet = await guest.expect(VSOCK.RW);
      assert.equal(packet.payload.toString(), '012');
      await bench.probe([bench.driver('rng')]);
      while (guest.waiting > 0) assert.notEqual((await guest.next()).op, VSOCK.RW);
    },
    { bufferSize: 3 },
  ),
  established('credit shrinks below what is on its way', async (guest, request, stream) => {
    stream.write(Buffer.alloc(1000, 'x'));
    await guest.expect(VSOCK.RW);
    await guest.packet(to(request, { op: VSOCK.CREDIT_UPDATE, bufferSize: 1, forwarded: 0 }));
    await guest.packet(
      to(request, { op: VSOCK.CREDIT_UPDATE, bufferSize: 0xffff_ffff, forwarded: 0xffff_ffff }),
    );
    await bench.probe([bench.driver('rng')]);
  }),
  established(
    'the guest sends more than it may, and the stream is not read',
    async (guest, request, stream) => {
      stream.pause();
      for (let i = 0; i < 40 && guest.waiting === 0; i++) {
        await guest.packet(to(request, { op: VSOCK.RW }), Buffer.alloc(16 << 10, 'x'));
      }
    },
  ),
  established('it is cut off in the middle: the host is told', async (guest, request, stream) => {
    const closed = new Promise((resolve) => stream.once('close', resolve));
    await guest.packet(to(request, { op: VSOCK.RW }), Buffer.from('some'));
    await guest.packet(to(request, { op: VSOCK.RST }));
    stream.resume();
    await closed;
  }),
  established(
    'the device is reset in the middle: the host is told',
    async (_guest, _request, stream, driver) => {
      const closed = new Promise((resolve) => stream.once('close', resolve));
      stream.write(Buffer.alloc(1 << 20));
      await driver.start();
      stream.resume();
      await closed;
    },
  ),
];

/** A guest connects to a port where the host takes lines. */
const lines = (
  name: string,
  run: (guest: VsockGuest, heard: string[]) => Promise<unknown>,
  ends: boolean,
): Case => ({
  name: `lines: ${name}`,
  verdict: served,
  async attack(driver) {
    const heard: string[] = [];
    let end: () => void = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const channel = bench.vsock.channel(8100, {
      maxLine: 1024,
      onLine: (line) => heard.push(line),
      onEnd: end,
    });
    const guest = new VsockGuest(driver);
    await guest.connect(8100);
    await run(guest, heard);
    if (!ends) channel.close();
    await driver.start();
    await ended;
  },
});

const channels: readonly Case[] = [
  lines(
    'one that never ends',
    async (guest) => {
      for (let i = 0; i < 4; i++) await guest.packet({ destinationPort: 8100 }, Buffer.alloc(500, 'x'));
    },
    true,
  ),
  lines(
    'a thousand empty ones',
    async (guest) => {
      await guest.packet({ destinationPort: 8100 }, Buffer.alloc(1000, '\n'));
    },
    true,
  ),
  lines(
    'bytes that are no text',
    async (guest) => {
      await guest.packet(
        { destinationPort: 8100 },
        Buffer.from([0xff, 0xfe, 0, 0x80, 0x0a, 0xed, 0xa0, 0x80, 0x0a]),
      );
    },
    true,
  ),
  lines('one that is cut off', (guest) => guest.packet({ destinationPort: 8100 }, Buffer.from('half')), true),
  lines(
    'the host has enough',
    (guest) => guest.packet({ destinationPort: 8100 }, Buffer.from('a\nb')),
    false,
  ),
];

attack(bench, 'vsock', [...connects, ...streams, ...channels]);
bench.end();
