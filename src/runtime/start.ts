import { askSandbox } from './control-client.js';
import { UserError } from './errors.js';
import { ociState } from './state/state.js';
import type { ContainerStore } from './state/store.js';

/** How often a container that is being made is looked at. */
const PATIENCE_MS = 20;

/** Who starts a container right behind its `create` may come before that has ended; the sandbox ends it in time, one way or the other. */
function whenCreated(store: ContainerStore, id: string): ReturnType<ContainerStore['load']> {
  const nobody = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const state = store.load(id);
    if (state.status !== 'creating') return state;
    Atomics.wait(nobody, 0, 0, PATIENCE_MS);
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
  const config = store.config(id);
  // Parsing all of it for what hardly any has would cost more than the start itself.
  if (!config.includes('"poststart"')) return;
  const { runHooks } = await import('./hooks.js');
  const { parseSpec } = await import('./spec/load.js');
  const { hooks } = parseSpec(config).spec;
  try {
    await runHooks('poststart', hooks?.poststart, ociState({ ...state, status: 'running' }), state.bundle);
  } catch (error) {
    askSandbox(store, id, 'stop');
    throw error;
  }
}
