import { checkId } from '../runtime/bundle.js';
import { type CreateRequest, createContainer } from '../runtime/create.js';
import { logWarning } from '../runtime/log.js';
import { writePidFile } from '../runtime/pid-file.js';
import { parseArguments, positional } from './arguments.js';
import { CREATE_OPTIONS, createRequest } from './create-options.js';
import type { Globals } from './globals.js';

export const usage = `usage: tsvmm create [OPTIONS] ID

Makes a container of the bundle's configuration, in a microVM of its own. Its process waits for "tsvmm start ID".

  --bundle, -b DIR          the bundle's folder; the current one by default
  --config, -f FILE         its configuration, from there; config.json by default
  --pid-file FILE           gets the ID of the process that stands for the container's on this host
  --console-socket PATH     a Unix socket that gets the master of the container's terminal
  --preserve-fds N          the process gets N more descriptors of this command, from 3 on
  --kernel FILE, --initrd FILE, --memory SIZE, --cpus N, --network KIND, --boot-timeout SECONDS
                            as of tsvmm run
  --no-pivot, --no-new-keyring, --no-subreaper
                            accepted, without effect: the root file system and the keys are the guest's`;

export async function main(args: readonly string[], globals: Globals): Promise<number> {
  const { request, pidFile } = parseCreate(args, globals);
  const pid = createContainer(request, logWarning);
  if (pidFile !== undefined) writePidFile(pidFile, pid);
  return 0;
}

/** @throws UsageError */
export function parseCreate(
  args: readonly string[],
  globals: Globals,
): { readonly request: CreateRequest; readonly pidFile: string | undefined } {
  const { options, positionals } = parseArguments(args, CREATE_OPTIONS, { b: 'bundle', f: 'config' });
  const [id = ''] = positional('create', ['ID'], positionals);
  checkId(id);
  const request = createRequest(globals.root, id, options.bundle ?? '.', options);
  return { request, pidFile: options['pid-file'] };
}
