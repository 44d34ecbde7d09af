import { UserError } from './errors.js';
import { countCpus } from './sizing.js';
import { readExactJson, stringifyExactJson } from './spec/exact-json.js';
import { parseSpec } from './spec/load.js';
import type { Resources } from './spec/types.js';

/** Limits that are to change, and how their large numbers were written. */
export interface ResourceUpdate {
  readonly resources: Resources;
  readonly digits: ReadonlyMap<number, string>;
}

/**
 * Checks the text of `update --resources`: what the configuration has as `linux.resources`. Null is as if it were not there.
 * @param name stands for the text in messages
 * @throws UserError
 */
export function parseResources(text: string, name: string): ResourceUpdate {
  const parsed = readExactJson(text, name);
  // The configuration's own checks, on one that has nothing else in it.
  const config = {
    ociVersion: '1.0.0',
    root: { path: 'rootfs' },
    process: { cwd: '/', args: ['sh'] },
    linux: { resources: withoutNulls(parsed.value) },
  };
  const { spec, digits } = parseSpec(stringifyExactJson(config, parsed.digits), name);
  return { resources: spec.linux?.resources ?? {}, digits };
}

function withoutNulls(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const kept = Object.entries(value).filter(([, item]) => item !== null);
  return Object.fromEntries(kept.map(([name, item]) => [name, withoutNulls(item)]));
}

/**
 * What of an update the machine's own limits let through, as the guest gets it.
 * @param machine the container's: bytes of memory, and vCPUs
 * @throws UserError where a limit is more than the machine has, or cannot be changed
 */
export function guestUpdate(
  { memory, cpu, blockIO, ...others }: Resources,
  machine: { readonly memory: number; readonly cpus: number },
  warn: (message: string) => void,
): Resources {
  const { devices: _devices, ...kept } = others;
  const updated: Resources = kept;
  if (memory !== undefined) updated.memory = checkMemory(memory, machine.memory);
  if (cpu !== undefined) updated.cpu = guestCpu(cpu, machine.cpus, warn);
  if (blockIO !== undefined) {
    for (const [name, value] of Object.entries(blockIO)) {
      if (name.endsWith('Device') && Array.isArray(value) && value.length > 0) {
        throw new UserError(`blockIO.${name}: names block devices of the host; a machine's are others`);
      }
    }
    updated.blockIO = blockIO;
  }
  return updated;
}

type Memory = NonNullable<Resources['memory']>;
type Cpu = NonNullable<Resources['cpu']>;

function checkMemory(memory: Memory, most: number): Memory {
  for (const name of ['limit', 'reservation'] as const) {
    const bytes = memory[name];
    if (typeof bytes !== 'number' || bytes <= most) continue;
    throw new UserError(
      `memory ${name}: ${bytes} bytes are more than the container's machine has, ${most}; a machine's size is fixed when it is created`,
    );
  }
  return memory;
}

/** As of a configuration, the host's processors are as many of the machine's. */
function guestCpu(cpu: Cpu, most: number, warn: (message: string) => void): Cpu {
  const { cpus, mems, ...kept } = cpu;
  const wanted = (what: string, count: number): void => {
    if (count <= most) return;
    throw new UserError(
      `${what}: ${count} processors are more than the container's machine has, ${most}; a machine's size is fixed when it is created`,
    );
  };
  if (cpu.quota !== undefined && cpu.quota > 0) {
    wanted('cpu quota', Math.ceil(cpu.quota / (cpu.period || 100_000)));
  }
  const updated: Cpu = kept;
  if (cpus !== undefined && cpus !== '') {
    const count = countCpus(cpus);
    wanted('cpuset', count);
    updated.cpus = count === 1 ? '0' : `0-${count - 1}`;
  }
  if (mems !== undefined && mems !== '' && mems !== '0') {
    warn(`cpu.mems ${mems} has no effect: a machine has one memory node`);
  }
  return updated;
}
