import { printLine } from '../runtime/output.js';
import { ociState } from '../runtime/state/state.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm state ID

Prints a container's state as JSON: the runtime specification's fields; rootfs, created and owner, as runc does; log, the file
with what its machine's console said; and, where the machine failed, failure, which says why.`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  const [id = ''] = positional('state', ['ID'], positionals);
  const store = new ContainerStore(root);
  printLine(JSON.stringify(ociState(store.load(id), store.logPath(id)), undefined, 2));
  return 0;
}
