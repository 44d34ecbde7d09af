import { closeSync, openSync } from 'node:fs';
import { addon } from '../../addon/index.js';
import { reasonOfErrno, UserError } from '../errors.js';
import type { NetworkPlan } from './plan.js';

const CLONE_NEWNET = 0x40000000;
const OWN = '/proc/self/ns/net';

/**
 * Puts the calling thread into the container's network namespace, as the plan has it: the threads of the machine follow, and who
 * looks for the network of the container's process ID finds it.
 * @returns a descriptor of the namespace where it was before, for the caller to close; undefined where it stays
 * @throws UserError
 */
export function joinNetwork(plan: NetworkPlan): number | undefined {
  if (plan.kind !== 'join' && plan.kind !== 'own') return undefined;
  const host = openSync(OWN, 'r');
  const result =
    plan.kind === 'join' ? addon().setns(plan.path, CLONE_NEWNET) : addon().unshare(CLONE_NEWNET);
  if (result < 0) {
    closeSync(host);
    const what = plan.kind === 'join' ? `network namespace ${plan.path}` : 'a network namespace of its own';
    throw new UserError(`${what}: ${reasonOfErrno(result)}`);
  }
  return host;
}
