import { askSandbox } from '../runtime/control-client.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm pause ID

Stops all processes of a container where they are, until "tsvmm resume ID".`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { positionals } = parseArguments(args, {});
  const [id = ''] = positional('pause', ['ID'], positionals);
  const store = new ContainerStore(root);
  store.load(id);
  askSandbox(store, id, 'pause');
  return 0;
}
