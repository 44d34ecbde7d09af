import { realpathSync, type Stats, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { reasonOf, UserError } from './errors.js';
import { isGuestDevice } from './guest-devices.js';
import type { Mount } from './spec/types.js';

/** A folder or file of the host that the guest sees as an entry of the share of mounts. */
export interface MountExport {
  /** The entry's name: the index, in config.json, of the first mount that has it. */
  readonly name: string;
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** Whether every mount of it is read-only: then the host refuses changes, whatever the guest does. */
  readonly readOnly: boolean;
}

export interface GuestMounts {
  /** As the guest gets them: the source of what is shared is `mounts/NAME`, below the guest's bundle folder. */
  readonly mounts: Mount[];
  readonly exports: readonly MountExport[];
  /** Destinations that are files in the guest, as they stand in config.json; all others are folders. */
  readonly files: ReadonlySet<string>;
}

/** Where the guest has the exports, below its bundle folder (docs/agent-protocol.md). */
const GUEST_FOLDER = 'mounts';

/** File systems that a kernel makes by itself: what they show is the guest's. */
const KERNEL_FILE_SYSTEMS: ReadonlySet<string> = new Set([
  'binfmt_misc',
  'bpf',
  'cgroup',
  'cgroup2',
  'configfs',
  'debugfs',
  'devpts',
  'efivarfs',
  'fusectl',
  'hugetlbfs',
  'mqueue',
  'proc',
  'pstore',
  'ramfs',
  'securityfs',
  'sysfs',
  'tmpfs',
  'tracefs',
]);

/** What of the host's tree is the kernel's view of itself: in a machine the guest's takes its place. */
const KERNEL_PATHS = /^\/(proc|sys|dev\/pts|dev\/mqueue)(\/|$)|^\/dev$/;

/**
 * Sorts a bundle's mounts into what the guest mounts by itself and what of the host it shares with the guest.
 * @param directory the bundle's folder, to which relative sources are relative
 * @throws UserError that names the mount, where it cannot work or its source is not there
 */
export function guestMounts(mounts: readonly Mount[], directory: string, warnings: string[]): GuestMounts {
  const exports = new Map<string, { name: string; path: string; readOnly: boolean }>();
  const files = new Set<string>();
  const guest = mounts.map((mount, index) => {
    const field = `mounts[${index}]`;
    const { type = '', options = [], destination } = mount;
    const bind = options.includes('bind') || options.includes('rbind');
    if (type !== 'bind' && !bind) {
      checkKernelMount(mount, field);
      return mount;
    }
    // The type alone says nothing to the runtime in the guest.
    const own = bind ? mount : { ...mount, options: ['rbind', ...options] };
    const path = hostPath(mount, directory, field);
    if (KERNEL_PATHS.test(path)) return own;
    const stats = statSource(path, destination, field);
    if (!stats.isDirectory()) files.add(destination);
    if (isOwnDevice(path, stats, destination, field)) return own;
    checkMappings(mount, field);
    warnOfEndpoint(path, stats, field, warnings);
    const readOnly = isReadOnly(options);
    const real = realpathSync(path);
    // One export for the same folder, also with different rights: the guest is to see one file, not two with a cache each.
    const known = exports.get(real);
    const item = known ?? { name: String(index), path: real, readOnly };
    item.readOnly &&= readOnly;
    exports.set(real, item);
    return { ...own, source: `${GUEST_FOLDER}/${item.name}` };
  });
  return { mounts: guest, exports: [...exports.values()], files };
}

function refuse(field: string, why: string): never {
  throw new UserError(`config.json: ${field}: ${why}`);
}

function checkKernelMount({ type = '', destination }: Mount, field: string): void {
  if (KERNEL_FILE_SYSTEMS.has(type)) return;
  const what = type === '' ? 'no type and is no bind mount' : `type ${JSON.stringify(type)}`;
  refuse(
    field,
    `the mount on ${destination} has ${what}; a machine mounts ${[...KERNEL_FILE_SYSTEMS].join(', ')}`,
  );
}

function hostPath({ source, destination }: Mount, directory: string, field: string): string {
  if (source === undefined || source === '') refuse(field, `the bind mount on ${destination} has no source`);
  return resolve(directory, source);
}

function statSource(path: string, destination: string, field: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    return refuse(field, `the source of the bind mount on ${destination}: ${path}: ${reasonOf(error)}`);
  }
}

/** Whether the source is a device file of the host for which the guest has its own; one that it has not is refused. */
function isOwnDevice(path: string, stats: Stats, destination: string, field: string): boolean {
  if (!stats.isCharacterDevice() && !stats.isBlockDevice()) return false;
  const type = stats.isBlockDevice() ? 'b' : 'c';
  // As glibc's major() and minor() for the numbers that Linux has, of 12 and 20 bits.
  const major = (stats.rdev >> 8) & 0xfff;
  const minor = (stats.rdev & 0xff) | ((stats.rdev >> 12) & 0xfff00);
  if (!isGuestDevice(type, major, minor)) {
    refuse(
      field,
      `the bind mount on ${destination}: ${path} (${type} ${major}:${minor}) is a device of the host; a machine has none of them`,
    );
  }
  return path.startsWith('/dev/');
}

function checkMappings(
  { options = [], uidMappings = [], gidMappings = [], destination }: Mount,
  field: string,
): void {
  const mapped = options.find((option) => /^r?idmap(=|$)/.test(option));
  if (mapped !== undefined || uidMappings.length > 0 || gidMappings.length > 0) {
    refuse(
      field,
      `the bind mount on ${destination} maps user or group IDs; virtio-fs has no idmapped mounts`,
    );
  }
}

/** A file system carries the name of a socket or pipe; the other end is in another kernel. */
function warnOfEndpoint(path: string, stats: Stats, field: string, warnings: string[]): void {
  const what = stats.isSocket() ? 'socket' : stats.isFIFO() ? 'pipe' : undefined;
  if (what === undefined) return;
  warnings.push(
    `${field}: ${path} is a ${what} of the host; a machine sees it but cannot reach who is behind it`,
  );
}

function isReadOnly(options: readonly string[]): boolean {
  const last = options.filter((option) => /^r?(ro|rw)$/.test(option)).at(-1);
  return last === 'ro' || last === 'rro';
}
