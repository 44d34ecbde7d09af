/**
 * The OCI runtime specification's config.json (1.0 to 1.3), as far as tsvmm decides on it; what it only hands on to
 * the guest is `unknown` here. ./load.ts validates all of it by ./schema.
 */
export interface Spec {
  ociVersion: string;
  root: { path: string; readonly?: boolean };
  process: Process;
  hostname?: string;
  domainname?: string;
  mounts?: Mount[];
  hooks?: Partial<Record<HookName, Hook[]>>;
  annotations?: Record<string, string>;
  linux?: LinuxSection;
  vm?: VmSection;
}

export type HookName =
  | 'prestart'
  | 'createRuntime'
  | 'createContainer'
  | 'startContainer'
  | 'poststart'
  | 'poststop';

export interface Hook {
  path: string;
  args?: string[];
  env?: string[];
  /** Seconds. */
  timeout?: number;
}

export interface Process {
  terminal?: boolean;
  consoleSize?: { height: number; width: number };
  cwd: string;
  env?: string[];
  args: string[];
  user?: { uid?: number; gid?: number; umask?: number; additionalGids?: number[]; username?: string };
  rlimits?: { type: string; soft: number; hard: number }[];
  capabilities?: Partial<Record<CapabilitySet, string[]>>;
  noNewPrivileges?: boolean;
  apparmorProfile?: string;
  selinuxLabel?: string;
  oomScoreAdj?: number;
  scheduler?: unknown;
  ioPriority?: unknown;
  execCPUAffinity?: unknown;
}

export type CapabilitySet = 'bounding' | 'effective' | 'inheritable' | 'permitted' | 'ambient';

export interface Mount {
  destination: string;
  type?: string;
  source?: string;
  options?: string[];
  uidMappings?: unknown[];
  gidMappings?: unknown[];
}

export type NamespaceType = 'pid' | 'network' | 'mount' | 'ipc' | 'uts' | 'user' | 'cgroup' | 'time';

export interface IdMapping {
  containerID: number;
  hostID: number;
  size: number;
}

export interface LinuxSection {
  namespaces?: { type: NamespaceType; path?: string }[];
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
  timeOffsets?: unknown;
  devices?: Device[];
  netDevices?: Record<string, unknown>;
  cgroupsPath?: string;
  resources?: Resources;
  rootfsPropagation?: string;
  seccomp?: {
    defaultAction?: string;
    listenerPath?: string;
    listenerMetadata?: string;
    syscalls?: { action?: string; [key: string]: unknown }[];
    [key: string]: unknown;
  };
  sysctl?: Record<string, string>;
  maskedPaths?: string[];
  readonlyPaths?: string[];
  mountLabel?: string;
  intelRdt?: Record<string, unknown>;
  memoryPolicy?: unknown;
  personality?: unknown;
}

export interface Device {
  type: 'c' | 'b' | 'u' | 'p';
  path: string;
  major?: number;
  minor?: number;
}

export interface Resources {
  /** Bytes; 0 and below: no limit. */
  memory?: { limit?: number; [key: string]: unknown };
  cpu?: {
    /** Microseconds a period; 0 and below: no limit. */
    quota?: number;
    /** Microseconds. */
    period?: number;
    /** Of cgroup v1: 2 to 262144. */
    shares?: number;
    cpus?: string;
    mems?: string;
    [key: string]: unknown;
  };
  blockIO?: Record<string, unknown>;
  /** Files of cgroup v2 and what is written to them. */
  unified?: Record<string, string>;
  [key: string]: unknown;
}

export interface VmSection {
  hypervisor?: { path: string; parameters?: string[] };
  kernel?: { path: string; parameters?: string[]; initrd?: string };
  image?: { path: string; format: 'raw' | 'qcow2' | 'vdi' | 'vmdk' | 'vhd' };
  hwConfig?: {
    deviceTree?: string;
    vcpus?: number;
    /** Bytes. */
    memory?: number;
    dtdevs?: unknown[];
    iomems?: unknown[];
    irqs?: unknown[];
  };
}
