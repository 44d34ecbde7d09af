/** One honest request a kind of device: what tells that it works. */

import type { Driver } from './driver.js';
import { fuse, fuseInit, fuseRequest, inHeader } from './fuse.js';
import type { Operation } from './interpreter.js';
import { VSOCK, vsockPacket } from './vsock.js';

export interface Probe {
  /** Asks and waits. */
  readonly operations: readonly Operation[];
  /** @throws Error if the answer is wrong */
  readonly check: () => void;
}

type Prober = (driver: Driver) => Probe;

function expect(what: string, good: boolean, seen: unknown): void {
  if (!good) throw new Error(`${what}: ${String(seen)}`);
}

/** What stands in sector n of the probes' disks. */
export function sector(n: number): Buffer {
  return Buffer.alloc(512, `sector ${n} `);
}

/** The header of a block request (virtio 1.2, 5.2.6). */
export function blkHeader(type: number, at: number | bigint): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(type, 0);
  header.writeBigUInt64LE(BigInt.asUintN(64, BigInt(at)), 8);
  return header;
}

const blk: Prober = (driver) => {
  const into = driver.prepare(0, [blkHeader(0, 1)], [512, 1]);
  const operations = [...driver.offer(0), driver.returned(0)];
  const n = driver.ring(0).available - 1;
  const check = (): void => {
    const { length, bytes } = driver.answer(0, into, n);
    expect('the disk’s answer', length === 513 && bytes[512] === 0, `length ${length}, status ${bytes[512]}`);
    expect('the disk’s content', bytes.subarray(0, 512).equals(sector(1)), bytes.toString('latin1', 0, 20));
  };
  return { operations, check };
};

const rng: Prober = (driver) => {
  const into = driver.prepare(0, [], [16]);
  const n = driver.ring(0).available - 1;
  const check = (): void => {
    const { length, bytes } = driver.answer(0, into, n);
    expect('random bytes', length === 16 && !bytes.equals(Buffer.alloc(16, 0xee)), bytes.toString('hex'));
  };
  return { operations: [...driver.offer(0), driver.returned(0)], check };
};

const REQUESTS = 1;
const fs: Prober = (driver) => {
  driver.prepare(REQUESTS, [fuseInit()], [16, 64], 0);
  const into = driver.prepare(
    REQUESTS,
    [fuseRequest(fuse.GETATTR, 1, Buffer.alloc(16), { unique: 77n })],
    [16, 104],
    4,
  );
  const n = driver.ring(REQUESTS).available - 1;
  const check = (): void => {
    const { length, bytes } = driver.answer(REQUESTS, into, n);
    expect('the share’s answer', length === 120 && bytes.readInt32LE(4) === 0, bytes.readInt32LE(4));
    expect('the answer’s request', bytes.readBigUInt64LE(8) === 77n, bytes.readBigUInt64LE(8));
  };
  expect('a request', inHeader === 40, inHeader);
  return { operations: [...driver.offer(REQUESTS), driver.returned(REQUESTS)], check };
};

/** A connection to a port where nobody listens is refused. */
const vsock: Prober = (driver) => {
  const into = driver.prepare(VSOCK.receive, [], [256], 8);
  const n = driver.ring(VSOCK.receive).available - 1;
  driver.prepare(
    VSOCK.transmit,
    [vsockPacket({ op: VSOCK.REQUEST, sourcePort: 5000, destinationPort: 6000 })],
    [],
    8,
  );
  const check = (): void => {
    const { bytes } = driver.answer(VSOCK.receive, into, n);
    expect('the refusal', bytes.readUInt16LE(30) === VSOCK.RST, bytes.toString('hex', 0, 44));
    expect('the refused port', bytes.readUInt32LE(20) === 5000, bytes.readUInt32LE(20));
  };
  const operations = [
    ...driver.offer(VSOCK.receive),
    ...driver.offer(VSOCK.transmit),
    driver.returned(VSOCK.receive),
  ];
  return { operations, check };
};

const console: Prober = (driver) => {
  driver.prepare(1, [Buffer.from('probe\n')], [], 8);
  return { operations: [...driver.offer(1), driver.returned(1)], check: () => {} };
};

/** A frame to whom it may concern. */
export function frame(length = 60): Buffer {
  const bytes = Buffer.alloc(length, 'f');
  bytes.fill(0xff, 0, Math.min(6, length));
  return bytes;
}

/** Bytes of virtio_net_hdr (virtio 1.2, 5.1.6). */
export const netHeader = 12;

const net: Prober = (driver) => {
  driver.prepare(1, [Buffer.concat([Buffer.alloc(netHeader), frame()])], [], 8);
  return { operations: [...driver.offer(1), driver.returned(1)], check: () => {} };
};

/** Pages that are taken out of the balloon. */
const balloon: Prober = (driver) => {
  driver.prepare(1, [Buffer.alloc(4)], [], 8);
  return { operations: [...driver.offer(1), driver.returned(1)], check: () => {} };
};

/** A device that gives back what it is sent. */
const script: Prober = (driver) => {
  const into = driver.prepare(0, [Buffer.from('ping')], [4], 8);
  const n = driver.ring(0).available - 1;
  const check = (): void => {
    const { length, bytes } = driver.answer(0, into, n);
    expect('the echo', length === 4 && bytes.toString() === 'ping', bytes.toString('latin1'));
  };
  return { operations: [...driver.offer(0), driver.returned(0)], check };
};

/** By the device's type (virtio 1.2, section 5); 42 is the one written in TypeScript. */
const PROBES: Readonly<Record<number, Prober>> = {
  1: net,
  2: blk,
  3: console,
  4: rng,
  5: balloon,
  19: vsock,
  26: fs,
  42: script,
};

export function probeOf(driver: Driver): Probe {
  const prober = PROBES[driver.device.description.deviceId];
  if (prober === undefined) throw new Error(`there is no probe for ${driver.device.name}`);
  return prober(driver);
}
