import type { MachineConfig, NetworkConfig, ShareConfig } from '../machine/config.js';
import type { Timeline } from '../machine/timeline.js';
import type { RunParams } from './agent-client.js';
import type { Bundle } from './bundle.js';
import type { GuestConfig } from './guest-config.js';
import { guestFiles } from './guest-files.js';
import { makeMountPoints } from './mount-points.js';
import type { MachineSize } from './sizing.js';

export interface ContainerMachine {
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  /** Added to tsvmm's own. */
  readonly kernelParameters: readonly string[];
  readonly size: MachineSize;
  readonly networks: readonly NetworkConfig[];
  /** Where the guest's console goes. */
  readonly consoleFd: number;
  readonly debug: boolean;
  readonly timeline?: Timeline | undefined;
  readonly log: (line: string) => void;
}

const ROOTFS_TAG = 'rootfs';
const MOUNTS_TAG = 'mounts';

/** The machine of a container. */
export function machineConfig(bundle: Bundle, guest: GuestConfig, options: ContainerMachine): MachineConfig {
  const { spec, root } = bundle;
  const files = guestFiles({ kernel: options.kernel, initrd: options.initrd });
  const parameters = [options.debug ? 'tsvmm.debug' : 'quiet', ...options.kernelParameters];
  return {
    ...options.size,
    kernel: { path: files.kernel, initrd: files.initrd, commandLine: parameters.join(' ') },
    serial: { output: options.consoleFd },
    vsock: {},
    shares: sharesOf(bundle, guest),
    ...(root.type === 'image' ? { disks: [{ path: root.path, readOnly: spec.root.readonly === true }] } : {}),
    ...(options.networks.length > 0 ? { networks: options.networks } : {}),
    timeline: options.timeline,
    log: options.log,
  };
}

/** What the guest sees of the host's files: the root file system, and one share for all bind mounts. */
function sharesOf({ root, spec }: Bundle, { exports, files, idMap }: GuestConfig): ShareConfig[] {
  const shares: ShareConfig[] = [];
  if (root.type === 'directory') {
    const readOnly = spec.root.readonly === true && makeMountPoints(root.directory, spec, files);
    shares.push({ tag: ROOTFS_TAG, directory: root.directory, readOnly, idMap });
  }
  if (exports.length > 0) shares.push({ tag: MOUNTS_TAG, exports, idMap });
  return shares;
}

/** What the agent is told to run. */
export function containerParams(
  id: string,
  { root, spec }: Bundle,
  guest: GuestConfig,
): Omit<RunParams, 'streams'> {
  return {
    id,
    config: guest.spec,
    rootfs:
      root.type === 'directory'
        ? { type: 'virtiofs', tag: ROOTFS_TAG }
        : { type: 'disk', device: '/dev/vda', readonly: spec.root.readonly === true },
    ...(guest.exports.length > 0 ? { mounts: { tag: MOUNTS_TAG } } : {}),
  };
}
