import { existsSync, readFileSync } from 'node:fs';
import { basename, join, normalize } from 'node:path';
import { type Compression, detectCompression, unpack } from './decompress.js';
import { isElf } from './elf.js';
import { BootError } from './error.js';
import type { InitramfsFile } from './initramfs.js';
import { fileError } from './reader.js';

/** What a machine of ours cannot do without, of a kernel that has its drivers as modules. */
export const NEEDED_MODULES: readonly string[] = ['virtio_mmio', 'vmw_vsock_virtio_transport', 'virtiofs'];

/** What it uses where the kernel has it. */
export const USEFUL_MODULES: readonly string[] = [
  'virtio_blk',
  'virtio_net',
  'virtio_console',
  'virtio_rng',
  'virtio_balloon',
  'overlay',
  'ext4',
];

/** The kernel's own modules are far smaller. */
const MODULE_MAX = 64 << 20;
/** modules.dep names all that a module needs, so a walk is a step deep, or a few in a file written by hand. */
const DEPTH_MAX = 100;
const PATH_PREFIX = '/lib/modules';

/** The module files of one kernel version, by their dependencies. */
export interface ModuleTree {
  /** The folder of modules.dep. */
  readonly dir: string;
  /** Paths, relative to `dir`, of the files that each module needs: itself, then its dependencies. */
  readonly files: ReadonlyMap<string, readonly string[]>;
  /** Names of what is in the kernel itself. */
  readonly builtin: ReadonlySet<string>;
}

/** Module names know no difference between - and _. */
export function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/**
 * Parses modules.dep (modules.dep(5)): lines of `path: dependency dependency...`.
 * @param name how messages call the file.
 * @throws BootError (`malformed`) that names the line.
 */
export function parseModulesDep(text: string, name: string): Map<string, readonly string[]> {
  const files = new Map<string, readonly string[]>();
  for (const [index, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    const paths = [line.slice(0, colon), ...line.slice(colon + 1).split(' ')].filter((path) => path !== '');
    if (colon < 1 || !paths.every(isModulePath)) {
      throw new BootError('malformed', `${name}:${index + 1}: not a line of "path.ko: dependencies"`);
    }
    files.set(moduleName(paths[0]!), paths);
  }
  return files;
}

/** A module's path stays below its folder. */
function isModulePath(path: string): boolean {
  return /\.ko(\.(gz|xz|zst))?$/.test(path) && !path.startsWith('/') && !normalize(path).startsWith('..');
}

/**
 * Reads what is known of a kernel's modules.
 * @param dir as /lib/modules/VERSION.
 * @throws BootError where there is no modules.dep or it is malformed.
 */
export function readModuleTree(dir: string): ModuleTree {
  const dep = join(dir, 'modules.dep');
  const builtin = join(dir, 'modules.builtin');
  if (existsSync(dir) && !existsSync(dep)) {
    const remedy = `"depmod -b ROOT VERSION" makes it, ROOT being what holds lib/modules/VERSION`;
    throw new BootError('file', `${dep}: no such file; ${remedy}`);
  }
  return {
    dir,
    files: parseModulesDep(readText(dep), dep),
    builtin: new Set(
      existsSync(builtin) ? readText(builtin).split('\n').filter(Boolean).map(moduleName) : [],
    ),
  };
}

/**
 * The files of modules and all that they depend on, dependencies first. What is in the kernel itself is left out.
 * @throws BootError (`module-missing`) where the kernel has no such module, (`malformed`) where dependencies go in circles.
 */
export function moduleOrder(tree: ModuleTree, wanted: Iterable<string>): string[] {
  const order = new Set<string>();
  const open = new Set<string>();
  const visit = (path: string): void => {
    if (order.has(path)) return;
    const name = moduleName(path);
    const files = tree.files.get(name);
    if (files === undefined)
      throw new BootError('module-missing', `${tree.dir}: modules.dep lists no ${path}`);
    if (open.size > DEPTH_MAX) {
      throw new BootError('malformed', `${tree.dir}: modules.dep: dependencies too deep at ${path}`);
    }
    if (open.has(path))
      throw new BootError('malformed', `${tree.dir}: modules.dep: ${path} depends on itself`);
    open.add(path);
    for (const dependency of files.slice(1)) visit(dependency);
    open.delete(path);
    order.add(path);
  };
  for (const wish of wanted) {
    const name = moduleName(wish);
    if (tree.builtin.has(name)) continue;
    const path = tree.files.get(name)?.[0];
    if (path === undefined) {
      throw new BootError(
        'module-missing',
        `${tree.dir}: this kernel has no module ${wish}, nor is it built in`,
      );
    }
    visit(path);
  }
  return [...order];
}

/**
 * The modules' files for an initramfs, unpacked and in the order in which to load them.
 * @param needed names of modules, as virtio_blk.
 * @param useful modules to be taken where the kernel has them.
 * @throws BootError that names the module.
 */
export async function collectModules(
  dir: string,
  needed: readonly string[],
  useful: readonly string[],
): Promise<InitramfsFile[]> {
  const tree = readModuleTree(dir);
  const wanted = [...needed, ...useful.filter((name) => tree.files.has(moduleName(name)))];
  const version = basename(normalize(`${dir}/`).slice(0, -1));
  const files: InitramfsFile[] = [];
  for (const path of moduleOrder(tree, wanted)) {
    const source = join(dir, path);
    const target = `${PATH_PREFIX}/${version}/${path.replace(/\.(gz|xz|zst)$/, '')}`;
    files.push({ path: target, data: await readModule(source) });
  }
  return files;
}

/** A module's ELF file, which may be compressed. */
async function readModule(path: string): Promise<Uint8Array> {
  const bytes = readBytes(path);
  const compression: Compression | undefined = detectCompression(bytes);
  const module =
    compression === undefined || compression === 'none'
      ? bytes
      : await unpack(compression, bytes, MODULE_MAX, path);
  if (!isElf(module)) throw new BootError('malformed', `${path}: not a kernel module (no ELF file)`);
  return module;
}

function readBytes(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

function readText(path: string): string {
  return Buffer.from(readBytes(path)).toString();
}
