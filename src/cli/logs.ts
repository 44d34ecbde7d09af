import { readFileSync } from 'node:fs';
import { checkId } from '../runtime/bundle.js';
import { codeOf, reasonOf, UserError } from '../runtime/errors.js';
import { printLine, visible } from '../runtime/output.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm logs ID

Prints what a container's machine has written to its console: the guest's kernel and the agent, and lines of tsvmm itself. The
console of a machine that failed before its container was there is kept, too, that of the last 20 of them.

What the container's process writes goes to whoever has created it, and is not here.`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  const [id = ''] = positional('logs', ['ID'], positionals);
  checkId(id);
  const store = new ContainerStore(root);
  for (const path of [store.logPath(id), store.failedLogPath(id)]) {
    const text = read(path);
    if (text === undefined) continue;
    // The guest's bytes: none of them is to steer a terminal.
    if (text !== '') printLine(visible(text.replace(/\n$/, '')));
    return 0;
  }
  throw new UserError(`there is no log of a container ${JSON.stringify(id)} in ${root}`);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw new UserError(`${path}: ${reasonOf(error)}`);
  }
}
