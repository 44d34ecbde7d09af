/**
 * Measures devices: `node out/js/bench/devices.js BOOTS UNIT CONTENDER|all DEVICE...`, of which `memory` is what each device of tsvmm costs. Runs where the guests run, in
 * namespaces of its own, with a tmpfs at /dev/shm; progress is on standard error, the results (DeviceResults) are the
 * last line of standard output, as JSON.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { footprintOf, outputOf } from './command.js';
import { type DeviceContender, deviceContenders, idleMachines } from './device-contenders.js';
import { DEVICE_MEMORY_MIB, deviceInputs } from './device-inputs.js';
import {
  type DeviceFigure,
  type DeviceFootprint,
  type DeviceResults,
  type GuestLine,
  parseGuest,
} from './device-results.js';
import type { Beyond } from './footprint.js';
import { type Device, ENTRIES, HostSide, isDevice } from './host-side.js';
import { findInputs } from './inputs.js';
import type { Unit } from './results.js';
import { summarize } from './statistics.js';

/** Counted instructions repeat to a per cent, and counting is slow. */
const EFFORT: Readonly<Record<Unit, { batches: number; scale: number }>> = {
  nanoseconds: { batches: 5, scale: 100 },
  instructions: { batches: 3, scale: 20 },
};

const [boots = '', unit = '', only = '', ...words] = process.argv.slice(2);
/** Machines of which the memory is taken. */
const FOOTPRINTS = 5;

const { batches, scale } = EFFORT[unit as Unit];
const { initrd, peer } = deviceInputs();
const { bzImage, vmlinux } = await findInputs();
const scratch = mkdtempSync(join('/dev/shm', 'bench-'));
const host = new HostSide(scratch, peer);
const figures: DeviceFigure[] = [];
const footprints: DeviceFootprint[] = [];
const failures: { contender: string; device: string; why: string }[] = [];

/** One boot of the guest with the device. */
async function boot(contender: DeviceContender, device: Device): Promise<GuestLine[]> {
  try {
    await host.prepare(device, batches);
    const words = { TESTS: device, BATCHES: batches, SCALE: scale, ENTRIES };
    const append = Object.entries(words).map(([name, value]) => `BENCH_${name}=${value}`);
    return parseGuest(await outputOf(await contender.command(device, `quiet ${append.join(' ')}`)));
  } finally {
    await host.end();
  }
}

async function measure(contender: DeviceContender, device: Device): Promise<void> {
  const seen = new Map<string, GuestLine[]>();
  for (let count = 0; count < Number(boots); count++) {
    process.stderr.write(`bench: ${device}, ${contender.name}, boot ${count + 1}\n`);
    for (const line of await boot(contender, device)) {
      seen.set(line.test, [...(seen.get(line.test) ?? []), line]);
    }
  }
  for (const [test, lines] of seen) {
    const { min: least } = summarize(lines.map(({ least }) => least));
    const { median } = summarize(lines.map(({ median }) => median));
    figures.push({ test, contender: contender.name, least, median });
  }
}

async function footprint({ name, copies, command }: ReturnType<typeof idleMachines>[number]): Promise<void> {
  process.stderr.write(`bench: memory, ${name}\n`);
  const seen: Beyond[] = [];
  for (let count = 0; count < FOOTPRINTS; count++) {
    seen.push(await footprintOf(command, 'bench: end', DEVICE_MEMORY_MIB << 20));
    rmSync(host.vsock, { force: true }); // of a machine that was killed
  }
  const { median: resident } = summarize(seen.map(({ resident }) => resident));
  const { median: proportional } = summarize(seen.map(({ proportional }) => proportional));
  footprints.push({ name, copies, resident, proportional });
}

const kernel = { bzImage, vmlinux, initrd };
const contenders = deviceContenders(kernel, host, scratch);
for (const device of words.filter(isDevice)) {
  for (const contender of contenders) {
    if (only !== 'all' && contender.name.toLowerCase() !== only) continue;
    if (!contender.devices.includes(device)) continue;
    try {
      await measure(contender, device);
    } catch (error) {
      failures.push({ contender: contender.name, device, why: String(error) });
    }
  }
}
if (words.includes('memory')) {
  host.prepareIdle();
  for (const machine of idleMachines(kernel, host)) await footprint(machine);
}
const results: DeviceResults = { unit: unit as Unit, boots: Number(boots), figures, footprints, failures };
process.stdout.write(`${JSON.stringify(results)}\n`);
