import { askSandbox } from './control-client.js';
import { UserError } from './errors.js';
import { sleep } from './sleep.js';
import { ociState } from './state/state.js';
import type { ContainerStore } from './state/store.js';
import { storedHooks } from './stored-hooks.js';

/** How often a container that is being made is looked at. */
const PATIENCE_MS = 20;

/** Who starts a container right behind its `create` may come before that has ended; the sandbox ends it in time, one way or the other. */
function whenCreated(store: ContainerStore, id: string): ReturnType<ContainerStore['load']> {
  for (;;) {
    const state = store.load(id);
    if (state.status !== 'creating') return state;
    sleep(PATIENCE_MS);
  }
}

/**
 * Starts the process of a created container, and runs the poststart hooks: where one fails the container is stopped.
 * @throws UserError
 */
export async function startContainer(store: ContainerStore, id: string): Promise<void> {
  const state = whenCreated(store, id);
  if (state.status === 'stopped') throw new UserError('cannot start a container that has stopped');
  if (state.status !== 'created') throw new UserError(`cannot start an already ${state.status} container`);
  askSandbox(store, id, 'start');
  const hooks = await storedHooks(store, id, 'poststart');
  if (hooks.length === 0) return;
  const { runHooks } = await import('./hooks.js');
  try {
    await runHooks('poststart', hooks, ociState({ ...state, status: 'running' }), state.bundle);
  } catch (error) {
    askSandbox(store, id, 'stop');
    throw error;
  }
}
