import type { GuestMemory } from '../memory/guest-memory.js';
import { type Balloon, describeBalloon } from '../virtio/balloon/index.js';
import { type Disk, describeBlk } from '../virtio/blk/index.js';
import { type ConsolePort, describeConsole } from '../virtio/console/index.js';
import type { VirtioDescription } from '../virtio/description.js';
import { describeFs } from '../virtio/fs/index.js';
import type { Nic } from '../virtio/net/index.js';
import { describeRng } from '../virtio/rng/index.js';
import { describeScriptDevice } from '../virtio/script-device.js';
import { describeVsock, type Vsock } from '../virtio/vsock/index.js';
import type { MachineConfig } from './config.js';

/** The virtio devices that a configuration asks for, in the order in which the guest finds them. */
export function describeDevices(
  config: MachineConfig,
  nics: readonly Nic[],
  memory: () => GuestMemory,
  release: (() => void)[],
): {
  readonly descriptions: readonly VirtioDescription[];
  readonly vsock: Vsock | undefined;
  readonly disks: ReadonlyMap<string, Disk>;
  readonly balloon: Balloon | undefined;
  readonly ports: ReadonlyMap<string, ConsolePort>;
} {
  const descriptions: VirtioDescription[] = [];
  const disks = new Map<string, Disk>();
  for (const [index, disk] of (config.disks ?? []).entries()) {
    const name = `blk${index}`;
    const blk = describeBlk({ name, ...disk });
    release.push(() => blk.close());
    descriptions.push(blk.description);
    disks.set(name, blk.disk);
  }
  for (const share of config.shares ?? []) {
    descriptions.push(describeFs({ name: share.tag, ...share }));
  }
  descriptions.push(...nics.map(({ description }) => description));
  let vsock: Vsock | undefined;
  if (config.vsock !== undefined) {
    const described = describeVsock({ name: 'vsock', cid: config.vsock.cid ?? 3 });
    vsock = described.vsock;
    release.push(() => described.vsock.close());
    if (config.vsock.path !== undefined) described.vsock.open(config.vsock.path);
    descriptions.push(described.description);
  }
  let ports: ReadonlyMap<string, ConsolePort> = new Map();
  if (config.console !== undefined || (config.ports?.length ?? 0) > 0) {
    const described = describeConsole({ name: 'console', terminal: config.console, ports: config.ports });
    ports = described.ports;
    for (const port of ports.values()) release.push(() => port.close());
    descriptions.push(described.description);
  }
  const { rng = true } = config;
  if (rng !== false) descriptions.push(describeRng({ name: 'rng', ...(rng === true ? {} : rng) }));
  let balloon: Balloon | undefined;
  if (config.balloon !== undefined && config.balloon !== false) {
    const options = config.balloon === true ? {} : config.balloon;
    const described = describeBalloon({ name: 'balloon', memory: config.memory, ...options });
    balloon = described.balloon;
    release.push(() => described.balloon.close());
    descriptions.push(described.description);
  }
  for (const device of config.virtio ?? []) descriptions.push(describeScriptDevice(device, memory));
  return { descriptions, vsock, disks, balloon, ports };
}
