import t, { type Test } from 'tap';
import { GuestMemory } from '../../../src/memory/guest-memory.js';
import { type Chain, FEATURE_EVENT_INDEX, FEATURE_INDIRECT, SplitQueue } from '../../../src/virtio/queue.js';

// What a virtqueue does, said as simply as can be, beside SplitQueue; native/test/queue_property_test.cc does
// the same with its twin.

const RAM = 1 << 20;
const AREA = 0x20000;

/** mulberry32: the same numbers each time. */
function randomFrom(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

class Play {
  readonly #memory = new GuestMemory({ regions: [{ address: 0, size: RAM }], backing: 'anonymous' });
  readonly #queue: SplitQueue;
  readonly #rings = { descriptors: 0x1000, available: 0x4000, used: 0x6000 };
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  #availableIndex: number;
  // The model.
  readonly #waiting: { head: number; buffers: Buffer[] }[] = [];
  readonly #popped = new Map<number, Chain>();
  readonly #used: [number, number][] = [];
  #usedIndex: number;
  #signalled: number;
  #seen: number;
  #event = 0;
  #suppressed = false;
  readonly #free: number[];
  readonly #taken = new Map<number, number[]>();

  constructor(
    private readonly t: Test,
    private readonly below: (limit: number) => number,
    private readonly size: number,
    features: bigint,
  ) {
    t.teardown(() => this.#memory.close());
    this.#queue = new SplitQueue(this.#memory, { size, ready: true, ...this.#rings }, size, features);
    this.#eventIndex = (features & FEATURE_EVENT_INDEX) !== 0n;
    this.#indirect = (features & FEATURE_INDIRECT) !== 0n;
    const start = below(0x10000);
    this.#queue.state = { nextAvailable: start, nextUsed: start };
    this.#write16(this.#rings.available + 2, start);
    this.#write16(this.#rings.used + 2, start);
    this.#availableIndex = this.#usedIndex = this.#signalled = this.#seen = start;
    this.#free = Array.from({ length: size }, (_, index) => index);
  }

  step(): void {
    const what = this.below(8);
    if (what < 2) this.#offer();
    else if (what < 4) this.#pop();
    else if (what < 6) this.#push();
    else if (what === 6) this.#interrupt();
    else this.#ask();
  }

  /** The driver sees just what the model has used. */
  drain(): void {
    while (this.#seen !== this.#read16(this.#rings.used + 2)) {
      const at = this.#rings.used + 4 + 8 * (this.#seen % this.size);
      const bytes = this.#memory.read(at, 8);
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      const head = view.getUint32(0, true);
      this.#same([head, view.getUint32(4, true)], this.#used.shift());
      this.#free.push(...(this.#taken.get(head) ?? []));
      this.#seen = (this.#seen + 1) & 0xffff;
    }
    this.#same(this.#used, []);
  }

  /** A pass of tap costs more than the whole step. */
  #same(found: unknown, wanted: unknown): void {
    if (JSON.stringify(found) !== JSON.stringify(wanted)) this.t.same(found, wanted);
  }

  #write16(address: number, value: number): void {
    this.#memory.write(address, Uint8Array.of(value & 0xff, value >> 8));
  }

  #read16(address: number): number {
    const [low = 0, high = 0] = this.#memory.read(address, 2);
    return low | (high << 8);
  }

  #descriptor(at: number, { address, length, writable }: Buffer, flags: number, next: number): void {
    const entry = new DataView(new ArrayBuffer(16));
    entry.setUint32(0, address, true);
    entry.setUint32(8, length, true);
    entry.setUint16(12, flags | (writable ? 2 : 0), true);
    entry.setUint16(14, next, true);
    this.#memory.write(at, new Uint8Array(entry.buffer));
  }

  #offer(): void {
    this.drain();
    const { below } = this;
    if (this.#free.length === 0) return;
    const indirect = this.#indirect && below(2) === 0;
    const count = 1 + below(indirect ? 6 : Math.min(this.#free.length, 4));
    const readable = below(count + 1);
    const buffers = Array.from({ length: count }, (_, i) => ({
      address: AREA + below(RAM - AREA - 3001),
      length: below(4) === 0 ? 0 : 1 + below(3000),
      writable: i >= readable,
    }));
    for (const { address, length, writable } of buffers) {
      if (!writable) this.#memory.write(address, new Uint8Array(length).fill(below(256)));
    }
    const indexes = this.#free.splice(0, indirect ? 1 : count);
    const [head = 0] = indexes;
    const { descriptors, available } = this.#rings;
    if (indirect) {
      const table = 0x8000 + head * 128;
      buffers.forEach((buffer, i) => {
        this.#descriptor(table + 16 * i, buffer, i + 1 < count ? 1 : 0, i + 1);
      });
      const whole = { address: table, length: 16 * count, writable: false };
      this.#descriptor(descriptors + 16 * head, whole, 4, 0);
    } else {
      buffers.forEach((buffer, i) => {
        const next = indexes[i + 1];
        this.#descriptor(descriptors + 16 * (indexes[i] ?? 0), buffer, next === undefined ? 0 : 1, next ?? 0);
      });
    }
    this.#taken.set(head, indexes);
    this.#write16(available + 4 + 2 * (this.#availableIndex % this.size), head);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    this.#write16(available + 2, this.#availableIndex);
    this.#waiting.push({ head, buffers });
  }

  #pop(): void {
    const chain = this.#queue.pop();
    const expected = this.#waiting.shift();
    this.#same(chain?.head, expected?.head);
    if (chain === undefined || expected === undefined) return;
    const sizeOf = (writable: boolean) =>
      expected.buffers.reduce((sum, buffer) => sum + (buffer.writable === writable ? buffer.length : 0), 0);
    this.#same(chain.readableSize, sizeOf(false));
    this.#same(chain.writableSize, sizeOf(true));
    const wanted = Buffer.concat(
      expected.buffers
        .filter(({ writable }) => !writable)
        .map(({ address, length }) => this.#memory.read(address, length)),
    );
    if (!wanted.equals(chain.read())) this.t.fail('a chain carries other bytes than the driver wrote');
    this.#popped.set(chain.head, chain);
  }

  #push(): void {
    const chains = [...this.#popped.values()];
    const chain = chains[this.below(Math.max(chains.length, 1))];
    if (chain === undefined) return;
    const length = this.below(chain.writableSize + 1);
    this.#same(chain.write(new Uint8Array(length).fill(0x77)), length);
    this.#queue.push(chain);
    this.#popped.delete(chain.head);
    this.#used.push([chain.head, length]);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
  }

  #interrupt(): void {
    let passed = false;
    for (; this.#signalled !== this.#usedIndex; this.#signalled = (this.#signalled + 1) & 0xffff) {
      passed ||= this.#eventIndex ? this.#signalled === this.#event : !this.#suppressed;
    }
    this.#same(this.#queue.needsInterrupt(), passed);
  }

  /** The driver says when it wants to be interrupted. */
  #ask(): void {
    if (this.#eventIndex) {
      this.#event = (this.#usedIndex + this.below(5) - 1) & 0xffff;
      this.#write16(this.#rings.available + 4 + 2 * this.size, this.#event);
    } else {
      this.#interrupt(); // the flag counts when the device looks
      this.#suppressed = this.below(2) === 0;
      this.#write16(this.#rings.available, this.#suppressed ? 1 : 0);
    }
    this.#same(this.#queue.enableNotifications(), this.#waiting.length > 0);
  }
}

for (const [index, size] of [1, 2, 8, 64, 256].entries()) {
  t.test(`a queue of ${size}: whatever a well-behaved driver does, it does as the model`, async (t) => {
    const both = FEATURE_INDIRECT | FEATURE_EVENT_INDEX;
    for (const [variant, features] of [0n, FEATURE_INDIRECT, FEATURE_EVENT_INDEX, both].entries()) {
      const play = new Play(t, randomFrom(index * 4 + variant + 1), size, features);
      for (let i = 0; i < 1500; i++) play.step();
      play.drain();
    }
    t.pass('played');
  });
}
