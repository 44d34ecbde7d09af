import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Timeline } from '../machine/timeline.js';
import type { CreateRequest } from '../runtime/create.js';
import { logWarning } from '../runtime/log.js';
import { runContainer } from '../runtime/run.js';
import { ContainerStore } from '../runtime/state/store.js';
import { Terminal } from '../runtime/terminal.js';
import { parseArguments, UsageError } from './arguments.js';
import { CREATE_OPTIONS, createRequest, preserveFdsOf } from './create-options.js';
import type { Globals } from './globals.js';
import { machineFlags } from './machine-options.js';
import { writeTimeline } from './write-timeline.js';

export const usage = `usage: tsvmm run [OPTIONS] [BUNDLE] [ID]

Runs the process of an OCI bundle in a microVM of its own, on this command's standard streams, and ends with its
status. BUNDLE is a folder with config.json and the root file system, the current folder by default. A single
argument that is such a folder is the bundle, any other the ID.

  --bundle, -b DIR          the bundle
  --config, -f FILE         its configuration, from there; config.json by default
  --kernel FILE             the guest's kernel, instead of the bundle's vm.kernel.path or tsvmm's own
  --initrd FILE             its initramfs, which has to hold tsvmm's agent
  --memory SIZE             the machine's memory: 512M, 1G, or a number of bytes
  --cpus N                  its vCPUs
  --network auto|passt|none the network where the bundle names no network namespace to join
  --boot-timeout SECONDS    how long the guest may take to answer: 60 by default, or TSVMM_BOOT_TIMEOUT
  --detach, -d              returns once the process runs, as create and start do
  --pid-file FILE           gets the ID of the process that stands for the container's on this host
  --console-socket PATH     with --detach: a Unix socket that gets the master of the container's terminal
  --preserve-fds N          the process gets N more descriptors of this command, from 3 on
  --keep                    the container's state stays, for delete
  --no-pivot, --no-new-keyring, --no-subreaper
                            accepted, without effect
  --debug                   the guest's console and log go to standard error
  --timeline FILE           writes the phases of the start as JSON

Status: the process's; 128 + n where signal n has ended it; 125 where tsvmm or the machine failed, with
--detach 1.`;

const OPTIONS = {
  ...CREATE_OPTIONS,
  detach: 'flag',
  keep: 'flag',
  debug: 'flag',
  timeline: 'value',
} as const;

export async function main(args: readonly string[], globals: Globals): Promise<number> {
  const { options, positionals } = parseArguments(args, OPTIONS, { b: 'bundle', d: 'detach', f: 'config' });
  const { bundle, id } = bundleAndId(options.bundle, positionals);
  const preserveFds = preserveFdsOf(options);
  if (options.detach === true) {
    if (id === undefined) throw new UsageError('run: --detach wants a container ID');
    const request = createRequest(globals.root, id, bundle, options);
    return detached(request, options['pid-file']).catch((error) => {
      // There is no status of a process to tell it from.
      throw Object.assign(error, { exitStatus: 1 });
    });
  }
  if (options['console-socket'] !== undefined) {
    throw new UsageError(
      '--console-socket: cannot use console socket if tsvmm will not detach or allocate tty',
    );
  }
  const timeline = options.timeline === undefined ? undefined : new Timeline();
  const terminal = new Terminal();
  process.once('exit', () => terminal.restore());
  const debug = options.debug === true;
  return runContainer(
    {
      root: globals.root,
      bundle,
      config: options.config,
      id,
      flags: { ...machineFlags(options), ...(debug ? { debug } : {}) },
      preserveFds,
      pidFile: options['pid-file'],
      keep: options.keep === true,
      timeline,
    },
    terminal,
    timeline === undefined
      ? undefined
      : (machine) => writeTimeline(machine, timeline, String(options.timeline)),
  );
}

/** As `create` and `start`. */
async function detached(request: CreateRequest, pidFile: string | undefined): Promise<number> {
  const { createContainer } = await import('../runtime/create.js');
  const { startContainer } = await import('../runtime/start.js');
  const { deleteContainer } = await import('../runtime/delete.js');
  const { writePidFile } = await import('../runtime/pid-file.js');
  const pid = createContainer(request, logWarning);
  const store = new ContainerStore(request.root);
  try {
    if (pidFile !== undefined) writePidFile(pidFile, pid);
    await startContainer(store, request.id);
  } catch (error) {
    await deleteContainer(store, request.id, true, logWarning);
    throw error;
  }
  return 0;
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
