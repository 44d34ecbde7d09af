import type { GuestMemory } from '../memory/guest-memory.js';

/** Virtio 1.2, 2.7.5: the descriptor's flags. */
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** 2.7.6 and 2.7.8: the rings' flags. */
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

const DESCRIPTOR_SIZE = 16;
/** A chain may be as long as the queue is large (2.7.5.3.1); small queues with indirect tables get some room. */
const MIN_CHAIN_LIMIT = 1024;

export const FEATURE_INDIRECT = 1n << 28n;
export const FEATURE_EVENT_INDEX = 1n << 29n;
export const FEATURE_VERSION_1 = 1n << 32n;

/** What the driver told the transport about a queue. Addresses are guest physical. */
export interface QueueConfig {
  readonly size: number;
  readonly ready: boolean;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** How far the device has come in a queue: what a saved queue needs beyond its QueueConfig. Both modulo 2^16. */
export interface QueueState {
  readonly nextAvailable: number;
  readonly nextUsed: number;
}

/** The driver broke a rule; the device needs a reset. */
export class QueueError extends Error {
  override readonly name = 'QueueError';
}

interface Buffer {
  readonly address: number;
  readonly length: number;
}

/** One buffer as the driver queued it: what the device may read, then what it may write (virtio 1.2, 2.7.4.2). */
export class Chain {
  readonly readable: Buffer[] = [];
  readonly writable: Buffer[] = [];
  /** Bytes in all readable buffers. */
  readableSize = 0;
  /** Bytes in all writable buffers. */
  writableSize = 0;
  private readAt = 0;
  private writeAt = 0;

  constructor(
    private readonly memory: GuestMemory,
    readonly head: number,
  ) {}

  /** A copy of the next `length` readable bytes; all that are left by default. Shorter where the chain ends first. */
  read(length = this.readableSize - this.readAt): Uint8Array {
    const bytes = new Uint8Array(Math.min(length, this.readableSize - this.readAt));
    this.each(this.readable, this.readAt, bytes.length, (address, from, count) => {
      this.memory.readInto(address, bytes.subarray(from, from + count));
    });
    this.readAt += bytes.length;
    return bytes;
  }

  /** Copies to the next writable bytes as much as fits, and says how much. */
  write(bytes: Uint8Array): number {
    const length = Math.min(bytes.length, this.writableSize - this.writeAt);
    this.each(this.writable, this.writeAt, length, (address, from, count) => {
      this.memory.write(address, bytes.subarray(from, from + count));
    });
    this.writeAt += length;
    return length;
  }

  /** Bytes written so far: the used length. */
  get written(): number {
    return this.writeAt;
  }

  private each(
    buffers: readonly Buffer[],
    offset: number,
    length: number,
    move: (address: number, from: number, count: number) => void,
  ): void {
    let skip = offset;
    let done = 0;
    for (const buffer of buffers) {
      if (done === length) return;
      if (skip >= buffer.length) {
        skip -= buffer.length;
        continue;
      }
      const count = Math.min(buffer.length - skip, length - done);
      move(buffer.address + skip, done, count);
      skip = 0;
      done += count;
    }
  }
}

/**
 * The device's side of a split virtqueue (virtio 1.2, 2.7) for devices written in TypeScript: the twin of
 * native/virtio/queue.cc, with the same rules. A broken rule throws a {@link QueueError} and the queue yields nothing more.
 */
export class SplitQueue {
  private readonly descriptors: DataView;
  private readonly available: Uint16Array;
  private readonly used: DataView;
  private readonly usedIndexes: Uint16Array;
  private readonly eventIndex: boolean;
  private readonly indirect: boolean;
  private nextAvailable = 0;
  private nextUsed = 0;
  private signalledUsed = 0;
  private inFlight = 0;
  private broken: QueueError | undefined;

  /** @throws QueueError where size, alignment or place of the rings is wrong. */
  constructor(
    private readonly memory: GuestMemory,
    readonly config: QueueConfig,
    maxSize: number,
    features: bigint,
  ) {
    const { size } = config;
    if (size === 0 || size > maxSize || (size & (size - 1)) !== 0) {
      throw new QueueError("queue size is not a power of two within the device's limit");
    }
    if (config.descriptors % 16 !== 0 || config.available % 2 !== 0 || config.used % 4 !== 0) {
      throw new QueueError('ring is not aligned');
    }
    this.eventIndex = (features & FEATURE_EVENT_INDEX) !== 0n;
    this.indirect = (features & FEATURE_INDIRECT) !== 0n;
    const descriptors = this.ring(config.descriptors, size * DESCRIPTOR_SIZE);
    this.descriptors = new DataView(descriptors.buffer, descriptors.byteOffset, descriptors.length);
    const available = this.ring(config.available, 6 + size * 2);
    this.available = new Uint16Array(available.buffer, available.byteOffset, available.length / 2);
    const used = this.ring(config.used, 6 + size * 8);
    this.used = new DataView(used.buffer, used.byteOffset, used.length);
    this.usedIndexes = new Uint16Array(used.buffer, used.byteOffset, used.length / 2);
  }

  get size(): number {
    return this.config.size;
  }

  get state(): QueueState {
    return { nextAvailable: this.nextAvailable, nextUsed: this.nextUsed };
  }

  /** Goes on from where a queue with the same rings stood, with nothing in flight. */
  set state({ nextAvailable, nextUsed }: QueueState) {
    this.nextAvailable = nextAvailable & 0xffff;
    this.nextUsed = this.signalledUsed = nextUsed & 0xffff;
  }

  /** Takes the next available chain; undefined when there is none. @throws QueueError */
  pop(): Chain | undefined {
    if (this.broken !== undefined) throw this.broken;
    const count = (Atomics.load(this.available, 1) - this.nextAvailable) & 0xffff;
    if (count === 0) return undefined;
    if (count > this.size) this.fail("the available index is more than the queue's size ahead");
    if (this.inFlight >= this.size) this.fail('more chains are available than the queue has descriptors');
    const head = this.available[2 + (this.nextAvailable & (this.size - 1))] ?? 0;
    if (head >= this.size) this.fail("an available entry is not below the queue's size");
    const chain = new Chain(this.memory, head);
    this.walk(chain, this.descriptors, this.size, head, false);
    this.nextAvailable = (this.nextAvailable + 1) & 0xffff;
    this.inFlight++;
    return chain;
  }

  /** Returns a chain to the driver; each popped chain exactly once. */
  push(chain: Chain): void {
    if (this.inFlight === 0) throw new QueueError('a chain was returned that was not taken');
    this.inFlight--;
    const entry = 4 + (this.nextUsed & (this.size - 1)) * 8;
    this.used.setUint32(entry, chain.head, true);
    this.used.setUint32(entry + 4, chain.written, true);
    this.nextUsed = (this.nextUsed + 1) & 0xffff;
    Atomics.store(this.usedIndexes, 1, this.nextUsed);
  }

  /** Whether the driver wants an interrupt for what was pushed since the last call (2.7.7, 2.7.10). */
  needsInterrupt(): boolean {
    if (this.nextUsed === this.signalledUsed) return false;
    const before = this.signalledUsed;
    this.signalledUsed = this.nextUsed;
    if (!this.eventIndex) return (Atomics.load(this.available, 0) & NO_INTERRUPT) === 0;
    const event = Atomics.load(this.available, 2 + this.size);
    return ((this.nextUsed - event - 1) & 0xffff) < ((this.nextUsed - before) & 0xffff);
  }

  /** Tells the driver that it need not notify. */
  disableNotifications(): void {
    if (!this.eventIndex) Atomics.store(this.usedIndexes, 0, NO_NOTIFY);
  }

  /** Asks for a notification of the next buffer; true if one has come meanwhile: serve it first. */
  enableNotifications(): boolean {
    if (this.eventIndex) {
      Atomics.store(this.usedIndexes, 2 + this.size * 4, this.nextAvailable);
    } else {
      Atomics.store(this.usedIndexes, 0, 0);
    }
    return Atomics.load(this.available, 1) !== this.nextAvailable;
  }

  private ring(address: number, length: number): Uint8Array {
    try {
      return this.memory.unsafeView(address, length);
    } catch {
      throw new QueueError('ring is not inside RAM');
    }
  }

  private fail(reason: string): never {
    this.broken = new QueueError(reason);
    throw this.broken;
  }

  private walk(chain: Chain, table: DataView, count: number, first: number, inner: boolean): void {
    let index = first;
    // Each step visits one entry, so a chain longer than the table has a loop.
    for (let steps = 0; steps < count; steps++) {
      const at = index * DESCRIPTOR_SIZE;
      const address = table.getUint32(at, true) + table.getUint32(at + 4, true) * 2 ** 32;
      const length = table.getUint32(at + 8, true);
      const flags = table.getUint16(at + 12, true);
      const next = table.getUint16(at + 14, true);
      if ((flags & INDIRECT) !== 0) {
        if (inner || !this.indirect) {
          this.fail(inner ? 'an indirect table is nested' : 'an indirect descriptor was not negotiated');
        }
        this.walkIndirect(chain, address, length, flags);
        return;
      }
      this.append(chain, address, length, (flags & WRITE) !== 0);
      if ((flags & NEXT) === 0) return;
      if (next >= count) this.fail("a descriptor's successor is outside its table");
      index = next;
    }
    this.fail('a descriptor chain has a loop');
  }

  private walkIndirect(chain: Chain, address: number, length: number, flags: number): void {
    const entries = length / DESCRIPTOR_SIZE;
    if (
      !Number.isInteger(entries) ||
      entries === 0 ||
      entries > Math.max(this.size, MIN_CHAIN_LIMIT) ||
      (flags & NEXT) !== 0 ||
      !this.memory.contains(address, length)
    ) {
      this.fail('an indirect table is outside RAM, of a wrong length, or has a successor');
    }
    const table = this.memory.read(address, length);
    this.walk(chain, new DataView(table.buffer, table.byteOffset), entries, 0, true);
  }

  private append(chain: Chain, address: number, length: number, write: boolean): void {
    if (!write && chain.writable.length > 0) this.fail('a readable descriptor follows a writable one');
    if (length === 0) return;
    if (!this.memory.contains(address, length)) this.fail("a descriptor's buffer is not inside RAM");
    const total = (write ? chain.writableSize : chain.readableSize) + length;
    if (total > 0xffff_ffff) this.fail('a chain holds more than 4 GiB');
    if (write) {
      chain.writableSize = total;
      chain.writable.push({ address, length });
    } else {
      chain.readableSize = total;
      chain.readable.push({ address, length });
    }
  }
}
