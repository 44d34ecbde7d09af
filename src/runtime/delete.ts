import { addon } from '../addon/index.js';
import { lockContainerId } from './container-lock.js';
import { askSandbox } from './control-client.js';
import { messageOf, UserError } from './errors.js';
import { removeCgroups } from './host-cgroup.js';
import type { NetworkCleanup } from './network/attach.js';
import { sleep } from './sleep.js';
import type { Hook } from './spec/types.js';
import { type ContainerState, ociState } from './state/state.js';
import type { ContainerStore } from './state/store.js';
import { storedHooks } from './stored-hooks.js';

/** How long a sandbox may take to end by itself before it is killed. */
const END_MS = 15_000;
/** And how long the kernel may take for that. */
const KILL_MS = 30_000;
/** And until the sandbox, which has ended, is in none of its control groups any more. */
const CGROUP_MS = 1_000;
const SIGKILL = 9;
const STEP_MS = 2;

/**
 * Removes what is left of a container: a stopped one, one that was created and never started, and with `force` one that runs, too.
 * @throws UserError
 */
export async function deleteContainer(
  store: ContainerStore,
  id: string,
  force: boolean,
  warn: (message: string) => void,
): Promise<void> {
  if (!store.exists(id)) {
    if (force) return;
    store.load(id); // says that there is none
  }
  const state = stateOf(store, id, force);
  if (state !== undefined && state.status !== 'stopped') {
    if (state.status !== 'created' && !force) {
      throw new UserError(
        `cannot delete container ${JSON.stringify(id)} that is not stopped: ${state.status}`,
      );
    }
    endSandbox(store, state);
  }
  lock(store, id);
  // The kernel lets go of a process's files, and so of its lock, somewhat before it takes it out of its groups.
  if (state !== undefined) waitUntil(() => removeCgroups(state.cgroups), CGROUP_MS);
  // Another delete may have been quicker, or a creation that was cut off has undone itself.
  if (!store.exists(id)) return;
  if (state !== undefined) {
    if (state.network !== null) await detach(state.network, warn);
    await runPoststop(store, state, warn);
  }
  store.remove(id);
}

/** Undefined where the container was never completed, or (with `force`) its state cannot be read. */
function stateOf(store: ContainerStore, id: string, force: boolean): ContainerState | undefined {
  try {
    return store.load(id);
  } catch (error) {
    if (!force && !messageOf(error).endsWith('does not exist')) throw error;
    return undefined;
  }
}

function endSandbox(store: ContainerStore, state: ContainerState): void {
  try {
    askSandbox(store, state.id, 'stop', {}, END_MS);
  } catch {
    // One that does not listen (yet, or any more) gets no other chance.
    addon().kill(state.pid, SIGKILL);
    return;
  }
  if (waitUntil(() => stopped(store, state.id), END_MS)) return;
  addon().kill(state.pid, SIGKILL);
}

function stopped(store: ContainerStore, id: string): boolean {
  return !store.exists(id) || store.load(id).status === 'stopped';
}

/** A sandbox holds the lock until it has ended; so does another `delete`. */
function lock(store: ContainerStore, id: string): void {
  let problem: unknown;
  const locked = waitUntil(() => {
    try {
      lockContainerId(store.root, id);
      return true;
    } catch (error) {
      problem = error;
      return false;
    }
  }, KILL_MS);
  if (!locked) throw problem;
}

function waitUntil(condition: () => boolean, timeoutMs: number): boolean {
  for (const end = performance.now() + timeoutMs; performance.now() < end; ) {
    if (condition()) return true;
    sleep(STEP_MS);
  }
  return condition();
}

/** What a sandbox that was killed has left in a network namespace of others. */
async function detach(cleanup: NetworkCleanup, warn: (message: string) => void): Promise<void> {
  const { detachNetwork } = await import('./network/attach.js');
  try {
    detachNetwork(cleanup);
  } catch (error) {
    warn(messageOf(error));
  }
}

async function runPoststop(
  store: ContainerStore,
  state: ContainerState,
  warn: (message: string) => void,
): Promise<void> {
  let hooks: readonly Hook[];
  try {
    hooks = await storedHooks(store, state.id, 'poststop');
  } catch (error) {
    warn(messageOf(error));
    return;
  }
  if (hooks.length === 0) return;
  const { runPoststopHooks } = await import('./hooks.js');
  await runPoststopHooks(hooks, ociState({ ...state, status: 'stopped' }), state.bundle, warn);
}
