/** Packets of the socket device (virtio 1.2, 5.10.6), and a driver's end of it. */
import { strict as assert } from 'node:assert';
import { type Driver, WRITE } from './driver.js';
import { waitNot } from './interpreter.js';

export const VSOCK = {
  receive: 0,
  transmit: 1,
  event: 2,
  REQUEST: 1,
  RESPONSE: 2,
  RST: 3,
  SHUTDOWN: 4,
  RW: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
  /** Bytes of a header. */
  header: 44,
  host: 2n,
  guest: 3n,
} as const;

/** A port of the host where the tests have an echo. */
export const ECHO = 7000;

export interface VsockHeader {
  readonly sourceCid?: bigint;
  readonly destinationCid?: bigint;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly length?: number;
  readonly type?: number;
  readonly op?: number;
  readonly flags?: number;
  readonly bufferSize?: number;
  readonly forwarded?: number;
}

/** A packet from the guest, honest but for what is given. */
export function vsockPacket(header: VsockHeader, payload: Uint8Array = new Uint8Array()): Buffer {
  const bytes = Buffer.alloc(VSOCK.header + payload.length);
  bytes.writeBigUInt64LE(header.sourceCid ?? VSOCK.guest, 0);
  bytes.writeBigUInt64LE(header.destinationCid ?? VSOCK.host, 8);
  bytes.writeUInt32LE(header.sourcePort ?? 1234, 16);
  bytes.writeUInt32LE(header.destinationPort ?? 1024, 20);
  bytes.writeUInt32LE(header.length ?? payload.length, 24);
  bytes.writeUInt16LE(header.type ?? 1, 28);
  bytes.writeUInt16LE(header.op ?? VSOCK.RW, 30);
  bytes.writeUInt32LE(header.flags ?? 0, 32);
  bytes.writeUInt32LE(header.bufferSize ?? 65536, 36);
  bytes.writeUInt32LE(header.forwarded ?? 0, 40);
  bytes.set(payload, VSOCK.header);
  return bytes;
}

/** A packet to the guest, as it stands in a receive buffer. */
export function vsockHeader(bytes: Buffer): Required<VsockHeader> {
  return {
    sourceCid: bytes.readBigUInt64LE(0),
    destinationCid: bytes.readBigUInt64LE(8),
    sourcePort: bytes.readUInt32LE(16),
    destinationPort: bytes.readUInt32LE(20),
    length: bytes.readUInt32LE(24),
    type: bytes.readUInt16LE(28),
    op: bytes.readUInt16LE(30),
    flags: bytes.readUInt32LE(32),
    bufferSize: bytes.readUInt32LE(36),
    forwarded: bytes.readUInt32LE(40),
  };
}

/** The driver's end of the device: buffers of `room` bytes to receive into, and packets sent one by one. */
export class VsockGuest {
  #seen = 0;
  readonly #buffers: number[] = [];

  constructor(
    private readonly driver: Driver,
    private readonly room = 512,
    count = 8,
  ) {
    const ring = driver.ring(VSOCK.receive);
    for (let i = 0; i < count; i++) {
      const address = driver.buffer(room);
      this.#buffers.push(address);
      ring.chain(i, [{ address, length: room, flags: WRITE }]);
      ring.put(i);
    }
  }

  /** Makes the buffers available. */
  offer(): Promise<void> {
    return this.driver.run(...this.driver.offer(VSOCK.receive));
  }

  /** Sends a packet, and waits until the device has taken it. */
  async packet(header: VsockHeader, payload?: Uint8Array): Promise<void> {
    const { driver } = this;
    driver.prepare(VSOCK.transmit, [vsockPacket(header, payload)], [], 0);
    await driver.run(
      ...driver.offer(VSOCK.receive),
      ...driver.offer(VSOCK.transmit),
      driver.returned(VSOCK.transmit),
    );
  }

  /** The next packet from the host; its buffer is made available again. */
  async next(): Promise<Required<VsockHeader> & { readonly payload: Buffer }> {
    const { driver } = this;
    const ring = driver.ring(VSOCK.receive);
    await driver.run(waitNot(2, ring.place.used + 2, this.#seen & 0xffff));
    const { head, length } = ring.usedEntry(this.#seen++);
    const bytes = Buffer.from(driver.rig.memory.read(this.#buffers[head] ?? 0, this.room));
    assert.ok(length >= VSOCK.header && length <= this.room, `used length ${length}`);
    ring.put(head);
    await driver.run(...driver.offer(VSOCK.receive));
    return { ...vsockHeader(bytes), payload: bytes.subarray(VSOCK.header, length) };
  }

  /** What has come, without waiting. */
  get waiting(): number {
    return (this.driver.ring(VSOCK.receive).usedIndex - this.#seen) & 0xffff;
  }

  async expect(
    op: number,
    of: Partial<VsockHeader> = {},
  ): Promise<Required<VsockHeader> & { payload: Buffer }> {
    const packet = await this.next();
    assert.equal(
      packet.op,
      op,
      `the operation, of ${JSON.stringify(packet, (_, v) => (typeof v === 'bigint' ? `${v}` : v))}`,
    );
    for (const [field, value] of Object.entries(of))
      assert.equal(packet[field as keyof VsockHeader], value, field);
    return packet;
  }

  async connect(port = ECHO, sourcePort = 1234, more: VsockHeader = {}): Promise<void> {
    await this.packet({ op: VSOCK.REQUEST, sourcePort, destinationPort: port, ...more });
    await this.expect(VSOCK.RESPONSE, { destinationPort: sourcePort, sourcePort: port });
  }

  /** The device refuses the connection; nothing of it is left. */
  async refused(sourcePort = 1234): Promise<void> {
    let packet = await this.next();
    while (packet.op !== VSOCK.RST) packet = await this.next();
    assert.equal(packet.destinationPort, sourcePort);
  }
}
