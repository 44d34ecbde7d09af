import { deleteContainer } from '../runtime/delete.js';
import { logWarning } from '../runtime/log.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional, UsageError } from './arguments.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm delete [--force] ID
       tsvmm delete [--force] --regex PATTERN

Removes what is left of a container that has stopped, or was never started.

  --force, -f               one that runs, too: it is killed; one that does not exist is no error
  --regex, -r               all whose IDs PATTERN, a regular expression, matches somewhere, as crun does`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(
    args,
    { force: 'flag', regex: 'flag' },
    { f: 'force', r: 'regex' },
  );
  const [id = ''] = positional('delete', [options.regex === true ? 'PATTERN' : 'ID'], positionals);
  const store = new ContainerStore(root);
  const ids = options.regex === true ? matching(store, id) : [id];
  for (const one of ids) await deleteContainer(store, one, options.force === true, logWarning);
  return 0;
}

function matching(store: ContainerStore, pattern: string): string[] {
  let expression: RegExp;
  try {
    expression = new RegExp(pattern);
  } catch {
    throw new UsageError(`delete: ${pattern}: no regular expression`);
  }
  return store
    .list()
    .map(({ id }) => id)
    .filter((id) => expression.test(id));
}
