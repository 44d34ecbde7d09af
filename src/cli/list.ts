import { printLine } from '../runtime/output.js';
import { ociState } from '../runtime/state/state.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, positional, UsageError } from './arguments.js';
import type { Globals } from './globals.js';
import { table } from './table.js';

export const usage = `usage: tsvmm list [--format table|json] [--quiet]

Lists the containers of the state folder (--root before the command).

  --format, -f FORMAT       table (the default) or json
  --quiet, -q               the IDs only`;

const OPTIONS = { format: 'value', quiet: 'flag' } as const;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, { f: 'format', q: 'quiet' });
  positional('list', [], positionals);
  const format = formatOption(options.format);
  const states = new ContainerStore(root).list().map((state) => ociState(state));
  if (options.quiet === true) for (const { id } of states) printLine(String(id));
  else if (format === 'json') printLine(JSON.stringify(states));
  else {
    const columns = ['id', 'pid', 'status', 'bundle', 'created', 'owner'];
    const rows = states.map((state) => columns.map((column) => String(state[column] ?? '')));
    printLine(table([columns.map((column) => column.toUpperCase()), ...rows]));
  }
  return 0;
}

/** @throws UsageError */
export function formatOption(format = 'table'): 'table' | 'json' {
  if (format === 'table' || format === 'json') return format;
  throw new UsageError(`--format: expected table or json, got ${JSON.stringify(format)}`);
}
