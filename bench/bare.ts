/**
 * Benchmarks of the exit and the data path with bare-metal guests, on any /dev/kvm: `node out/js/bench/bare.js [PATTERN]`. Progress
 * is on standard error, the results (MicroResult[]) are the last line of standard output, as JSON.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeBlk } from '../src/virtio/blk/index.js';
import { describeRng } from '../src/virtio/rng/index.js';
import { describeScriptDevice, type ScriptVirtioDevice } from '../src/virtio/script-device.js';
import { type BareOptions, type Part, requests, runBare, SCRIPT_ADDRESS, SCRIPT_PORT } from './bare-guest.js';
import type { MicroResult } from './results.js';
import { summarize } from './statistics.js';

const SAMPLES = 9;
const DISK = 4 << 20;
/** Enough for the device's notifications to have become an ioeventfd. */
const WARM_UP = 300;

const pattern = process.argv[2] ?? '';
const folder = mkdtempSync(join(tmpdir(), 'tsvmm-bench-'));
const disk = join(folder, 'disk.img');
const results: MicroResult[] = [];

/** `perRound`: operations of one turn of the body. */
async function measure(name: string, options: BareOptions, perRound = 1): Promise<void> {
  if (!name.includes(pattern)) return;
  process.stderr.write(`bench: ${name}\n`);
  const times: number[] = [];
  for (let sample = 0; sample < SAMPLES; sample++) times.push((await runBare(options)) / perRound);
  const { median } = summarize(times);
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  const deviation = Math.sqrt(times.reduce((sum, time) => sum + (time - mean) ** 2, 0) / (times.length - 1));
  // Student's t for 8 degrees of freedom.
  results.push({
    name,
    median,
    mean,
    margin: (2.306 * deviation) / Math.sqrt(times.length),
    samples: SAMPLES,
  });
}

const exits = { warmUp: WARM_UP, count: 3000 };
await measure('exit: in from a port, C++', { body: 'mov $0x3fd, %edx\n in (%dx), %al', ...exits });
await measure('exit: in from a port, TypeScript', {
  body: `mov $${SCRIPT_PORT}, %edx\n in (%dx), %al`,
  ...exits,
});
const rng = {
  describe: () => describeRng({ name: 'rng' }),
  request: [64],
  depth: 1,
};
await measure('exit: read of a register (MMIO), C++', {
  body: 'mov 0x60(%rbx), %eax',
  device: rng,
  ...exits,
});
await measure('exit: read of a register (MMIO), TypeScript', {
  body: `mov $${SCRIPT_ADDRESS}, %eax\n mov (%rax), %eax`,
  ...exits,
});

/** Fills what it is given, as the entropy source does, but in TypeScript. */
const script: ScriptVirtioDevice = {
  name: 'script',
  deviceId: 42,
  queueSizes: [64],
  serve(chain) {
    chain.write(new Uint8Array(64));
  },
};
const path = { warmUp: WARM_UP, count: 2000 };
await measure('request: rng, 64 bytes, C++', { body: requests(1), device: rng, ...path });
await measure('request: 64 bytes, a device in TypeScript', {
  body: requests(1),
  device: { describe: (memory) => describeScriptDevice(script, memory), request: [64], depth: 1 },
  ...path,
});

/** A header of virtio-blk (virtio 1.2, 5.2.6): type, reserved, sector. */
function header(type: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes[0] = type;
  bytes[8] = 64;
  return bytes;
}

async function measureDisk(name: string, request: readonly Part[], depth: number): Promise<void> {
  writeFileSync(disk, new Uint8Array(DISK).fill(0x5a));
  const open: { close(): void }[] = [];
  const describe: NonNullable<BareOptions['device']>['describe'] = () => {
    const blk = describeBlk({ name: 'blk0', path: disk });
    open.push(blk);
    return blk.description;
  };
  const device = { describe, request, depth };
  const close = (): void => {
    for (const blk of open.splice(0)) blk.close();
  };
  await measure(name, { body: requests(depth), device, afterwards: close, ...path }, depth);
}

try {
  await measureDisk('request: blk, read 4 KiB, one at a time', [header(0), 4096, 1], 1);
  await measureDisk('request: blk, read 4 KiB, 16 at a time', [header(0), 4096, 1], 16);
  await measureDisk('request: blk, write 4 KiB, one at a time', [header(1), new Uint8Array(4096), 1], 1);
  await measureDisk('request: blk, read 1 MiB', [header(0), 1 << 20, 1], 1);
} finally {
  rmSync(folder, { recursive: true });
}
process.stdout.write(`${JSON.stringify(results)}\n`);
