import { closeSync, constants, lstatSync, mkdirSync, openSync, readlinkSync, type Stats } from 'node:fs';
import { reasonOf, UserError } from './errors.js';
import type { Spec } from './spec/types.js';

/** Not among Node's constants: a descriptor that only stands for the file (open(2)). */
const O_PATH = 0o10000000;
const OPEN_FOLDER = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** As Linux itself: what leads over more links is a loop. */
const MAX_LINKS = 40;

/**
 * Makes what a runtime makes in a root file system before it is read-only: the mount points and the working folder.
 * With them there the folder can be shared read-only, so that the guest cannot change it whatever it does.
 * @param directory the root file system
 * @param files destinations of mounts that are files
 * @returns whether nothing else has to be made in it. Where no mount covers /dev, the device files have.
 * @throws UserError that names the mount
 */
export function makeMountPoints(directory: string, spec: Spec, files: ReadonlySet<string>): boolean {
  const tree = new RootTree(directory);
  try {
    for (const [index, { destination }] of (spec.mounts ?? []).entries()) {
      const made = `config.json: mounts[${index}]: the mount point ${destination}`;
      tree.mounted.add(tree.make(destination, files.has(destination), made));
    }
    tree.make(spec.process.cwd, false, `config.json: process.cwd: ${spec.process.cwd}`);
  } finally {
    tree.close();
  }
  const devices = ['/dev/null', ...(spec.linux?.devices ?? []).map(({ path }) => path)];
  return tree.mounted.has('/dev') && devices.every((path) => /^\/dev\/(?!.*\.\.)/.test(path));
}

/**
 * A folder that is the root of all paths, as chroot makes it: links and `..` do not lead out of it. Each folder on
 * the way is held open and the next is looked up in it alone, so that nobody who renames meanwhile can lead out either.
 */
class RootTree {
  /** Where mounts will be, links resolved: what is below them is no part of this tree. */
  readonly mounted = new Set<string>();
  /** From the root down to where the walk is. */
  #folders: { readonly fd: number; readonly name: string }[];

  constructor(directory: string) {
    this.#folders = [{ fd: openSync(directory, O_PATH | constants.O_DIRECTORY), name: '' }];
  }

  close(): void {
    this.#climb(0);
  }

  /** Makes a folder, or an empty file, with the folders above it, unless there is something. Returns its path without links. */
  make(path: string, file: boolean, what: string): string {
    this.#climb(1);
    const names = path.split('/');
    try {
      return this.#walk(names, file);
    } catch (error) {
      throw new UserError(`${what} cannot be made in the root file system: ${reasonOf(error)}`);
    }
  }

  #walk(names: string[], file: boolean): string {
    let links = 0;
    for (let name = names.shift(); name !== undefined; name = names.shift()) {
      if (this.mounted.has(this.#path())) break;
      if (name === '' || name === '.') continue;
      if (name === '..') {
        this.#climb(Math.max(1, this.#folders.length - 1));
        continue;
      }
      const last = names.every((rest) => rest === '' || rest === '.');
      const place = `/proc/self/fd/${this.#folders.at(-1)?.fd}/${name}`;
      const stats = this.#find(place) ?? this.#create(place, last && file);
      if (stats.isSymbolicLink()) {
        if (++links > MAX_LINKS) throw Object.assign(new Error(), { code: 'ELOOP' });
        const target = readlinkSync(place);
        if (target.startsWith('/')) this.#climb(1);
        names.unshift(...target.split('/'));
      } else if (last && !stats.isDirectory()) {
        return `${this.#path()}/${name}`;
      } else {
        this.#folders.push({ fd: openSync(place, OPEN_FOLDER), name });
      }
    }
    return this.#path();
  }

  #find(place: string): Stats | undefined {
    return lstatSync(place, { throwIfNoEntry: false });
  }

  #create(place: string, file: boolean): Stats {
    if (file) closeSync(openSync(place, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o755));
    else mkdirSync(place, 0o755);
    return lstatSync(place);
  }

  #path(): string {
    return this.#folders.map(({ name }) => name).join('/');
  }

  /** Goes back to where `depth` folders are open. */
  #climb(depth: number): void {
    for (const { fd } of this.#folders.splice(depth)) closeSync(fd);
  }
}
