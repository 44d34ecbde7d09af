import type { FsIdMap } from '../virtio/fs/index.js';
import { UserError } from './errors.js';
import { isGuestDevice } from './guest-devices.js';
import { type GuestMounts, guestMounts } from './guest-mounts.js';
import { type HostUser, ownersOf } from './owners.js';
import { KNOWN_CAPABILITIES } from './spec/capabilities.js';
import type { CapabilitySet, Device, LinuxSection, Process, Resources, Spec } from './spec/types.js';

const ROOT: HostUser = { uid: 0, gid: 0 };

/** The runtime in the guest refuses any other than 1.0; what newer ones add it doesn't know, or takes all the same. */
const GUEST_VERSION = '1.0.2';

/** A bundle's configuration as the guest gets it, and what a person should know about it. */
export interface GuestConfig extends Omit<GuestMounts, 'mounts'> {
  readonly spec: Spec;
  /** What of the configuration has no effect in a machine. */
  readonly warnings: readonly string[];
  /** Whose the guest's files are on the host, for all shares. */
  readonly idMap: FsIdMap | undefined;
}

/**
 * Adapts a validated config.json for the runtime in the guest. What cannot mean the same inside a machine is a
 * UserError that names the field; what only loses its meaning there is left out, with a warning. docs/run.md has the
 * whole list. The agent sets `root.path`.
 * @param directory the bundle's folder
 * @param user who runs tsvmm, and has to own what the guest makes on the host
 */
export function guestConfig(spec: Spec, id: string, directory: string, user: HostUser = ROOT): GuestConfig {
  const warnings: string[] = [];
  refuseHardware(spec);
  if (spec.vm?.hypervisor !== undefined) {
    warnings.push('vm.hypervisor has no effect: tsvmm is the hypervisor');
  }
  const { hooks, vm: _vm, ...kept } = spec;
  const { mounts, exports, files } = guestMounts(spec.mounts ?? [], directory, warnings);
  const config: Spec = {
    ...kept,
    ociVersion: GUEST_VERSION,
    root: { ...spec.root, path: 'rootfs' },
    process: guestProcess(spec.process, warnings),
    mounts,
  };
  // All other hooks run on the host; these, "in the container namespace" with a path in it, run in the guest.
  const { startContainer = [] } = hooks ?? {};
  if (startContainer.length > 0) config.hooks = { startContainer };
  const { idMap, linux } = ownersOf(spec, user, warnings);
  if (linux !== undefined) config.linux = guestLinux(linux, id, warnings);
  return { spec: config, warnings, exports, files, idMap };
}

function refuse(field: string, why: string): never {
  throw new UserError(`config.json: ${field}: ${why}`);
}

function refuseHardware(spec: Spec): void {
  const hardware = spec.vm?.hwConfig;
  for (const name of ['deviceTree', 'dtdevs', 'iomems', 'irqs'] as const) {
    if (hardware?.[name] !== undefined && hardware[name].length > 0) {
      refuse(`vm.hwConfig.${name}`, 'devices of the host cannot be given to a machine');
    }
  }
}

function guestProcess(process: Process, warnings: string[]): Process {
  const { apparmorProfile, selinuxLabel, ...kept } = process;
  if (apparmorProfile) warnings.push('process.apparmorProfile has no effect: the guest has no AppArmor');
  if (selinuxLabel) warnings.push('process.selinuxLabel has no effect: the guest has no SELinux');
  for (const name of ['scheduler', 'ioPriority', 'execCPUAffinity'] as const) {
    if (kept[name] === undefined) continue;
    delete kept[name];
    warnings.push(`process.${name} has no effect: the runtime in the guest does not know it`);
  }
  if (kept.capabilities !== undefined) {
    kept.capabilities = guestCapabilities(kept.capabilities, warnings);
  }
  return kept;
}

/** "Any value which cannot be mapped to a relevant kernel interface ... MUST be logged as a warning" (config.md). */
function guestCapabilities(
  sets: NonNullable<Process['capabilities']>,
  warnings: string[],
): NonNullable<Process['capabilities']> {
  const known: Partial<Record<CapabilitySet, string[]>> = {};
  const unknown = new Set<string>();
  for (const name of ['bounding', 'effective', 'inheritable', 'permitted', 'ambient'] as const) {
    const set = sets[name];
    if (set === undefined) continue;
    known[name] = set.filter((capability) => KNOWN_CAPABILITIES.has(capability));
    for (const capability of set) if (!KNOWN_CAPABILITIES.has(capability)) unknown.add(capability);
  }
  for (const capability of unknown) warnings.push(`process.capabilities: ${capability} is not known`);
  return known;
}

function guestLinux(linux: LinuxSection, id: string, warnings: string[]): LinuxSection {
  if (Object.keys(linux.netDevices ?? {}).length > 0) {
    refuse('linux.netDevices', 'network devices of the host cannot be moved into a machine');
  }
  if (Object.keys(linux.intelRdt ?? {}).length > 0) {
    refuse('linux.intelRdt', "the host's cache and memory bandwidth control cannot be used from a machine");
  }
  for (const [index, device] of (linux.devices ?? []).entries())
    checkDevice(device, `linux.devices[${index}]`);

  const { mountLabel, netDevices: _netDevices, intelRdt: _intelRdt, memoryPolicy, ...kept } = linux;
  if (mountLabel) warnings.push('linux.mountLabel has no effect: the guest has no SELinux');
  if (memoryPolicy !== undefined) {
    warnings.push('linux.memoryPolicy has no effect: the machine has one NUMA node');
  }
  // A path of the host's hierarchy (or systemd's slice:prefix:name) means nothing in the guest, which is all the container's.
  kept.cgroupsPath = `/${id}`;
  if (linux.namespaces !== undefined) kept.namespaces = guestNamespaces(linux.namespaces, warnings);
  if (kept.resources !== undefined) kept.resources = guestResources(kept.resources);
  if (kept.seccomp !== undefined) kept.seccomp = guestSeccomp(kept.seccomp);
  return kept;
}

type Seccomp = NonNullable<LinuxSection['seccomp']>;

/** A listener would get descriptors of the guest's kernel; one that no rule sends anything to is not missed. */
function guestSeccomp({ listenerPath: _path, listenerMetadata: _metadata, ...kept }: Seccomp): Seccomp {
  const { defaultAction, syscalls = [] } = kept;
  const actions = [defaultAction, ...syscalls.map(({ action }) => action)];
  if (actions.includes('SCMP_ACT_NOTIFY')) {
    refuse('linux.seccomp.listenerPath', 'seccomp notifications cannot leave a machine');
  }
  return kept;
}

/** Namespaces of other containers of a pod that a container of its own machine does without. */
const OWN_NAMESPACES: ReadonlySet<string> = new Set(['ipc', 'cgroup']);

/** A namespace with a path is the host's: of the network's the traffic is carried over, some others are not missed. */
function guestNamespaces(
  namespaces: NonNullable<LinuxSection['namespaces']>,
  warnings: string[],
): NonNullable<LinuxSection['namespaces']> {
  return namespaces.map(({ type, path }, index) => {
    if (path === undefined || path === '') return { type };
    if (type === 'uts') {
      // Its name is carried over: ./hostname.ts.
    } else if (OWN_NAMESPACES.has(type)) {
      warnings.push(
        `linux.namespaces[${index}]: the ${type} namespace ${path} cannot be shared with a machine: it has its own`,
      );
    } else if (type !== 'network') {
      refuse(
        `linux.namespaces[${index}].path`,
        `the ${type} namespace ${path} is the host's; a container in a machine cannot join it`,
      );
    }
    return { type };
  });
}

function checkDevice({ type, path, major, minor }: Device, field: string): void {
  if (type === 'p') return;
  if (!isGuestDevice(type, major, minor)) {
    refuse(
      field,
      `${path} (${type} ${major ?? '?'}:${minor ?? '?'}) is a device of the host; a machine has none of them`,
    );
  }
}

function guestResources(resources: Resources): Resources {
  for (const [name, value] of Object.entries(resources.blockIO ?? {})) {
    if (name.endsWith('Device') && Array.isArray(value) && value.length > 0) {
      refuse(`linux.resources.blockIO.${name}`, "names block devices of the host; a machine's are others");
    }
  }
  if (resources.cpu === undefined) return resources;
  // The host's processor and node numbers: the machine is given as many vCPUs instead (./sizing.ts).
  const { cpus: _cpus, mems: _mems, ...cpu } = resources.cpu;
  return { ...resources, cpu };
}
