import { BootError } from './error.js';

/** A file of a cpio archive. Paths are relative, without `.` or `..` segments. */
export interface CpioEntry {
  readonly path: string;
  /** File type and permissions, as in struct stat: 0o100755 for a program. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  /** The content of a file, the target of a symbolic link (UTF-8), empty for the rest. */
  readonly data?: Uint8Array;
  /** Major and minor number of a device node. */
  readonly device?: readonly [major: number, minor: number];
}

export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

/** `newc`, without checksums (Documentation/driver-api/early-userspace/buffer-format.rst). */
const MAGIC = '070701';
const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';
/** PATH_MAX of Linux, with the NUL. */
const PATH_MAX = 4096;
/** Sizes are 32-bit numbers. */
const FILE_MAX = 0xffff_ffff;

// Indexes of the header's 13 fields of eight hexadecimal digits.
const MODE = 1;
const UID = 2;
const GID = 3;
const FILE_SIZE = 6;
const RDEV_MAJOR = 9;
const RDEV_MINOR = 10;
const NAME_SIZE = 11;

/**
 * A cpio archive in the `newc` format, as the kernel takes an initramfs. The same entries make the same bytes: they are
 * sorted, times are zero, inodes are counted.
 * @throws BootError (`bad-archive`) where a path is not fit for an archive or comes twice.
 */
export function writeCpio(entries: Iterable<CpioEntry>): Uint8Array {
  const sorted = [...entries].sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
  const parts: Uint8Array[] = [];
  sorted.forEach((entry, index) => {
    checkPath(entry.path);
    if (sorted[index - 1]?.path === entry.path)
      throw new BootError('bad-archive', `cpio: ${entry.path} comes twice`);
    parts.push(...encode(entry, index + 1));
  });
  parts.push(...encode({ path: TRAILER, mode: 0 }, 0));
  return Buffer.concat(parts);
}

function encode(entry: CpioEntry, inode: number): Uint8Array[] {
  const path = Buffer.from(`${entry.path}\0`);
  const data = entry.data ?? new Uint8Array(0);
  if (data.length > FILE_MAX) throw new BootError('bad-archive', `cpio: ${entry.path} is larger than 4 GiB`);
  const links = (entry.mode & S_IFMT) === S_IFDIR ? 2 : 1;
  const [major, minor] = entry.device ?? [0, 0];
  const fields = [
    inode,
    entry.mode,
    entry.uid ?? 0,
    entry.gid ?? 0,
    links,
    0,
    data.length,
    0,
    0,
    major,
    minor,
    path.length,
    0,
  ];
  const header = MAGIC + fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('');
  return [Buffer.from(header), path, padding(HEADER_SIZE + path.length), data, padding(data.length)];
}

/** Zeros up to the next multiple of four. */
function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}

/** Whether bytes begin as a cpio archive that {@link readCpio} reads. */
export function isCpio(head: Uint8Array): boolean {
  return Buffer.from(head.subarray(0, MAGIC.length)).toString('latin1') === MAGIC;
}

/**
 * Reads a `newc` archive, or several with zeros between them, as the kernel does. Entries share the archive's memory.
 * @param name how messages call the archive.
 * @throws BootError (`bad-archive`) that names the offset.
 */
export function readCpio(archive: Uint8Array, name: string): CpioEntry[] {
  const entries: CpioEntry[] = [];
  let at = 0;
  while (at < archive.length) {
    const bad = (what: string) => new BootError('bad-archive', `${name}: cpio header at byte ${at}: ${what}`);
    if (archive[at] === 0) {
      at++;
      continue;
    }
    if (at % 4 !== 0) throw bad('not aligned to four bytes');
    if (at + HEADER_SIZE > archive.length) throw bad('truncated');
    const header = Buffer.from(archive.subarray(at, at + HEADER_SIZE)).toString('latin1');
    if (!header.startsWith(MAGIC)) throw bad(`its magic is not ${MAGIC}`);
    if (!/^[0-9a-fA-F]+$/.test(header)) throw bad('a field is no hexadecimal number');
    const field = (index: number) => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16);
    const nameSize = field(NAME_SIZE);
    if (nameSize < 1 || nameSize > PATH_MAX) throw bad(`c_namesize: ${nameSize}`);
    const nameEnd = at + HEADER_SIZE + nameSize;
    const dataStart = align4(nameEnd);
    const dataEnd = dataStart + field(FILE_SIZE);
    if (nameEnd > archive.length) throw bad('its name is truncated');
    if (archive[nameEnd - 1] !== 0) throw bad('its name does not end with a NUL');
    const path = Buffer.from(archive.subarray(at + HEADER_SIZE, nameEnd - 1)).toString();
    if (path === TRAILER) {
      at = Math.min(dataStart, archive.length);
      continue;
    }
    if (dataEnd > archive.length) throw bad(`c_filesize: ${path} is truncated`);
    if (path.includes('\0')) throw bad('its name contains a NUL');
    entries.push({
      path,
      mode: field(MODE),
      uid: field(UID),
      gid: field(GID),
      data: archive.subarray(dataStart, dataEnd),
      device: [field(RDEV_MAJOR), field(RDEV_MINOR)],
    });
    at = align4(dataEnd);
  }
  return entries;
}

function align4(offset: number): number {
  return Math.ceil(offset / 4) * 4;
}

function checkPath(path: string): void {
  const segments = path.split('/');
  const bad =
    path.includes('\0') ||
    Buffer.byteLength(path) >= PATH_MAX ||
    path === TRAILER ||
    segments.some((segment) => segment === '' || segment === '.' || segment === '..');
  if (bad) throw new BootError('bad-archive', `cpio: ${JSON.stringify(path)} is no path for an archive`);
}
