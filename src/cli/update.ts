import { readFileSync } from 'node:fs';
import { askSandbox } from '../runtime/control-client.js';
import { reasonOf, UserError } from '../runtime/errors.js';
import { cpuLimitOf, limitCgroups } from '../runtime/host-cgroup.js';
import { logWarning } from '../runtime/log.js';
import { ContainerStore } from '../runtime/state/store.js';
import { guestUpdate, parseResources, type ResourceUpdate } from '../runtime/update-resources.js';
import { parseArguments, parseSize, positional, UsageError } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm update [OPTIONS] ID

Changes the limits of a container that runs. A machine keeps the memory and the vCPUs that it was created with: a limit above
them is refused.

  --resources, -r FILE      limits as JSON, as in config.json's linux.resources; - is standard input. Other options are ignored
  --memory SIZE, --memory-reservation SIZE, --memory-swap SIZE
                            limits of memory, of memory and swap together; -1 is none
  --cpu-period N, --cpu-quota N, --cpu-burst N
                            microseconds; a quota of -1 is none
  --cpu-share N, --cpu-idle 0|1
                            its weight beside others of the machine
  --cpuset-cpus LIST, --cpuset-mems LIST
                            as many of the machine's processors; it has one memory node
  --pids-limit N            processes and threads; -1 is no limit
  --blkio-weight N          10 to 1000
  --cpu-rt-period N, --cpu-rt-runtime N, --kernel-memory SIZE, --kernel-memory-tcp SIZE
                            taken for compatibility; cgroup v2, which the guest has, doesn't know them
  --l3-cache-schema TEXT, --mem-bw-schema TEXT
                            refused: the host's caches cannot be divided from within a machine`;

const OPTIONS = {
  resources: 'value',
  memory: 'value',
  'memory-reservation': 'value',
  'memory-swap': 'value',
  'cpu-period': 'value',
  'cpu-quota': 'value',
  'cpu-burst': 'value',
  'cpu-share': 'value',
  'cpu-idle': 'value',
  'cpu-rt-period': 'value',
  'cpu-rt-runtime': 'value',
  'cpuset-cpus': 'value',
  'cpuset-mems': 'value',
  'kernel-memory': 'value',
  'kernel-memory-tcp': 'value',
  'pids-limit': 'value',
  'blkio-weight': 'value',
  'l3-cache-schema': 'value',
  'mem-bw-schema': 'value',
} as const;

type Options = { readonly [K in keyof typeof OPTIONS]?: string };

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, { r: 'resources' });
  const [id = ''] = positional('update', ['ID'], positionals);
  const store = new ContainerStore(root);
  const state = store.load(id);
  const { resources: file } = options;
  const { resources, digits } =
    file === undefined || file === '' ? fromOptions(options) : parseResources(readText(file), nameOf(file));
  if (state.status === 'stopped') throw new UserError('container not running');
  const { cpu } = resources;
  // Of quota and period the one that is not given stays as it is.
  if (cpu !== undefined && (cpu.quota === undefined) !== (cpu.period === undefined)) {
    resources.cpu = { ...cpuLimitOf(state.cgroups), ...cpu };
  }
  const update = guestUpdate(resources, state.machine, logWarning);
  askSandbox(store, id, 'update', { resources: update }, 0, digits);
  limitCgroups(state.cgroups, resources);
  return 0;
}

function nameOf(file: string): string {
  return file === '-' ? 'standard input' : file;
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new UserError(`${nameOf(file)}: ${reasonOf(error)}`);
  }
}

/** The update that options ask for. @throws UsageError */
export function fromOptions(options: Options): ResourceUpdate {
  for (const name of ['l3-cache-schema', 'mem-bw-schema'] as const) {
    if (options[name]) {
      throw new UsageError(
        `--${name}: the host's caches and memory bandwidth cannot be divided by a machine`,
      );
    }
  }
  for (const name of ['cpu-rt-period', 'cpu-rt-runtime', 'kernel-memory', 'kernel-memory-tcp'] as const) {
    if (options[name]) logWarning(`--${name} has no effect: cgroup v2, which the guest has, doesn't know it`);
  }
  const count = (name: keyof Options, least = 0): number | undefined => {
    const text = options[name];
    if (text === undefined || text === '') return undefined;
    const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= least) return value;
    throw new UsageError(`--${name}: expected a whole number, got ${JSON.stringify(text)}`);
  };
  const size = (name: keyof Options): number | undefined => {
    const text = options[name];
    if (text === undefined || text === '') return undefined;
    return text === '-1' ? -1 : parseSize(text, `--${name}`);
  };
  const limit = size('memory');
  const memory = defined({
    limit,
    reservation: size('memory-reservation'),
    // No limit of memory is none of swap, unless one is set.
    swap: size('memory-swap') ?? (limit === -1 ? -1 : undefined),
  });
  const cpu = defined({
    shares: count('cpu-share'),
    quota: count('cpu-quota', -1),
    period: count('cpu-period'),
    burst: count('cpu-burst'),
    idle: count('cpu-idle'),
    cpus: options['cpuset-cpus'] || undefined,
    mems: options['cpuset-mems'] || undefined,
  });
  const pids = count('pids-limit', -1);
  const weight = count('blkio-weight');
  if (weight !== undefined && weight !== 0 && (weight < 10 || weight > 1000)) {
    throw new UsageError(`--blkio-weight: expected 10 to 1000, got ${weight}`);
  }
  return {
    resources: {
      ...(memory === undefined ? {} : { memory }),
      ...(cpu === undefined ? {} : { cpu }),
      ...(pids === undefined || pids === 0 ? {} : { pids: { limit: pids } }),
      ...(weight === undefined || weight === 0 ? {} : { blockIO: { weight } }),
    },
    digits: new Map(),
  };
}

/** The members that are not undefined; undefined where there are none. */
function defined<T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } | undefined {
  const entries = Object.entries(members).filter(([, value]) => value !== undefined);
  return entries.length === 0
    ? undefined
    : (Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> });
}
