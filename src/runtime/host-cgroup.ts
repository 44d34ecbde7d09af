import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf, UserError } from './errors.js';
import type { Resources } from './spec/types.js';

/**
 * The control groups of the host for a `linux.cgroupsPath`: one of the unified hierarchy, or one of each controller's. The container's
 * limits hold in its guest; here its machine is counted, and found by who looks for the group of the container's process.
 * @param path absolute, or systemd's `slice:prefix:name`, for which the scope's folder is taken as systemd would name it
 */
export function cgroupFolders(path: string): string[] {
  const below = path.includes(':') ? scopeOf(path) : path;
  // What leads out of the hierarchy is no group.
  const clean = below
    .split('/')
    .filter((name) => name !== '' && name !== '.' && name !== '..')
    .join('/');
  if (clean === '') return [];
  return hierarchies().map(({ mount }) => `${mount}/${clean}`);
}

/** Where a container without a `linux.cgroupsPath` is: a group of its own below this process's, of the unified hierarchy. */
export function ownCgroup(id: string): string {
  const line = readFileSync('/proc/self/cgroup', 'latin1')
    .split('\n')
    .find((text) => text.startsWith('0::'));
  return `${line?.slice(3) ?? ''}/${id}`;
}

/** The groups that this process is in, to go back to. */
export function currentCgroups(): string[] {
  const own = readFileSync('/proc/self/cgroup', 'latin1').split('\n');
  return own.flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined) return [];
    const mounts = hierarchies().filter(({ names }) =>
      controllers.split(',').every((name) => names.has(name)),
    );
    return mounts.map(({ mount }) => `${mount}${path}`);
  });
}

/** Puts a process back, so that a group that it leaves can be removed. */
export function returnToCgroups(folders: readonly string[], pid: number): void {
  for (const folder of folders) {
    try {
      writeFileSync(`${folder}/cgroup.procs`, String(pid));
    } catch {
      // It never left, or the group has gone.
    }
  }
}

/**
 * Makes the groups and puts a process into them. Returns those that it is in: without the rights to, none.
 * @throws UserError for a frozen group, in which the process would never go on
 */
export function enterCgroups(
  folders: readonly string[],
  pid: number,
  warn: (message: string) => void,
): string[] {
  return folders.filter((folder) => {
    if (read(`${folder}/cgroup.freeze`) === '1' || read(`${folder}/freezer.state`) === 'FROZEN') {
      throw new UserError(`container's cgroup unexpectedly frozen: ${folder}`);
    }
    const others = (read(`${folder}/cgroup.procs`) ?? '').split('\n').filter(Boolean).length;
    if (others > 0) warn(`container's cgroup is not empty: ${others} process(es) found in ${folder}`);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      enableControllers(folder);
      writeFileSync(`${folder}/cgroup.procs`, String(pid));
      return true;
    } catch {
      removeCgroup(folder);
      return false;
    }
  });
}

/** A file's text without the line's end; undefined where there is none to read. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').trimEnd();
  } catch {
    return undefined;
  }
}

/**
 * Limits the processors' time of the machine as a whole as the container's is limited: what the guest's kernel and the devices take is
 * its own too. Memory is not limited here, since the machine's is more than the container's, nor are processes, which are others.
 * What this process has not the right to limit is limited in the guest only.
 */
export function limitCgroups(folders: readonly string[], { cpu = {}, unified = {} }: Resources): void {
  const { quota, period, shares, cpus, mems } = cpu;
  const set = (path: string, value: string | number | undefined): void => {
    if (value === undefined || value === '' || !existsSync(path)) return;
    try {
      writeFileSync(path, String(value));
    } catch {
      // Not allowed, or more than the group above has.
    }
  };
  for (const folder of folders) {
    const [oldQuota = 'max', oldPeriod = '100000'] = (read(`${folder}/cpu.max`) ?? '').split(' ');
    const newQuota = quota === undefined || quota === 0 ? oldQuota : quota < 0 ? 'max' : quota;
    const max =
      quota === undefined && period === undefined ? undefined : `${newQuota} ${period || oldPeriod}`;
    set(`${folder}/cpu.max`, unified['cpu.max'] ?? max);
    set(`${folder}/cpu.weight`, unified['cpu.weight'] ?? (shares ? weightOf(shares) : undefined));
    set(`${folder}/cpuset.cpus`, unified['cpuset.cpus'] ?? cpus);
    set(`${folder}/cpuset.mems`, unified['cpuset.mems'] ?? mems);
    set(`${folder}/cpu.cfs_period_us`, period);
    set(`${folder}/cpu.cfs_quota_us`, quota);
    set(`${folder}/cpu.shares`, shares);
  }
}

/** The quota (-1: none) and the period, in microseconds, that the groups have; undefined where they tell nothing. */
export function cpuLimitOf(folders: readonly string[]): { quota: number; period: number } | undefined {
  for (const folder of folders) {
    const v1 = [read(`${folder}/cpu.cfs_quota_us`), read(`${folder}/cpu.cfs_period_us`)];
    const [quota, period] = read(`${folder}/cpu.max`)?.split(' ') ?? v1;
    if (quota === undefined || period === undefined) continue;
    return { quota: quota === 'max' ? -1 : Number(quota), period: Number(period) };
  }
  return undefined;
}

/** Shares of cgroup v1, 2 to 262144, as a weight of v2, 1 to 10000, as every runtime does it. */
function weightOf(shares: number): number {
  const clamped = Math.min(Math.max(shares, 2), 262_144);
  return 1 + Math.floor(((clamped - 2) * 9999) / 262_142);
}

/** Has the unified hierarchy count in a group what its readers look for; as far as we may. */
function enableControllers(folder: string): void {
  const parents: string[] = [];
  for (let above = dirname(folder); existsSync(`${above}/cgroup.subtree_control`); above = dirname(above)) {
    parents.unshift(above);
  }
  for (const parent of parents) {
    for (const controller of (read(`${parent}/cgroup.controllers`) ?? '').split(' ')) {
      try {
        writeFileSync(`${parent}/cgroup.subtree_control`, `+${controller}`);
      } catch {
        // The kernel has it not, or above it is not enabled: then it is not counted.
      }
    }
  }
}

/** Removes groups with those below them; idempotent. False where one still has processes. */
export function removeCgroups(folders: readonly string[]): boolean {
  return folders.map(removeCgroup).every((gone) => gone);
}

function removeCgroup(folder: string): boolean {
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) removeCgroup(`${folder}/${entry.name}`);
    }
    rmdirSync(folder);
  } catch (error) {
    // Gone, or in use by somebody who will remove it.
    const code = codeOf(error);
    if (code === undefined) throw error;
    return code !== 'EBUSY';
  }
  return true;
}

interface Hierarchy {
  readonly mount: string;
  /** Its controllers in cgroup v1; the unified hierarchy has the empty name, as in /proc/PID/cgroup. */
  readonly names: ReadonlySet<string>;
}

function hierarchies(): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, mount = '', type, options = ''] = line.split(' ');
    const names = options.split(',');
    if (type === 'cgroup2') found.push({ mount, names: new Set(['']) });
    else if (type === 'cgroup' && !names.some((name) => name.startsWith('name='))) {
      found.push({ mount, names: new Set(names) });
    }
  }
  return found;
}

/** `machine.slice:libpod:ID` is `/machine.slice/libpod-ID.scope` (systemd.slice(5): a dash in a slice's name is a level). */
function scopeOf(path: string): string {
  const [slice = '', prefix = '', name = ''] = path.split(':');
  const levels = (slice || 'system.slice').replace(/\.slice$/, '').split('-');
  const slices = levels.map((_, index) => `${levels.slice(0, index + 1).join('-')}.slice`);
  return `/${slices.join('/')}/${prefix === '' ? name : `${prefix}-${name}`}.scope`;
}
