import { askSandbox } from '../runtime/control-client.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm resume ID

Lets the processes of a container go on that "tsvmm pause" has stopped.`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  const [id = ''] = positional('resume', ['ID'], positionals);
  const store = new ContainerStore(root);
  store.load(id);
  askSandbox(store, id, 'resume');
  return 0;
}
