import { lstatSync, type Stats, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { reasonOf, UserError } from './errors.js';
import { type LoadedSpec, loadSpec } from './spec/load.js';

/** An OCI bundle: a folder with config.json and (usually) the root file system. */
export interface Bundle extends LoadedSpec {
  /** Absolute. */
  readonly directory: string;
  readonly root:
    | { readonly type: 'directory'; readonly directory: string }
    /** `vm.image`: the root file system is in a raw disk image. */
    | { readonly type: 'image'; readonly path: string };
}

const ID = /^[\w+.-]+$/;

/** Throws a UserError unless `id` is a container ID as runc takes it. */
export function checkId(id: string): void {
  if (!ID.test(id) || id === '.' || id === '..') {
    throw new UserError(
      `container ID ${JSON.stringify(id)}: expected letters, digits and the characters _ + - . only`,
    );
  }
  if (id.length > 255) throw new UserError(`container ID: ${id.length} characters are too many, at most 255`);
}

/** Reads and checks the bundle in `path`, whose configuration is `config` there. Throws a UserError. */
export function loadBundle(path: string, config?: string): Bundle {
  const directory = resolve(path);
  if (!statOf(directory, 'bundle').isDirectory()) throw new UserError(`bundle ${directory}: not a folder`);
  const loaded = loadSpec(directory, config);
  const root = rootOf(directory, loaded);
  if (root.type === 'directory') checkSystemMounts(root.directory, loaded);
  return { ...loaded, directory, root };
}

/** As runc: what the kernel shows of itself is not mounted where a link of the image's leads. */
function checkSystemMounts(root: string, { spec }: LoadedSpec): void {
  for (const [index, { type, destination }] of (spec.mounts ?? []).entries()) {
    if (type !== 'proc' && type !== 'sysfs') continue;
    if (lstatSync(join(root, destination), { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw new UserError(
        `config.json: mounts[${index}]: ${destination} must be mounted on ordinary directory, but is a symbolic link in the root file system`,
      );
    }
  }
}

function rootOf(directory: string, { spec }: LoadedSpec): Bundle['root'] {
  const image = spec.vm?.image;
  if (image !== undefined) {
    if (image.format !== 'raw') {
      throw new UserError(
        `config.json: vm.image.format: expected "raw", got ${JSON.stringify(image.format)}`,
      );
    }
    const stats = statOf(image.path, 'config.json: vm.image.path:');
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw new UserError(`config.json: vm.image.path: ${image.path}: expected a file or a block device`);
    }
    return { type: 'image', path: image.path };
  }
  const root = resolve(directory, spec.root.path);
  if (!statOf(root, 'config.json: root.path:').isDirectory()) {
    throw new UserError(`config.json: root.path: ${root}: not a folder`);
  }
  return { type: 'directory', directory: root };
}

function statOf(path: string, what: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    throw new UserError(`${what} ${path}: ${reasonOf(error)}`);
  }
}
