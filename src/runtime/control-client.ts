import { addon } from '../addon/index.js';
import { UserError } from './errors.js';
import { stringifyExactJson } from './spec/exact-json.js';
import type { ContainerStore } from './state/store.js';

const ENOENT = 2;
const ECONNRESET = 104;
const ETIMEDOUT = 110;
const ECONNREFUSED = 111;

/** The sandbox of a container is gone, or was while it was asked. */
export class NotRunningError extends UserError {}

/**
 * Asks a container's sandbox, and waits for its answer.
 * @param timeoutMs 0: as long as it takes
 * @param digits how large numbers in `params` are written
 * @returns what the method answers
 * @throws UserError with the sandbox's reason; NotRunningError where there is none
 */
export function askSandbox(
  store: ContainerStore,
  id: string,
  method: string,
  params: object = {},
  timeoutMs = 0,
  digits: ReadonlyMap<number, string> = new Map(),
): unknown {
  const line = stringifyExactJson({ jsonrpc: '2.0', id: 1, method, params }, digits);
  const answer = addon().controlRequest(store.socketPath(id), line, timeoutMs);
  if (typeof answer === 'number') {
    const error = -answer;
    if (error === ENOENT || error === ECONNREFUSED || error === ECONNRESET) {
      throw new NotRunningError('container not running');
    }
    const reason = error === ETIMEDOUT ? `no answer within ${timeoutMs / 1000} seconds` : `errno ${error}`;
    throw new UserError(`container ${JSON.stringify(id)}: its sandbox does not answer: ${reason}`);
  }
  const message = JSON.parse(answer) as { result?: unknown; error?: { message: string } };
  if (message.error !== undefined) throw new UserError(message.error.message);
  return message.result;
}
