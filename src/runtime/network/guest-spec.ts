import { lstatSync } from 'node:fs';
import type { Spec } from '../spec/types.js';
import type { Attached } from './attach.js';

/** The network namespace of the guest's first process, which has the machine's network cards. */
const MACHINE_NAMESPACE = '/proc/1/ns/net';
/** Where the agent writes what `network.set` has of resolvers. */
const RESOLV_CONF_SOURCE = '/run/tsvmm-resolv.conf';
const RESOLV_CONF = '/etc/resolv.conf';

/**
 * Makes the network part of the guest's configuration: a container that has a network namespace gets the machine's, where that
 * has cards, and the resolvers of a user-mode network, unless the bundle mounts its own.
 * @param rootfs the host's folder; undefined where it is an image
 */
export function setGuestNetwork(spec: Spec, attached: Attached, rootfs: string | undefined): void {
  if (attached.networks.length === 0) return;
  for (const namespace of spec.linux?.namespaces ?? []) {
    if (namespace.type === 'network') namespace.path = MACHINE_NAMESPACE;
  }
  if (attached.guest?.resolvConf === undefined) return;
  const mounts = spec.mounts ?? [];
  const covered = mounts.some(({ destination }) => /^\/*etc(\/+resolv\.conf)?\/*$/.test(destination));
  if (covered || !canMount(rootfs, spec.root.readonly === true)) return;
  mounts.push({ destination: RESOLV_CONF, type: 'bind', source: RESOLV_CONF_SOURCE, options: ['bind'] });
  spec.mounts = mounts;
}

/** The runtime in the guest makes a mount point that is missing, where it may write. */
function canMount(rootfs: string | undefined, readOnly: boolean): boolean {
  if (rootfs === undefined) return !readOnly;
  const etc = lstatSync(`${rootfs}/etc`, { throwIfNoEntry: false });
  if (etc?.isDirectory() !== true) return false;
  return !readOnly || lstatSync(`${rootfs}${RESOLV_CONF}`, { throwIfNoEntry: false })?.isFile() === true;
}
