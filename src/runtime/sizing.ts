import { availableParallelism, totalmem } from 'node:os';
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

export function thisHost(): Host {
  return { memory: totalmem(), cpus: availableParallelism() };
}

/**
 * The machine for a bundle. Memory: what was asked for on the command line, else `vm.hwConfig.memory`, else
 * `linux.resources.memory.limit` and GUEST_OVERHEAD, else DEFAULT_MEMORY. Processors: the command line's, else
 * `vm.hwConfig.vcpus`, else as many as `cpuset` and `quota` allow to run at once, else 1. What is derived from a
 * limit never exceeds the host; what is asked for outright and exceeds the host's memory is a UserError.
 */
export function machineSize(
  spec: Spec,
  asked: { readonly memory?: number | undefined; readonly cpus?: number | undefined } = {},
  host: Host = thisHost(),
): MachineSize {
  return { memory: memoryOf(spec, asked.memory, host), cpus: asked.cpus ?? cpusOf(spec, host) };
}

function memoryOf(spec: Spec, asked: number | undefined, host: Host): number {
  const outright = asked ?? spec.vm?.hwConfig?.memory;
  if (outright !== undefined) {
    const name = asked === undefined ? 'config.json: vm.hwConfig.memory' : '--memory';
    if (outright < MIN_MEMORY) {
      throw new UserError(
        `${name}: ${outright} bytes are too few for a container's machine, at least ${MIN_MEMORY}`,
      );
    }
    if (outright > host.memory) {
      throw new UserError(`${name}: ${outright} bytes are more than this host has, ${host.memory}`);
    }
    return Math.floor(outright / STEP) * STEP;
  }
  const limit = spec.linux?.resources?.memory?.limit ?? 0;
  if (limit <= 0) return Math.min(DEFAULT_MEMORY, roundDown(host.memory));
  const wanted = Math.ceil((limit + GUEST_OVERHEAD) / STEP) * STEP;
  return Math.min(wanted, roundDown(host.memory));
}

function roundDown(bytes: number): number {
  return Math.floor(bytes / STEP) * STEP;
}

function cpusOf(spec: Spec, host: Host): number {
  const asked = spec.vm?.hwConfig?.vcpus;
  if (asked !== undefined) return asked;
  const cpu = spec.linux?.resources?.cpu;
  const limits: number[] = [];
  if (cpu?.cpus !== undefined && cpu.cpus !== '') limits.push(countCpus(cpu.cpus));
  if (cpu?.quota !== undefined && cpu.quota > 0) limits.push(Math.ceil(cpu.quota / (cpu.period || 100_000)));
  return limits.length === 0 ? 1 : Math.max(1, Math.min(...limits, host.cpus));
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
