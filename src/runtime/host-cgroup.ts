import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf } from './errors.js';

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
  return hierarchies().map((mount) => `${mount}/${clean}`);
}

/** Makes the groups and puts a process into them. Returns those that it is in: without the rights to, none. */
export function enterCgroups(folders: readonly string[], pid: number): string[] {
  return folders.filter((folder) => {
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

/** Has the unified hierarchy count in a group what its readers look for; as far as we may. */
function enableControllers(folder: string): void {
  const parents: string[] = [];
  for (let above = dirname(folder); existsSync(`${above}/cgroup.subtree_control`); above = dirname(above)) {
    parents.unshift(above);
  }
  for (const parent of parents) {
    for (const controller of ['cpu', 'cpuset', 'io', 'memory', 'pids']) {
      try {
        writeFileSync(`${parent}/cgroup.subtree_control`, `+${controller}`);
      } catch {
        // The kernel has it not, or above it is not enabled: then it is not counted.
      }
    }
  }
}

/** Removes groups with those below them. What still has processes stays; idempotent. */
export function removeCgroups(folders: readonly string[]): void {
  for (const folder of folders) removeCgroup(folder);
}

function removeCgroup(folder: string): void {
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) removeCgroup(`${folder}/${entry.name}`);
    }
    rmdirSync(folder);
  } catch (error) {
    // Gone, or in use by somebody who will remove it.
    if (codeOf(error) === undefined) throw error;
  }
}

function hierarchies(): string[] {
  const found: string[] = [];
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, mount = '', type, options = ''] = line.split(' ');
    if (type === 'cgroup2') found.push(mount);
    else if (type === 'cgroup' && !options.split(',').some((option) => option.startsWith('name=')))
      found.push(mount);
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
