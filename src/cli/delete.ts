import { deleteContainer } from '../runtime/delete.js';
import { logWarning } from '../runtime/log.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm delete [--force] ID

Removes what is left of a container that has stopped, or was never started.

  --force, -f               one that runs, too: it is killed; one that does not exist is no error`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, { force: 'flag' }, { f: 'force' });
  const [id = ''] = positional('delete', ['ID'], positionals);
  await deleteContainer(new ContainerStore(root), id, options.force === true, logWarning);
  return 0;
}
