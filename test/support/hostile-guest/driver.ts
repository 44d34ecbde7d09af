/**
 * The driver's side of one virtio-mmio device, with every rule open to be broken: rings are written by the test while the guest
 * sleeps, and the guest makes them available.
 */
import { FEATURE_INDIRECT, FEATURE_VERSION_1 } from '../../../src/virtio/queue.js';
import { type Operation, read, wait, waitNot, write } from './interpreter.js';
import type { Rig, RigDevice } from './rig.js';

/** Virtio 1.2, 4.2.2: offsets of the registers. */
export const reg = {
  magic: 0x00,
  version: 0x04,
  deviceId: 0x08,
  vendor: 0x0c,
  deviceFeatures: 0x10,
  deviceFeaturesSelect: 0x14,
  driverFeatures: 0x20,
  driverFeaturesSelect: 0x24,
  queueSelect: 0x30,
  queueSizeMax: 0x34,
  queueSize: 0x38,
  queueReady: 0x44,
  queueNotify: 0x50,
  interruptStatus: 0x60,
  interruptAck: 0x64,
  status: 0x70,
  descriptorsLow: 0x80,
  descriptorsHigh: 0x84,
  availableLow: 0x90,
  availableHigh: 0x94,
  usedLow: 0xa0,
  usedHigh: 0xa4,
  shmLengthLow: 0xb0,
  queueReset: 0xc0,
  generation: 0xfc,
  config: 0x100,
} as const;

/** 2.1: the bits of the status. */
export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const NEEDS_RESET = 64;
export const FAILED = 128;
/** What a device that works shows. */
export const LIVE = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/** 2.7.5: flags of a descriptor. */
export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

export const DEFAULT_FEATURES = FEATURE_VERSION_1 | FEATURE_INDIRECT;

const DEVICE_MEMORY = 0x100000;
const ARENA = 0x30000;
const RING_SIZE = 0x3000;
const QUEUE_SIZE = 16;

/** One entry of a descriptor table. */
export interface Descriptor {
  readonly address: number | bigint;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

export interface RingPlace {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** A queue in guest memory. */
export class Ring {
  /** What the driver has made available, as its index has it. */
  available = 0;

  constructor(
    private readonly rig: Rig,
    readonly index: number,
    public place: RingPlace,
  ) {}

  /** Zeros, as far as the ring lies in RAM. */
  clear(): void {
    const { size, descriptors, available, used } = this.place;
    this.available = 0;
    const parts = [
      [descriptors, size * 16],
      [available, 6 + size * 2],
      [used, 6 + size * 8],
    ] as const;
    for (const [at, length] of parts) {
      if (this.rig.memory.contains(at, length)) this.rig.memory.fill(at, length);
    }
  }

  describe(entry: number, descriptor: Descriptor): void {
    writeDescriptor(this.rig, this.place.descriptors + entry * 16, descriptor);
  }

  /** Writes a chain into the table from entry `first` on, each leading to the next. */
  chain(first: number, descriptors: readonly Descriptor[]): void {
    descriptors.forEach((descriptor, i) => {
      const last = i === descriptors.length - 1;
      this.describe(first + i, {
        ...descriptor,
        flags: (descriptor.flags ?? 0) | (last ? 0 : NEXT),
        next: descriptor.next ?? (last ? 0 : first + i + 1),
      });
    });
  }

  /** Puts heads into the available ring, and returns its new index, which goes there by {@link Driver.offer}. */
  put(...heads: number[]): number {
    const { memory } = this.rig;
    for (const head of heads) {
      memory.writeU16(this.place.available + 4 + (this.available % this.place.size) * 2, head);
      this.available = (this.available + 1) & 0xffff;
    }
    return this.available;
  }

  /** How many chains have come back, modulo 65536. */
  get usedIndex(): number {
    return this.rig.memory.readU16(this.place.used + 2);
  }

  /** What came back as number `n`. */
  usedEntry(n: number): { head: number; length: number } {
    const at = this.place.used + 4 + (n % this.place.size) * 8;
    return { head: this.rig.memory.readU32(at), length: this.rig.memory.readU32(at + 4) };
  }
}

export function writeDescriptor(rig: Rig, at: number, descriptor: Descriptor): void {
  rig.memory.writeU64(at, BigInt.asUintN(64, BigInt(descriptor.address)));
  rig.memory.writeU32(at + 8, descriptor.length);
  rig.memory.writeU16(at + 12, descriptor.flags ?? 0);
  rig.memory.writeU16(at + 14, descriptor.next ?? 0);
}

/** What a request came back with. */
export interface Answer {
  /** The used length: how many bytes the device says it has written. */
  readonly length: number;
  /** The whole writable part, one buffer after the other. */
  readonly bytes: Buffer;
}

export interface StartOptions {
  /** What the driver accepts: VERSION_1 and INDIRECT by default. */
  readonly features?: bigint;
  /** Places that differ from the usual ones, by queue; null: the queue is not made ready. */
  readonly rings?: Readonly<Record<number, Partial<RingPlace> | null>>;
}

export class Driver {
  readonly rings: Ring[] = [];
  readonly base: number;
  #arena = 0;

  constructor(
    readonly rig: Rig,
    readonly device: RigDevice,
  ) {
    this.base = device.base;
    this.#place({});
  }

  #place(rings: Readonly<Record<number, Partial<RingPlace> | null>>): void {
    const memory = DEVICE_MEMORY * (1 + this.device.index);
    this.rings.length = 0;
    this.device.description.queueSizes.forEach((maximum, index) => {
      const at = memory + index * RING_SIZE;
      const place = { descriptors: at, available: at + 0x1000, used: at + 0x2000 };
      this.rings.push(
        new Ring(this.rig, index, { size: Math.min(maximum, QUEUE_SIZE), ...place, ...rings[index] }),
      );
    });
    this.#arena = memory + ARENA;
  }

  /** Room in the device's own part of RAM until the next start(); filled with `bytes`, or with 0xee. */
  buffer(content: number | Uint8Array): number {
    const length = typeof content === 'number' ? content : content.length;
    const at = this.#arena;
    this.#arena += (length + 15) & ~15;
    if (this.#arena > DEVICE_MEMORY * (2 + this.device.index))
      throw new Error('no room for the case’s buffers');
    if (typeof content === 'number') this.rig.memory.fill(at, length, 0xee);
    else this.rig.memory.write(at, content);
    return at;
  }

  set(register: number, value: number): Operation {
    return write(4, this.base + register, value);
  }

  get(register: number): Operation {
    return read(4, this.base + register);
  }

  status(): Promise<number> {
    return this.rig.value(this.get(reg.status));
  }

  /** Reset as 2.4.2 has it: written, and read back as 0. */
  reset(): Operation[] {
    return [this.set(reg.status, 0), wait(4, this.base + reg.status, 0)];
  }

  acceptFeatures(features: bigint): Operation[] {
    return [0, 1].flatMap((word) => [
      this.set(reg.driverFeaturesSelect, word),
      this.set(reg.driverFeatures, Number((features >> BigInt(32 * word)) & 0xffff_ffffn)),
    ]);
  }

  setRing(index: number, { size, descriptors, available, used }: RingPlace, ready = 1): Operation[] {
    const low = (address: number): number => address % 2 ** 32;
    const high = (address: number): number => Math.floor(address / 2 ** 32);
    return [
      this.set(reg.queueSelect, index),
      this.set(reg.queueSize, size),
      this.set(reg.descriptorsLow, low(descriptors)),
      this.set(reg.descriptorsHigh, high(descriptors)),
      this.set(reg.availableLow, low(available)),
      this.set(reg.availableHigh, high(available)),
      this.set(reg.usedLow, low(used)),
      this.set(reg.usedHigh, high(used)),
      this.set(reg.queueReady, ready),
    ];
  }

  /** The driver's start (3.1.1) up to `until`, for a device that has been reset. */
  steps(options: StartOptions = {}, until: number = DRIVER_OK): Operation[] {
    const steps: Operation[] = [];
    if (until === 0) return steps;
    steps.push(this.set(reg.status, ACKNOWLEDGE));
    if (until === ACKNOWLEDGE) return steps;
    steps.push(this.set(reg.status, ACKNOWLEDGE | DRIVER));
    if (until === DRIVER) return steps;
    steps.push(...this.acceptFeatures(options.features ?? DEFAULT_FEATURES));
    steps.push(this.set(reg.status, ACKNOWLEDGE | DRIVER | FEATURES_OK));
    if (until === FEATURES_OK) return steps;
    for (const ring of this.rings) {
      if (options.rings?.[ring.index] !== null) steps.push(...this.setRing(ring.index, ring.place));
    }
    steps.push(this.set(reg.status, LIVE));
    return steps;
  }

  /** Resets the device and starts it up to `until`, its rings empty. Returns the status. */
  async start(options: StartOptions = {}, until: number = DRIVER_OK): Promise<number> {
    await this.rig.run(this.reset());
    this.#place(options.rings ?? {});
    for (const ring of this.rings) ring.clear();
    return this.rig.value(...this.steps(options, until), this.get(reg.status));
  }

  ring(queue: number): Ring {
    const ring = this.rings[queue];
    if (ring === undefined) throw new Error(`${this.device.name} has no queue ${queue}`);
    return ring;
  }

  /** Makes available what was put into the ring, or claims that `index` is available, and notifies. */
  offer(queue: number, index = this.ring(queue).available): Operation[] {
    return [write(2, this.ring(queue).place.available + 2, index), this.set(reg.queueNotify, queue)];
  }

  /** Waits until `count` chains have come back since the start, or the device is broken. */
  returned(queue: number, count = this.ring(queue).available): Operation {
    return wait(2, this.ring(queue).place.used + 2, count & 0xffff, this.#orBroken());
  }

  /** Waits until the device is broken. */
  broken(): Operation {
    return waitNot(4, this.base + reg.status, 0, { mask: NEEDS_RESET });
  }

  #orBroken(): { orAddress: number; orMask: number } {
    return { orAddress: this.base + reg.status, orMask: NEEDS_RESET };
  }

  /** Puts a chain of buffers, and says where its writable part is. */
  prepare(
    queue: number,
    readable: readonly Uint8Array[],
    writable: readonly number[],
    first = 0,
  ): readonly { readonly address: number; readonly length: number }[] {
    const into = writable.map((length) => ({ address: this.buffer(length), length }));
    const ring = this.ring(queue);
    const all = [
      ...readable.map((bytes) => ({ address: this.buffer(bytes), length: bytes.length })),
      ...into.map((each) => ({ ...each, flags: WRITE })),
    ];
    ring.chain(first, all.length > 0 ? all : [{ address: 0, length: 0 }]);
    ring.put(first);
    return into;
  }

  /** Sends one request and waits for it. @throws Error if the device is broken by it */
  async request(
    queue: number,
    readable: readonly Uint8Array[],
    writable: readonly number[],
    first = 0,
  ): Promise<Answer> {
    const into = this.prepare(queue, readable, writable, first);
    await this.run(...this.offer(queue), this.returned(queue));
    return this.answer(queue, into);
  }

  /** What came back last. */
  answer(
    queue: number,
    into: readonly { readonly address: number; readonly length: number }[],
    n = this.ring(queue).available - 1,
  ): Answer {
    const bytes = Buffer.concat(into.map(({ address, length }) => this.rig.memory.read(address, length)));
    return { length: this.ring(queue).usedEntry(n).length, bytes };
  }

  /** Runs operations; @throws Error if the device is broken by them, where a wait of theirs would see it */
  async run(...operations: Operation[]): Promise<void> {
    const results = await this.rig.run(operations);
    if (results.some(({ outcome }) => outcome === 'other')) {
      throw new Error(`${this.device.name} needs a reset: ${this.failure() ?? 'it does not say why'}`);
    }
  }

  /** Why the device has failed last, by its log. */
  failure(): string | undefined {
    return this.rig.events.findLast(({ type, device }) => type === 'failed' && device === this.device.name)
      ?.message;
  }
}
