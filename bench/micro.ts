/**
 * Micro-benchmarks, on any /dev/kvm: queue, exit, address check. Progress is on standard error, the results
 * (MicroResult[]) are the last line of standard output, as JSON.
 */
import Benchmark from 'benchmark';
import { GuestMemory } from '../src/memory/guest-memory.js';
import { FEATURE_INDIRECT, FEATURE_VERSION_1, SplitQueue } from '../src/virtio/queue.js';
import { MicroGuest } from '../test/support/micro-guest.js';
import type { MicroResult } from './results.js';
import { summarize } from './statistics.js';

const RAM = 16 << 20;
const QUEUE_SIZE = 256;
const DESCRIPTORS = 0x10000;
const AVAILABLE = 0x20000;
const USED = 0x30000;
const TABLES = 0x40000;
const BUFFERS = 0x100000;
/** Virtio 1.2, 2.7.5: flags of a descriptor. */
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

type Work = readonly [name: string, work: () => void];

/** A request as disks have it: a header and data to read, a status to write. */
function requestAt(memory: GuestMemory, table: number, first: number): void {
  const parts = [
    { length: 16, flags: NEXT },
    { length: 4096, flags: NEXT },
    { length: 1, flags: WRITE },
  ];
  parts.forEach(({ length, flags }, index) => {
    const at = table + (first + index) * 16;
    memory.writeU64(at, BigInt(BUFFERS + index * 4096));
    memory.writeU32(at + 8, length);
    memory.writeU16(at + 12, flags);
    memory.writeU16(at + 14, (flags & NEXT) === 0 ? 0 : first + index + 1);
  });
}

/** A queue whose driver makes the chain at `head` available, over and over. */
function queue(memory: GuestMemory, head: number): () => void {
  const config = {
    size: QUEUE_SIZE,
    ready: true,
    descriptors: DESCRIPTORS,
    available: AVAILABLE,
    used: USED,
  };
  memory.fill(AVAILABLE, 4 + QUEUE_SIZE * 2);
  for (let entry = 0; entry < QUEUE_SIZE; entry++) memory.writeU16(AVAILABLE + 4 + entry * 2, head);
  const view = memory.unsafeView(AVAILABLE, 4);
  const ring = new Uint16Array(view.buffer, view.byteOffset, 2);
  const split = new SplitQueue(memory, config, QUEUE_SIZE, FEATURE_INDIRECT | FEATURE_VERSION_1);
  let index = 0;
  return () => {
    index = (index + 1) & 0xffff;
    Atomics.store(ring, 1, index);
    const chain = split.pop();
    if (chain === undefined) throw new Error('the queue has lost a chain');
    split.push(chain);
  };
}

function queues(): Work[] {
  // Each has memory of its own: the rings lie at the same addresses.
  const make = (head: number, describe: (memory: GuestMemory) => void): (() => void) => {
    const memory = new GuestMemory({ regions: [{ address: 0, size: RAM }] });
    describe(memory);
    return queue(memory, head);
  };
  const direct = make(0, (memory) => requestAt(memory, DESCRIPTORS, 0));
  const indirect = make(8, (memory) => {
    requestAt(memory, TABLES, 0);
    memory.writeU64(DESCRIPTORS + 8 * 16, BigInt(TABLES));
    memory.writeU32(DESCRIPTORS + 8 * 16 + 8, 48);
    memory.writeU16(DESCRIPTORS + 8 * 16 + 12, INDIRECT);
  });
  return [
    ['queue: pop and push, chain of 3', direct],
    ['queue: the same, indirect table', indirect],
  ];
}

function addressChecks(): Work[] {
  const memory = new GuestMemory({
    regions: [
      { address: 0, size: RAM },
      { address: 2 ** 32, size: RAM },
    ],
  });
  const page = new Uint8Array(4096);
  return [
    ['address check: contains', () => void memory.contains(2 ** 32 + 0x1000, 4096)],
    ['address check: readU32', () => void memory.readU32(0x1000)],
    ['address check: readInto, 4 KiB', () => memory.readInto(2 ** 32 + 0x1000, page)],
  ];
}

function exits(): Work[] {
  const guest = new MicroGuest({ mode: 'real', code: '1: out %al, $0x80\njmp 1b' });
  guest.expect('io');
  return [['exit: out to a port, Vcpu.run()', () => void guest.run()]];
}

function measure([name, work]: Work): MicroResult {
  process.stderr.write(`bench: ${name}\n`);
  const benchmark = new Benchmark(name, work).run();
  if (benchmark.error !== undefined) throw benchmark.error;
  const { mean, moe, sample } = benchmark.stats;
  const { median } = summarize(sample);
  return { name, median: median * 1e9, mean: mean * 1e9, margin: moe * 1e9, samples: sample.length };
}

const results = [...queues(), ...addressChecks(), ...exits()].map(measure);
process.stdout.write(`${JSON.stringify(results)}\n`);
