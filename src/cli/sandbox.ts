import type { CreateRequest } from '../runtime/create.js';
import { sandboxMain } from '../runtime/sandbox/main.js';
import { UsageError } from './arguments.js';

export const usage = `usage: tsvmm sandbox ID REQUEST

The process that holds a container's machine. "tsvmm create" starts it; it is of no use by itself.`;

export async function main(args: readonly string[]): Promise<number> {
  const [id, text = ''] = args;
  const request = JSON.parse(text) as CreateRequest;
  if (request.id !== id) throw new UsageError('sandbox: started by hand?');
  return sandboxMain(request);
}
