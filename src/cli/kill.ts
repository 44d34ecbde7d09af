import { askSandbox } from '../runtime/control-client.js';
import { UserError } from '../runtime/errors.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, UsageError } from './arguments.js';
import type { Globals } from './globals.js';
import { parseSignal } from './signal.js';

export const usage = `usage: tsvmm kill [--all] ID [SIGNAL]

Sends a signal to a container's process: a name, with or without SIG, or a number; SIGTERM by default.

  --all, -a                 to all processes of the container`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, { all: 'flag' }, { a: 'all' });
  const [id, signal = 'SIGTERM', surplus] = positionals;
  if (id === undefined) throw new UsageError('kill: the container ID is missing');
  if (surplus !== undefined) throw new UsageError(`kill: ${surplus}: there is nothing after the signal`);
  const number = parseSignal(signal);
  const store = new ContainerStore(root);
  const { status } = store.load(id);
  if (status === 'stopped') {
    // As runc: of a container that has ended, "all" are none.
    if (options.all === true) return 0;
    throw new UserError('container not running');
  }
  askSandbox(store, id, 'kill', { signal: number, all: options.all === true });
  return 0;
}
