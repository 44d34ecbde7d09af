import { readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { BootError, reasonOf } from '../boot/error.js';
import { extendInitramfs, moduleFiles } from '../boot/initramfs.js';
import { collectModules, NEEDED_MODULES, USEFUL_MODULES } from '../boot/modules.js';
import { fileError } from '../boot/reader.js';
import { guestFile } from '../runtime/guest-files.js';
import { printLine } from '../runtime/output.js';
import { parseArguments, UsageError } from './arguments.js';

export const usage = `usage: tsvmm initramfs --modules DIR --output FILE [OPTIONS]

Makes an initramfs for a distribution's kernel, whose virtio drivers are modules: tsvmm's own initramfs, and the modules
that a machine of tsvmm needs, with what they depend on.

  --modules DIR             the kernel's modules: /lib/modules/VERSION
  --output FILE             what to write
  --base FILE               an uncompressed cpio archive in place of tsvmm's own initramfs
  --module NAME             one more module; may be repeated`;

const OPTIONS = { modules: 'value', output: 'value', base: 'value', module: 'list' } as const;

/** @returns the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS);
  const { modules: dir, output } = options;
  if (positionals.length > 0) throw new UsageError(`unexpected argument ${positionals[0]}`);
  if (dir === undefined) throw new UsageError('--modules is missing; see tsvmm initramfs --help');
  if (output === undefined) throw new UsageError('--output is missing; see tsvmm initramfs --help');
  const base = options.base ?? guestFile('initrd');
  const needed = [...NEEDED_MODULES, ...(options.module ?? [])];
  const modules = await collectModules(resolved(dir), needed, USEFUL_MODULES);
  write(output, extendInitramfs(read(base), moduleFiles(modules), base));
  printLine(`${output}: ${modules.length} modules added to ${base}`);
  return 0;
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
