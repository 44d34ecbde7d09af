import type { GuestMemory } from '../memory/guest-memory.js';
import { describeBlk } from '../virtio/blk/index.js';
import { describeConsole } from '../virtio/console/index.js';
import type { VirtioDescription } from '../virtio/description.js';
import { describeFs } from '../virtio/fs/index.js';
import { describeRng } from '../virtio/rng/index.js';
import { describeScriptDevice } from '../virtio/script-device.js';
import { describeVsock, type Vsock } from '../virtio/vsock/index.js';
import type { MachineConfig } from './config.js';

/** The virtio devices that a configuration asks for, in the order in which the guest finds them. */
export function describeDevices(
  config: MachineConfig,
  memory: () => GuestMemory,
  release: (() => void)[],
): { readonly descriptions: readonly VirtioDescription[]; readonly vsock: Vsock | undefined } {
  const descriptions: VirtioDescription[] = [];
  for (const [index, disk] of (config.disks ?? []).entries()) {
    const blk = describeBlk({ name: `blk${index}`, ...disk });
    release.push(() => blk.close());
    descriptions.push(blk.description);
  }
  for (const share of config.shares ?? []) {
    descriptions.push(describeFs({ name: share.tag, ...share }));
  }
  let vsock: Vsock | undefined;
  if (config.vsock !== undefined) {
    const described = describeVsock({ name: 'vsock', cid: config.vsock.cid ?? 3 });
    vsock = described.vsock;
    release.push(() => described.vsock.close());
    if (config.vsock.path !== undefined) described.vsock.open(config.vsock.path);
    descriptions.push(described.description);
  }
  if (config.console !== undefined)
    descriptions.push(describeConsole({ name: 'console', ...config.console }));
  if (config.rng !== false) descriptions.push(describeRng({ name: 'rng' }));
  for (const device of config.virtio ?? []) descriptions.push(describeScriptDevice(device, memory));
  return { descriptions, vsock };
}
