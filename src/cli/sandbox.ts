import type { CreateRequest } from '../runtime/create.js';
import { messagePipe, statusPipe } from '../runtime/sandbox/creation-report.js';
import { sandboxMain } from '../runtime/sandbox/main.js';
import { UsageError } from './arguments.js';
import { parseCreate } from './create.js';
import type { Globals } from './globals.js';
import { keepCompiledCode } from './keep-code.js';

export const usage = `usage: tsvmm sandbox ID REQUEST
       tsvmm sandbox --create [OPTIONS] ID

The process that holds a container's machine. "tsvmm create" starts it; it is of no use by itself.`;

export async function main(args: readonly string[], globals: Globals): Promise<number> {
  const [first, text = ''] = args;
  if (first === '--create') {
    // By native/launch, which waits for the container in the place of a `create` in TypeScript.
    const { request, pidFile } = parseCreate(args.slice(1), globals);
    return sandboxMain(request, messagePipe(pidFile), keepCompiledCode);
  }
  const request = JSON.parse(text) as CreateRequest;
  if (request.id !== first) throw new UsageError('sandbox: started by hand?');
  return sandboxMain(request, statusPipe(), keepCompiledCode);
}
