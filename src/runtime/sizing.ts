import { availableParallelism, totalmem } from 'node:os';
import type { Settings } from './config/settings.js';
import { UserError } from './errors.js';
import type { Spec } from './spec/types.js';

/** How large a container's machine is. */
export interface MachineSize {
  /** Bytes, a multiple of 2 MiB. */
  readonly memory: number;
  readonly cpus: number;
}

export interface Host {
  /** Bytes of memory of this host. */
  readonly memory: number;
  /** Processors that this process may use. */
  readonly cpus: number;
}

const MIB = 1 << 20;
/** What a machine has where the bundle sets no limit. */
export const DEFAULT_MEMORY = 256 * MIB;
/** Added to the container's limit: the guest's kernel, its page tables, the agent, the runtime. */
export const GUEST_OVERHEAD = 64 * MIB;
/** Below this the guest does not come up. */
export const MIN_MEMORY = 64 * MIB;
const STEP = 2 * MIB;
const MAX_VCPUS = 254;

export function thisHost(): Host {
  return { memory: totalmem(), cpus: availableParallelism() };
}

/** What settings say of a machine's size. */
export type SizeSettings = Pick<
  Settings,
  'memory' | 'defaultMemory' | 'memoryOverhead' | 'vcpus' | 'defaultVcpus'
>;

/**
 * The machine for a bundle. Memory: what was asked for outright, else `linux.resources.memory.limit` and the overhead, else the
 * default. Processors: those asked for outright, else as many as `cpuset` and `quota` allow to run at once, else the default.
 * What is derived from a limit or is a default never exceeds the host; what is asked for outright and exceeds the host's memory is a UserError.
 */
export function sizeMachine(spec: Spec, settings: SizeSettings, host: Host = thisHost()): MachineSize {
  return { memory: memoryOf(spec, settings, host), cpus: cpusOf(spec, settings, host) };
}

function memoryOf(spec: Spec, settings: SizeSettings, host: Host): number {
  const { memory: outright, memoryOverhead } = settings;
  const limit = spec.linux?.resources?.memory?.limit ?? 0;
  const forLimit =
    limit <= 0
      ? undefined
      : Math.min(Math.ceil((limit + memoryOverhead) / STEP) * STEP, roundDown(host.memory));
  if (outright !== undefined && !(outright.least === true && (forLimit ?? 0) > outright.value)) {
    const { value, from } = outright;
    if (value < MIN_MEMORY) {
      throw new UserError(
        `${from}: ${value} bytes are too few for a container's machine, at least ${MIN_MEMORY}`,
      );
    }
    if (value > host.memory) {
      throw new UserError(`${from}: ${value} bytes are more than this host has, ${host.memory}`);
    }
    return roundDown(value);
  }
  return forLimit ?? roundDown(Math.min(settings.defaultMemory.value, host.memory));
}

function roundDown(bytes: number): number {
  return Math.floor(bytes / STEP) * STEP;
}

function cpusOf(spec: Spec, settings: SizeSettings, host: Host): number {
  const { vcpus: outright } = settings;
  const cpu = spec.linux?.resources?.cpu;
  const limits: number[] = [];
  if (cpu?.cpus !== undefined && cpu.cpus !== '') limits.push(countCpus(cpu.cpus));
  if (cpu?.quota !== undefined && cpu.quota > 0) limits.push(Math.ceil(cpu.quota / (cpu.period || 100_000)));
  const forLimits = limits.length === 0 ? undefined : Math.max(1, Math.min(...limits, host.cpus));
  if (outright !== undefined && !(outright.least === true && (forLimits ?? 0) > outright.value)) {
    if (outright.value > MAX_VCPUS) {
      throw new UserError(`${outright.from}: ${outright.value} vCPUs are too many, at most ${MAX_VCPUS}`);
    }
    return outright.value;
  }
  return forLimits ?? settings.defaultVcpus.value;
}

/** How many processors a list like "0-3,7" names. Throws a UserError where a range ends before it begins. */
export function countCpus(list: string): number {
  let count = 0;
  for (const part of list.split(',')) {
    const [first, last = first] = part.split('-').map(Number);
    if (first === undefined || last === undefined || last < first) {
      throw new UserError(`config.json: linux.resources.cpu.cpus: ${JSON.stringify(part)} is not a range`);
    }
    count += last - first + 1;
  }
  return count;
}
