import { readFileSync, writeFileSync } from 'node:fs';
import { addon } from '../addon/index.js';
import { reasonOfErrno, UserError } from './errors.js';
import type { Spec } from './spec/types.js';

const EPERM = -1;
const CLONE_NEWUTS = 0x04000000;
/** Of the UTS namespace of the thread that opens it. */
const HOSTNAME = '/proc/sys/kernel/hostname';

/**
 * Gives this thread the UTS namespace of the container, and the guest the name that a container without one of its own finds there:
 * that of the namespace's path (another container of a pod, whose sandbox was here too), or else the host's, as with any runtime.
 * Without the rights for it (rootless) the guest has the host's name.
 * @param spec as the bundle has it
 * @param guest what becomes of it: gets the name
 * @throws UserError
 */
export function enterHostname(spec: Spec, guest: Spec): void {
  const namespace = spec.linux?.namespaces?.find(({ type }) => type === 'uts');
  if (namespace?.path) {
    const status = addon().setns(namespace.path, CLONE_NEWUTS);
    if (status < 0 && status !== EPERM) {
      throw new UserError(`config.json: the uts namespace ${namespace.path}: ${reasonOfErrno(status)}`);
    }
  }
  guest.hostname ||= readName();
  if (namespace === undefined) {
    guest.linux = { ...guest.linux, namespaces: [...(guest.linux?.namespaces ?? []), { type: 'uts' }] };
  } else if (!namespace.path && addon().unshare(CLONE_NEWUTS) === 0) {
    try {
      writeFileSync(HOSTNAME, guest.hostname);
    } catch {
      // Where /proc/sys is read-only nobody finds the name here; the container has it all the same.
    }
  }
}

function readName(): string {
  return readFileSync(HOSTNAME, 'latin1').trim();
}
