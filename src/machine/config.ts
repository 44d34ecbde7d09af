import type { ScriptDevice } from '../devices/script-device.js';
import type { DiskEngine, DiskLimits } from '../virtio/blk/index.js';
import type { PortOptions } from '../virtio/console/index.js';
import type { FsIdMap } from '../virtio/fs/index.js';
import type { NetBackend, NetSettings } from '../virtio/net/index.js';
import type { ScriptVirtioDevice } from '../virtio/script-device.js';
import { MachineError } from './error.js';
import type { Timeline } from './timeline.js';

/** One microVM as a value: everything that {@link Machine.create} needs to know. */
export interface MachineConfig {
  /** Guest RAM in bytes, a multiple of 4096, at least 16 MiB. */
  readonly memory: number;
  /** vCPUs, 1 to 254. */
  readonly cpus: number;
  readonly kernel: KernelConfig;
  /** The 16550 serial port at COM1 on these descriptors; without it there is none, and the kernel has no early console. */
  readonly serial?: StreamConfig | undefined;
  /** A virtio console (hvc0) on these descriptors. */
  readonly console?: StreamConfig | undefined;
  /**
   * Ports of that console, with names, or of one of its own: further terminals (hvcN) and plain ports (`/dev/virtio-ports/NAME`).
   * Each is on descriptors, or a stream; see {@link Machine.ports}.
   */
  readonly ports?: readonly PortOptions[];
  readonly disks?: readonly DiskConfig[];
  readonly shares?: readonly ShareConfig[];
  /** Network cards: eth0, eth1, ... of a Linux guest. */
  readonly networks?: readonly NetworkConfig[];
  readonly vsock?: VsockConfig | undefined;
  /** A virtio entropy source, where wanted with a limit on the bytes a second; true by default. */
  readonly rng?: boolean | { readonly bytesPerSecond?: number; readonly bytesBurst?: number };
  /** A memory balloon: what the guest does not need the host has back. `true`: with every default. */
  readonly balloon?: boolean | BalloonConfig;
  /** Devices on the bus that are written in TypeScript. */
  readonly devices?: readonly ScriptDevice[];
  /** Virtio devices that are written in TypeScript. */
  readonly virtio?: readonly ScriptVirtioDevice[];
  /** Guest memory as private anonymous pages (fastest to start) or as a memfd (can be shared). */
  readonly memoryBacking?: 'anonymous' | 'memfd';
  readonly timeline?: Timeline | undefined;
  /** Where the log lines of devices go; dropped by default. */
  readonly log?: (line: string) => void;
}

export interface KernelConfig {
  /** A bzImage or an ELF vmlinux for x86-64. */
  readonly path: string;
  /** Who unpacks a bzImage's payload: the host (cached by content, the default) or the image's own decompressor. */
  readonly decompress?: 'host' | 'guest';
  /** Appended to the default command line. */
  readonly commandLine?: string;
  /** Path of an initramfs. */
  readonly initrd?: string;
  /** Where unpacked kernels are cached: `$XDG_CACHE_HOME/tsvmm` or `~/.cache/tsvmm` by default; null: nowhere. */
  readonly cacheDir?: string | null;
}

/** Descriptors of this process; they stay the caller's. */
export interface StreamConfig {
  readonly input?: number;
  readonly output?: number;
}

/** A vsock device: stream connections between host and guest (`machine.vsock`). */
export interface VsockConfig {
  /** The guest's address, 3 by default. */
  readonly cid?: number | undefined;
  /**
   * Opens it to other programs of the host, by Unix sockets: the guest's connection to host port P reaches the socket `${path}_P`;
   * who connects to `path` and sends `CONNECT P` and a newline reaches the guest's port P. At most 96 bytes.
   */
  readonly path?: string | undefined;
}

export interface DiskConfig {
  /** A raw image or a block device. */
  readonly path: string;
  readonly readOnly?: boolean;
  /** Past the host's page cache (O_DIRECT). */
  readonly direct?: boolean;
  /** Request queues, 1 to 16: one a vCPU serves them best; 1 by default. */
  readonly queues?: number;
  /** What performs the requests that take waiting: io_uring (if there is one) by default. */
  readonly engine?: DiskEngine;
  readonly limits?: DiskLimits;
  /** What the guest reads as the disk's serial: at most 20 bytes. */
  readonly id?: string;
}

/** Either a folder, or several folders and files under names in a root that cannot be changed. */
export interface ShareConfig {
  /** What the guest mounts: 1 to 36 bytes. */
  readonly tag: string;
  readonly directory?: string;
  /** `path`: a folder or any file of the host. */
  readonly exports?: readonly { readonly name: string; readonly path: string; readonly readOnly?: boolean }[];
  readonly readOnly?: boolean;
  readonly cache?: 'none' | 'auto' | 'always';
  /** Which users and groups of the host the guest's are; each is itself by default. */
  readonly idMap?: FsIdMap | undefined;
}

export interface BalloonConfig {
  /** How much of its memory the guest is to give up at first, in bytes, a multiple of 4096; 0 by default. */
  readonly target?: number;
  /** The guest takes memory out of the balloon before it kills a process for want of memory. True by default. */
  readonly deflateOnOom?: boolean;
  /** The guest's memory statistics: on request, and every `interval` milliseconds. True by default. */
  readonly statistics?: boolean | { readonly interval: number };
  /** What the guest frees goes back to the host by itself. True by default. */
  readonly reporting?: boolean;
}

/** What a network card is connected to (`{ tap: 'tap0' }`, `{ passt: {} }`, ...), and how. */
export type NetworkConfig = NetBackend & NetSettings;

const MIN_MEMORY = 16 << 20;
const MAX_MEMORY = 2 ** 40;
const MAX_CPUS = 254;

/** Checks what no device checks itself. @throws MachineError that names the field */
export function checkConfig(config: MachineConfig): void {
  const { memory, cpus } = config;
  if (!Number.isSafeInteger(memory) || memory % 4096 !== 0 || memory < MIN_MEMORY || memory > MAX_MEMORY) {
    throw new MachineError(
      `memory: expected a multiple of 4096 bytes between 16 MiB and 1 TiB, got ${memory} bytes`,
    );
  }
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
    throw new MachineError(`cpus: expected a whole number from 1 to ${MAX_CPUS}, got ${cpus}`);
  }
  const tags = new Set<string>();
  for (const { tag } of config.shares ?? []) {
    if (tags.has(tag)) throw new MachineError(`shares: the tag '${tag}' is used twice`);
    tags.add(tag);
  }
}
