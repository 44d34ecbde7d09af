import { closeSync, openSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import { reasonOfErrno, UserError } from '../errors.js';
import type { NetworkPlan } from './plan.js';

const CLONE_NEWNET = 0x40000000;
const OWN = '/proc/self/ns/net';

/** Where a sandbox was before it entered its container's network namespace. */
export interface HostNetwork {
  /** Runs `work` with the calling thread back in the host's network namespace. */
  outside<Result>(work: () => Promise<Result>): Promise<Result>;
}

const SAME: HostNetwork = { outside: (work) => work() };

/**
 * Puts the calling thread into the container's network namespace, as the plan has it: the threads of the machine follow, and who
 * looks for the network of the container's process ID finds it. `work` of outside() must not wait: other work of this thread would be outside as well.
 * @throws UserError
 */
export function joinNetwork(plan: NetworkPlan): HostNetwork {
  if (plan.kind !== 'join' && plan.kind !== 'own') return SAME;
  const host = openSync(OWN, 'r');
  const result =
    plan.kind === 'join' ? addon().setns(plan.path, CLONE_NEWNET) : addon().unshare(CLONE_NEWNET);
  if (result < 0) {
    closeSync(host);
    const what = plan.kind === 'join' ? `network namespace ${plan.path}` : 'a network namespace of its own';
    throw new UserError(`${what}: ${reasonOfErrno(result)}`);
  }
  const container = openSync(OWN, 'r');
  return {
    async outside(work) {
      addon().setns(host, CLONE_NEWNET);
      try {
        return await work();
      } finally {
        addon().setns(container, CLONE_NEWNET);
      }
    },
  };
}
