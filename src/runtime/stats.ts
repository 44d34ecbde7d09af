/**
 * A container's statistics: what the guest's agent tells (docs/agent-protocol.md, `container.stats`) in the shape of `runc events`, which
 * containerd's shim, docker and podman read.
 */

/** Of cgroup v2 where a limit is not set; Go's uint64 of it. */
const UNLIMITED = 2 ** 64;

/** For stringifyExactJson: how UNLIMITED is to be written. */
export const STATS_DIGITS: ReadonlyMap<number, string> = new Map([[UNLIMITED, '18446744073709551615']]);

export interface StatsEvent {
  readonly type: 'stats';
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Whatever is missing, or not a number, is 0: it is the guest that tells. */
export function statsEvent(id: string, raw: unknown): StatsEvent {
  const of = (value: unknown, name: string): unknown =>
    typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  const cpu = of(raw, 'cpu');
  const memory = of(raw, 'memory');
  const pids = of(raw, 'pids');
  const stat = numbers(of(memory, 'stat'));
  const usage = number(of(memory, 'usage'));
  const limit = limitOf(of(memory, 'limit'));
  const swapLimit = limitOf(of(memory, 'swapLimit'));
  return {
    type: 'stats',
    id,
    data: {
      cpu: {
        usage: {
          total: number(of(cpu, 'usageNs')),
          kernel: number(of(cpu, 'systemNs')),
          user: number(of(cpu, 'userNs')),
        },
        throttling: {
          periods: number(of(cpu, 'periods')),
          throttledPeriods: number(of(cpu, 'throttledPeriods')),
          throttledTime: number(of(cpu, 'throttledNs')),
        },
      },
      cpuset: CPUSET,
      memory: {
        cache: stat.file ?? 0,
        usage: { limit, usage, max: number(of(memory, 'max')), failcnt: number(of(memory, 'failcnt')) },
        // As runc tells it: memory and swap together.
        swap: {
          limit: limit === UNLIMITED || swapLimit === UNLIMITED ? UNLIMITED : limit + swapLimit,
          usage: usage + number(of(memory, 'swapUsage')),
          failcnt: 0,
        },
        kernel: { limit: 0, failcnt: 0 },
        kernelTCP: { limit: 0, failcnt: 0 },
        raw: stat,
      },
      pids: { current: number(of(pids, 'current')), limit: number(of(pids, 'limit')) },
      blkio: blkio(of(raw, 'io')),
      hugetlb: hugetlb(of(raw, 'hugetlb')),
      intel_rdt: {},
      network_interfaces: null,
    },
  };
}

/** Of cgroup v1 only, but always there. */
const CPUSET = {
  cpu_exclusive: 0,
  mem_hardwall: 0,
  mem_exclusive: 0,
  memory_migrate: 0,
  memory_spread_page: 0,
  memory_spread_slab: 0,
  memory_pressure: 0,
  sched_load_balance: 0,
  sched_relax_domain_level: 0,
};

function number(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

function limitOf(value: unknown): number {
  return value === undefined || value === null ? UNLIMITED : number(value);
}

function numbers(value: unknown): Record<string, number> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, number(item)]));
}

interface BlkioEntry {
  readonly major: number;
  readonly minor: number;
  readonly op: string;
  readonly value: number;
}

function blkio(value: unknown): Readonly<Record<string, readonly BlkioEntry[]>> {
  if (!Array.isArray(value) || value.length === 0) return {};
  const bytes: BlkioEntry[] = [];
  const operations: BlkioEntry[] = [];
  for (const device of value) {
    const { major, minor, readBytes, writeBytes, readOps, writeOps } = numbers(device);
    const entry = (op: string, count = 0): BlkioEntry => ({
      major: major ?? 0,
      minor: minor ?? 0,
      op,
      value: count,
    });
    bytes.push(entry('Read', readBytes), entry('Write', writeBytes));
    operations.push(entry('Read', readOps), entry('Write', writeOps));
  }
  return { ioServiceBytesRecursive: bytes, ioServicedRecursive: operations };
}

/** By the size of the pages: `2MB`. */
function hugetlb(value: unknown): Readonly<Record<string, object>> {
  if (!Array.isArray(value)) return {};
  const sizes = value.flatMap((item): [string, object][] => {
    const { usage = 0, failcnt = 0 } = numbers(item);
    const size: unknown = typeof item === 'object' && item !== null ? Reflect.get(item, 'size') : undefined;
    return typeof size === 'string' && /^\d{1,4}[KMG]B$/.test(size) ? [[size, { usage, failcnt }]] : [];
  });
  return Object.fromEntries(sizes);
}
