import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, reasonOf, UserError } from '../runtime/errors.js';
import { exampleSpec } from '../runtime/spec/example.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm spec [OPTIONS]

Writes a config.json to begin with: a shell, on the folder rootfs beside it. One that is there is not overwritten.

  --bundle, -b DIR          where to; the current folder by default
  --file, -f FILE           under another name
  --rootless                for an ordinary user: without a network namespace of its own, IDs mapped`;

const OPTIONS = { bundle: 'value', file: 'value', rootless: 'flag' } as const;

export async function main(args: readonly string[], _globals: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, { b: 'bundle', f: 'file' });
  positional('spec', [], positionals);
  const { bundle = '.', file = 'config.json' } = options;
  const path = join(bundle, file);
  const ids = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
  const spec = exampleSpec(options.rootless === true ? ids : undefined);
  try {
    writeFileSync(path, `${JSON.stringify(spec, undefined, '\t')}\n`, { flag: 'wx' });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw new UserError(`${path}: ${reasonOf(error)}`);
    throw new UserError(`${path} exists: remove it first`);
  }
  return 0;
}
