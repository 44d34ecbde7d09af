import { statSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkName } from '../options.js';

/**
 * What the guest may keep without asking the host again:
 * - `none`: nothing of names and attributes. File content is kept until the file is opened again, or its
 *   size or
 *   modification time is seen to have changed. For folders that others change all the time.
 * - `auto`: names and attributes for 1 second, content until size or modification time has changed.
 * - `always`: everything for 24 hours, absent names too. Right for a folder that nobody but this guest
 *   changes, such
 *   as a container's root file system; changes made on the host may stay unseen.
 */
export type FsCache = 'none' | 'auto' | 'always';

/** A folder or file of the host under a name of its own in the root of a share. */
export interface FsExport {
  /** The entry's name: 1 to 255 bytes without a slash, not `.` or `..`. */
  readonly name: string;
  /**
   * A folder, with all that is below it, or a file of any other kind. A symbolic link is followed. It is held
   * open: it stays the same file when its name is removed or replaced.
   */
  readonly path: string;
  /** Every change is refused with EROFS. False by default. */
  readonly readOnly?: boolean | undefined;
}

/**
 * A folder of the host, or several folders and files under names, shared with the guest by virtio-fs (virtio 1.2,
 * 5.11).
 */
export interface FsOptions {
  /** For messages and metrics: `rootfs`. */
  readonly name: string;
  /** What the guest mounts it by (`mount -t virtiofs TAG /mnt`): 1 to 36 bytes of UTF-8. */
  readonly tag: string;
  /** The folder. It is held open: renaming it later does not matter. Either this or `exports`. */
  readonly directory?: string | undefined;
  /**
   * 1 to 1,000 folders and files. The root that the guest mounts has one entry for each and cannot be changed; each
   * folder is a file system of its own to the guest, and nothing is renamed or linked from one to another (EXDEV).
   */
  readonly exports?: readonly FsExport[] | undefined;
  /** Every change is refused with EROFS, in every export. False by default. */
  readonly readOnly?: boolean | undefined;
  /** `auto` by default. */
  readonly cache?: FsCache | undefined;
  /**
   * The guest gathers small writes and sends them later, when a file is closed at the latest. Only with
   * `cache: 'always'`, because
   * the guest then decides about sizes and modification times. False by default.
   */
  readonly writeback?: boolean | undefined;
  /**
   * Who keeps file locks (fcntl and flock). `guest` (the default): the guest's kernel; they hold among
   * the guest's programs.
   * `host`: they are taken on the host's files, so that other machines and programs of the host see
   * them. A guest's
   * program that waits for such a lock cannot be interrupted, because Linux's virtio-fs sends no interrupts.
   */
  readonly locks?: 'guest' | 'host' | undefined;
  /** Access control lists are enforced in the guest and stored on the host; else refused. False by default. */
  readonly posixAcl?: boolean | undefined;
  /** Which users and groups of the host the guest's are; each is itself by default. Not with `posixAcl`. */
  readonly idMap?: FsIdMap | undefined;
}

/** As a line of /proc/PID/uid_map: `count` ids of the guest from `guest` on are the host's from `host` on. */
export interface FsIdRange {
  readonly guest: number;
  readonly host: number;
  readonly count: number;
}

/**
 * Means what a user namespace means (user_namespaces(7)). Files of owners that are not mapped show as 65534's; their owners and modes cannot be
 * changed (EPERM), they can be given to nobody who is not mapped (EINVAL), and who is not mapped creates nothing (EOVERFLOW).
 * Where the VMM may not act for a mapped owner, creating for it fails (EPERM): without rights, only its own user and group work.
 */
export interface FsIdMap {
  /** 1 to 340 ranges that don't meet, on neither side. */
  readonly uids: readonly FsIdRange[];
  readonly gids: readonly FsIdRange[];
}

const DEVICE_ID = 26;
const TAG_BYTES = 36;
const HIGH_PRIORITY_QUEUE_SIZE = 128;
// Linux keeps a request within the queue's size less 4 descriptors: 256 pages (1 MiB) and the headers must
// fit.
const REQUEST_QUEUE_SIZE = 512;
const MAX_EXPORTS = 1000;
const NAME_BYTES = 255;
const MAX_ID_RANGES = 340;
/** 2^32 - 1 means "no id". */
const ID_END = 0xffffffff;
const CACHES: readonly string[] = ['none', 'auto', 'always'];
const LOCKS: readonly string[] = ['guest', 'host'];

/**
 * Opens the folder or the exports and describes the device.
 *
 * @throws TypeError or RangeError for a bad option; Error, naming the path, if it is not there or not a
 * folder
 */
export function describeFs(options: FsOptions): VirtioDescription {
  const { name, tag, directory, exports, readOnly = false, cache = 'auto', writeback = false } = options;
  const { locks = 'guest', posixAcl = false, idMap } = options;
  checkName('share', name);
  const where = `share ${name}`;
  if (typeof tag !== 'string' || tag === '' || Buffer.byteLength(tag) > TAG_BYTES || tag.includes('\0')) {
    throw new RangeError(
      `${where}: tag: expected 1 to ${TAG_BYTES} bytes of UTF-8 without NUL, got ${JSON.stringify(tag)}`,
    );
  }
  if ((directory === undefined) === (exports === undefined)) {
    throw new TypeError(`${where}: expected either directory or exports`);
  }
  checkOneOf(`${where}: cache`, cache, CACHES);
  checkOneOf(`${where}: locks`, locks, LOCKS);
  if (writeback && cache !== 'always') {
    throw new RangeError(`${where}: writeback: only with cache 'always', which is '${cache}' here`);
  }
  if (idMap !== undefined) {
    if (posixAcl) throw new RangeError(`${where}: idMap: not with posixAcl, whose lists hold ids, too`);
    checkIdRanges(`${where}: idMap.uids`, idMap.uids);
    checkIdRanges(`${where}: idMap.gids`, idMap.gids);
  }
  if (exports !== undefined) checkExports(where, exports);
  else checkPath(`${where}: directory`, directory, true);
  return {
    name,
    deviceId: DEVICE_ID,
    features: 0n,
    queueSizes: [HIGH_PRIORITY_QUEUE_SIZE, REQUEST_QUEUE_SIZE],
    config: configSpace(tag),
    backend: addon().createVirtioFs({
      directory,
      exports: exports?.map((item) => ({ ...item, readOnly: readOnly || item.readOnly === true })),
      readOnly,
      cache,
      writeback,
      hostLocks: locks === 'host',
      posixAcl,
      uids: idMap?.uids,
      gids: idMap?.gids,
    }),
  };
}

function checkOneOf(where: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) {
    const list = allowed.map((word) => `'${word}'`).join(', ');
    throw new RangeError(`${where}: expected one of ${list}, got ${JSON.stringify(value)}`);
  }
}

function checkExports(where: string, exports: readonly FsExport[]): void {
  if (!Array.isArray(exports) || exports.length === 0 || exports.length > MAX_EXPORTS) {
    throw new RangeError(`${where}: exports: expected 1 to ${MAX_EXPORTS} of them`);
  }
  const names = new Set<string>();
  for (const [index, { name, path }] of exports.entries()) {
    const bytes = typeof name === 'string' ? Buffer.byteLength(name) : 0;
    if (bytes < 1 || bytes > NAME_BYTES || /[/\0]/.test(name) || name === '.' || name === '..') {
      throw new RangeError(
        `${where}: exports[${index}].name: expected 1 to ${NAME_BYTES} bytes without a slash, not . or .., got ${JSON.stringify(name)}`,
      );
    }
    if (names.has(name)) {
      throw new RangeError(`${where}: exports[${index}].name: ${JSON.stringify(name)} is used twice`);
    }
    names.add(name);
    checkPath(`${where}: exports[${index}].path`, path, false);
  }
}

function checkIdRanges(where: string, ranges: readonly FsIdRange[]): void {
  if (!Array.isArray(ranges) || ranges.length === 0 || ranges.length > MAX_ID_RANGES) {
    throw new RangeError(`${where}: expected 1 to ${MAX_ID_RANGES} ranges`);
  }
  for (const [index, range] of ranges.entries()) {
    for (const side of ['guest', 'host'] as const) {
      const { [side]: first, count } = range;
      const whole = Number.isInteger(first) && first >= 0 && Number.isInteger(count) && count > 0;
      if (!whole || first + count > ID_END) {
        throw new RangeError(
          `${where}[${index}]: expected ids from 0 to ${ID_END - 1}, got ${count} from ${side} ${first} on`,
        );
      }
      const meets = (other: FsIdRange) => first < other[side] + other.count && other[side] < first + count;
      const other = ranges.slice(0, index).findIndex(meets);
      if (other >= 0) throw new RangeError(`${where}[${index}]: meets [${other}] on the ${side}'s side`);
    }
  }
}

function checkPath(where: string, path: unknown, folder: boolean): void {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw new TypeError(
      `${where}: expected the path of a folder${folder ? '' : ' or file'}, got ${JSON.stringify(path)}`,
    );
  }
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    const reason = code === 'ENOENT' ? 'does not exist' : `cannot be reached (${code})`;
    throw new Error(`${where}: ${path} ${reason}`);
  }
  if (folder && !isFolder) throw new Error(`${where}: ${path} is not a folder`);
}

/** The configuration space (virtio 1.2, 5.11.4): the tag, padded with NULs, and the number of request queues. */
function configSpace(tag: string): Uint8Array {
  const config = new Uint8Array(TAG_BYTES + 4);
  config.set(Buffer.from(tag));
  new DataView(config.buffer).setUint32(TAG_BYTES, 1, true);
  return config;
}
