import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../../src/addon/index.js';
import { GuestMemory } from '../../../src/memory/guest-memory.js';
import { FEATURE_EVENT_INDEX, FEATURE_INDIRECT, QueueError, SplitQueue } from '../../../src/virtio/queue.js';

/** [address, length] */
type Buffer = readonly [string, number];
/** [address, length, flags, next] */
type Descriptor = readonly [string, number, string, number];
type Popped = string | readonly [number, readonly Buffer[], readonly Buffer[]];

/** What may stand in `steps` of test/vectors/queue.json, one of them a step. */
interface Step {
  readonly offer?: readonly number[];
  readonly availableIndex?: number;
  readonly availableFlags?: number;
  readonly usedEvent?: number;
  readonly pop?: Popped;
  readonly push?: readonly [number, number];
  readonly interrupt?: boolean;
  readonly disable?: null;
  readonly enable?: boolean;
  readonly used?: readonly (readonly [number, number])[];
  readonly usedFlags?: number;
  readonly availableEvent?: number;
  readonly state?: readonly [number, number];
}

interface Vector {
  readonly name: string;
  readonly size?: number;
  readonly rings?: readonly [string, string, string];
  readonly features?: readonly ('indirect' | 'eventIndex')[];
  readonly table?: Readonly<Record<string, Descriptor>>;
  readonly at?: Readonly<Record<string, readonly Descriptor[]>>;
  readonly state?: readonly [number, number];
  readonly configure?: string;
  readonly steps?: readonly Step[];
}

const MIB = 1 << 20;
const FLAGS: Readonly<Record<string, number>> = { N: 1, W: 2, I: 4 };
const FEATURES = { indirect: FEATURE_INDIRECT, eventIndex: FEATURE_EVENT_INDEX };

const path = join(packageRoot(), 'test/vectors/queue.json');
const { cases } = JSON.parse(readFileSync(path, 'utf8')) as { cases: Vector[] };

function play(t: Test, vector: Vector): void {
  const memory = new GuestMemory({
    regions: [
      { address: 0, size: MIB },
      { address: 4 * 2 ** 30, size: MIB },
    ],
    backing: 'anonymous',
  });
  t.teardown(() => memory.close());
  const { size = 8, rings = ['0x1000', '0x2000', '0x3000'], features = [] } = vector;
  const [descriptors, available, used] = rings.map(Number) as [number, number, number];
  const write16 = (address: number, value: number): void =>
    memory.write(address, new Uint8Array(Uint16Array.of(value).buffer));
  const view = (address: number, length: number): DataView => {
    const bytes = memory.read(address, length);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  };
  const writeDescriptor = (at: number, [address, length, letters, next]: Descriptor): void => {
    const entry = new DataView(new ArrayBuffer(16));
    entry.setBigUint64(0, BigInt(address), true);
    entry.setUint32(8, length, true);
    entry.setUint16(
      12,
      [...letters].reduce((flags, letter) => flags | (FLAGS[letter] ?? 0), 0),
      true,
    );
    entry.setUint16(14, next, true);
    memory.write(at, new Uint8Array(entry.buffer));
  };
  for (const [index, descriptor] of Object.entries(vector.table ?? {})) {
    writeDescriptor(descriptors + 16 * Number(index), descriptor);
  }
  for (const [address, table] of Object.entries(vector.at ?? {})) {
    for (const [index, descriptor] of table.entries()) {
      writeDescriptor(Number(address) + 16 * index, descriptor);
    }
  }

  const config = { size, ready: true, descriptors, available, used };
  const make = () =>
    new SplitQueue(
      memory,
      config,
      256,
      features.reduce((bits, name) => bits | FEATURES[name], 0n),
    );
  if (vector.configure !== undefined) {
    t.throws(make, { message: vector.configure });
    return;
  }
  const queue = make();
  let [availableIndex, usedSeen] = vector.state ?? [0, 0];
  if (vector.state) queue.state = { nextAvailable: availableIndex, nextUsed: usedSeen };
  const chains = new Map<number, ReturnType<SplitQueue['pop']>>();

  const buffers = (list: readonly { address: number; length: number }[]): Buffer[] =>
    list.map(({ address, length }) => [`0x${address.toString(16)}`, length]);
  const pop = (): Popped => {
    try {
      const chain = queue.pop();
      if (chain === undefined) return 'empty';
      chains.set(chain.head, chain);
      return [chain.head, buffers(chain.readable), buffers(chain.writable)];
    } catch (error) {
      if (error instanceof QueueError) return error.message;
      throw error;
    }
  };
  const takeUsed = (): [number, number][] => {
    const list: [number, number][] = [];
    for (; usedSeen !== view(used + 2, 2).getUint16(0, true); usedSeen = (usedSeen + 1) & 0xffff) {
      const element = view(used + 4 + 8 * (usedSeen % size), 8);
      list.push([element.getUint32(0, true), element.getUint32(4, true)]);
    }
    return list;
  };
  const offer = (head: number): void => {
    write16(available + 4 + 2 * (availableIndex % size), head);
    availableIndex = (availableIndex + 1) & 0xffff;
    write16(available + 2, availableIndex);
  };

  for (const step of vector.steps ?? []) {
    if (step.offer) step.offer.forEach(offer);
    else if (step.availableIndex !== undefined) {
      availableIndex = step.availableIndex;
      write16(available + 2, availableIndex);
    } else if (step.availableFlags !== undefined) write16(available, step.availableFlags);
    else if (step.usedEvent !== undefined) write16(available + 4 + 2 * size, step.usedEvent);
    else if (step.pop !== undefined) t.same(pop(), step.pop);
    else if (step.push) {
      const chain = chains.get(step.push[0]);
      if (chain === undefined) throw new Error('a chain that was not popped');
      chain.write(new Uint8Array(step.push[1]));
      queue.push(chain);
    } else if (step.interrupt !== undefined) t.equal(queue.needsInterrupt(), step.interrupt);
    else if (step.disable === null) queue.disableNotifications();
    else if (step.enable !== undefined) t.equal(queue.enableNotifications(), step.enable);
    else if (step.used) t.same(takeUsed(), step.used);
    else if (step.usedFlags !== undefined) t.equal(view(used, 2).getUint16(0, true), step.usedFlags);
    else if (step.availableEvent !== undefined) {
      t.equal(view(used + 4 + 8 * size, 2).getUint16(0, true), step.availableEvent);
    } else if (step.state) {
      t.same(queue.state, { nextAvailable: step.state[0], nextUsed: step.state[1] });
    } else throw new Error(`no such step: ${JSON.stringify(step)}`);
  }
}

for (const vector of cases) {
  t.test(vector.name, async (t) => {
    play(t, vector);
    t.pass('played');
  });
}
