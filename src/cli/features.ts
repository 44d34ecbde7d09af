import { features } from '../runtime/features.js';
import { printLine } from '../runtime/output.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';
import { packageVersion } from './version.js';

export const usage = `usage: tsvmm features

Prints what this runtime supports, as the features document of the runtime specification.`;

export async function main(args: readonly string[], _globals: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  positional('features', [], positionals);
  printLine(JSON.stringify(features(packageVersion()), undefined, 4));
  return 0;
}
