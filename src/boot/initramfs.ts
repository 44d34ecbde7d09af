import { type CpioEntry, isCpio, S_IFDIR, S_IFREG, writeCpio } from './cpio.js';
import { BootError } from './error.js';

/** A regular file for an initramfs. */
export interface InitramfsFile {
  /** Absolute path in the guest. */
  readonly path: string;
  readonly data: Uint8Array;
  /** Permission bits; 0o644 unless given. */
  readonly permissions?: number;
}

/** The agent reads it: one absolute path of a module a line, in the order in which to load them. */
export const MODULE_LIST = '/etc/tsvmm/modules';

/**
 * An archive of these files and the folders that they lie in, as the kernel takes it.
 * @throws BootError (`bad-archive`) where a path is not absolute, not plain, or comes twice.
 */
export function buildInitramfs(files: Iterable<InitramfsFile>): Uint8Array {
  const entries: CpioEntry[] = [];
  const folders = new Set<string>();
  for (const file of files) {
    if (!file.path.startsWith('/'))
      throw new BootError('bad-archive', `initramfs: ${file.path}: not an absolute path`);
    const path = file.path.slice(1);
    for (let end = path.indexOf('/'); end > 0; end = path.indexOf('/', end + 1))
      folders.add(path.slice(0, end));
    entries.push({ path, mode: S_IFREG | (file.permissions ?? 0o644), data: file.data });
  }
  for (const path of folders) entries.push({ path, mode: S_IFDIR | 0o755 });
  return writeCpio(entries);
}

/**
 * Puts files on top of an initramfs: a second archive behind the first, whose files win.
 * @param name how messages call the base.
 * @throws BootError (`bad-archive`) where the base is no uncompressed cpio archive.
 */
export function extendInitramfs(base: Uint8Array, files: Iterable<InitramfsFile>, name: string): Uint8Array {
  if (!isCpio(base)) {
    throw new BootError(
      'bad-archive',
      `${name}: not an uncompressed cpio archive in the "newc" format (070701)`,
    );
  }
  return Buffer.concat([base, new Uint8Array(-base.length & 3), buildInitramfs(files)]);
}

/** What puts kernel modules into an initramfs: their files, and the list that the agent loads them by. */
export function moduleFiles(modules: readonly InitramfsFile[]): InitramfsFile[] {
  const list = modules.map((module) => `${module.path}\n`).join('');
  return [...modules, { path: MODULE_LIST, data: Buffer.from(list) }];
}
