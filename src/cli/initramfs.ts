import { readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { BootError, reasonOf } from '../boot/error.js';
import { extendInitramfs, moduleFiles } from '../boot/initramfs.js';
import { collectModules, NEEDED_MODULES, USEFUL_MODULES } from '../boot/modules.js';
import { fileError } from '../boot/reader.js';

const USAGE = `usage: tsvmm initramfs --modules DIR --output FILE [--base FILE] [--module NAME]...

Makes an initramfs for a stock kernel, whose virtio drivers are modules: the base initramfs and those modules.

  --modules DIR   the kernel's modules: /lib/modules/VERSION
  --output FILE   what to write
  --base FILE     the base, an uncompressed cpio archive; tsvmm's own unless given
  --module NAME   one more module, with what it depends on; may be given several times
`;

const FAILED = 125;

/**
 * The command `tsvmm initramfs`.
 * @param base path of tsvmm's own initramfs, where there is one.
 * @returns the exit status: 0, or 125 after a line on standard error.
 */
export async function initramfs(args: string[], base?: string): Promise<number> {
  try {
    const { values } = parseArgs({
      args,
      options: {
        modules: { type: 'string' },
        output: { type: 'string' },
        base: { type: 'string' },
        module: { type: 'string', multiple: true, default: [] },
        help: { type: 'boolean' },
      },
    });
    if (values.help === true) {
      process.stdout.write(USAGE);
      return 0;
    }
    if (values.modules === undefined || values.output === undefined) {
      throw new Error('initramfs: --modules and --output are needed (see --help)');
    }
    const basePath = values.base ?? base;
    if (basePath === undefined) throw new Error('initramfs: there is no base initramfs: give --base FILE');
    const needed = [...NEEDED_MODULES, ...values.module];
    const modules = await collectModules(resolved(values.modules), needed, USEFUL_MODULES);
    write(values.output, extendInitramfs(read(basePath), moduleFiles(modules), basePath));
    process.stdout.write(`${values.output}: ${modules.length} modules added to ${basePath}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`tsvmm: ${reasonOf(error)}\n`);
    return FAILED;
  }
}

/** The folder's true name: it carries the kernel's version, which a link like "current" does not. */
function resolved(dir: string): string {
  try {
    return realpathSync(dir);
  } catch (error) {
    throw fileError(dir, error);
  }
}

function read(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

/** Writes the file whole or not at all. */
function write(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.tmp-${process.pid}`;
  try {
    writeFileSync(temporary, bytes);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new BootError('file', `${path}: cannot be written: ${reasonOf(error)}`, { cause: error });
  }
}
