import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Timeline } from '../machine/timeline.js';
import { runContainer } from '../runtime/run.js';
import { parseArguments, parseInteger, parseMemory, parseSeconds, UsageError } from './arguments.js';
import type { Globals } from './globals.js';
import { Terminal } from './terminal.js';
import { writeTimeline } from './write-timeline.js';

export const usage = `usage: tsvmm run [OPTIONS] [BUNDLE] [ID]

Runs the process of an OCI bundle in a microVM of its own, on this command's standard streams, and ends with its
status. BUNDLE is a folder with config.json and the root file system, the current folder by default. A single
argument that is such a folder is the bundle, any other the ID.

  --bundle, -b DIR          the bundle
  --kernel FILE             the guest's kernel, instead of the bundle's vm.kernel.path or tsvmm's own
  --initrd FILE             its initramfs, which has to hold tsvmm's agent
  --memory SIZE             the machine's memory: 512M, 1G, or a number of bytes
  --cpus N                  its vCPUs
  --boot-timeout SECONDS    how long the guest may take to answer: 60 by default, or TSVMM_BOOT_TIMEOUT
  --debug                   the guest's console and log go to standard error
  --timeline FILE           writes the phases of the start as JSON

Status: the process's; 128 + n where signal n has ended it; 125 where tsvmm or the machine failed.`;

const OPTIONS = {
  bundle: 'value',
  kernel: 'value',
  initrd: 'value',
  memory: 'value',
  cpus: 'value',
  'boot-timeout': 'value',
  debug: 'flag',
  timeline: 'value',
} as const;

const DEFAULT_BOOT_TIMEOUT = 60;

export async function main(
  args: readonly string[],
  _globals: Globals,
  env: NodeJS.ProcessEnv = process.env,
): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, { b: 'bundle' });
  const { bundle, id } = bundleAndId(options.bundle, positionals);
  const timeline = options.timeline === undefined ? undefined : new Timeline();
  const terminal = new Terminal();
  process.once('exit', () => terminal.restore());
  return runContainer(
    {
      bundle,
      id,
      kernel: options.kernel,
      initrd: options.initrd,
      memory: options.memory === undefined ? undefined : parseMemory(options.memory),
      cpus: options.cpus === undefined ? undefined : parseInteger(options.cpus, '--cpus', 1, 254),
      bootTimeout: bootTimeout(options['boot-timeout'], env.TSVMM_BOOT_TIMEOUT),
      debug: options.debug,
      timeline,
    },
    terminal,
    timeline === undefined
      ? undefined
      : (machine) => writeTimeline(machine, timeline, String(options.timeline)),
  );
}

/** Tells the bundle from the ID. A single positional is the bundle where it is a folder with a config.json. */
export function bundleAndId(
  option: string | undefined,
  positionals: readonly string[],
): { readonly bundle: string; readonly id: string | undefined } {
  const [first, second, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`run: ${surplus}: there is nothing after the ID`);
  if (option !== undefined) {
    if (second !== undefined) throw new UsageError(`run: ${first}: the bundle is given twice`);
    return { bundle: option, id: first };
  }
  if (second !== undefined) return { bundle: String(first), id: second };
  if (first === undefined) return { bundle: '.', id: undefined };
  // What cannot be an ID was meant as a folder, and the message should be about that folder.
  if (first.includes('/') || existsSync(join(first, 'config.json'))) return { bundle: first, id: undefined };
  return { bundle: '.', id: first };
}

function bootTimeout(option: string | undefined, variable: string | undefined): number {
  if (option !== undefined) return parseSeconds(option, '--boot-timeout');
  if (variable !== undefined && variable !== '') return parseSeconds(variable, 'TSVMM_BOOT_TIMEOUT');
  return DEFAULT_BOOT_TIMEOUT;
}
