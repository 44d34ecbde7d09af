import { startContainer } from '../runtime/start.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm start ID

Starts the process of a container that "tsvmm create" has made.`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  const [id = ''] = positional('start', ['ID'], positionals);
  await startContainer(new ContainerStore(root), id);
  return 0;
}
