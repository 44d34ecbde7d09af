import { readdirSync, readFileSync } from 'node:fs';
import { askSandbox } from '../runtime/control-client.js';
import { printLine } from '../runtime/output.js';
import { columnsOf, processTable } from '../runtime/process-table.js';
import { ContainerStore } from '../runtime/state/store.js';
import { parseArguments, UsageError } from './arguments.js';
import type { Globals } from './globals.js';
import { formatOption } from './list.js';

export const usage = `usage: tsvmm ps [--format table|json] ID [PS OPTIONS]

Shows a container's processes.

  --format, -f FORMAT       table (the default): those in the guest, with the IDs that they have in the container
                            json: the processes of this host that stand for the container's first and for each exec

PS OPTIONS of the table: -ef (the default), aux, -ex, -o with pid, ppid, uid, user, tty, stat, stime, time,
nlwp, comm, args, cmd`;

export async function main(args: readonly string[], { root }: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, { format: 'value' }, { f: 'format' }, 1);
  const [id, ...psOptions] = positionals;
  if (id === undefined) throw new UsageError('ps: the ID is missing; see tsvmm ps --help');
  const format = formatOption(options.format);
  const store = new ContainerStore(root);
  const { status, pid, startTime } = store.load(id);
  if (format === 'json') {
    const pids = status === 'stopped' ? [] : [pid, ...execPids(store.socketPath(id))];
    printLine(JSON.stringify(pids));
    return 0;
  }
  const columns = columnsFor(psOptions);
  const processes = status === 'stopped' ? undefined : askSandbox(store, id, 'processes');
  printLine(processTable(processes, columns, bootOf(startTime)));
  return 0;
}

function columnsFor(options: readonly string[]): readonly string[] {
  try {
    return columnsOf(options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Clock ticks a second, as the kernel counts for user space on x86-64. */
const TICKS = 100;

/** When the machine began: a moment after its sandbox, of which the host tells the ticks since its own boot. */
function bootOf(startTime: string): Date {
  const [uptime = '0'] = readFileSync('/proc/uptime', 'latin1').split(' ');
  return new Date(Date.now() - (Number(uptime) - Number(startTime) / TICKS) * 1000);
}

/** The processes `tsvmm-exec SOCKET ...` that stand for processes of a container. */
function execPids(socket: string): number[] {
  const pids: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    let commandLine: string;
    try {
      commandLine = readFileSync(`/proc/${name}/cmdline`, 'latin1');
    } catch {
      // It has ended in the meantime.
      continue;
    }
    const [program = '', first] = commandLine.split('\0');
    if (program.endsWith('tsvmm-exec') && first === Buffer.from(socket).toString('latin1')) {
      pids.push(Number(name));
    }
  }
  return pids.sort((a, b) => a - b);
}
