import type { NetworkCleanup } from '../network/attach.js';

/** Where a container is in its life (runtime specification, runtime.md, "State"), and `paused` as runc has it. */
export type ContainerStatus = 'creating' | 'created' | 'running' | 'paused' | 'stopped';

/** What state.json holds. Only the container's sandbox writes it. */
export interface StoredState {
  readonly version: 1;
  readonly ociVersion: string;
  readonly id: string;
  /** The sandbox: the process on the host that stands for the container's, and ends with its status. */
  readonly pid: number;
  /** When it began: ./process.ts. */
  readonly startTime: string;
  readonly status: ContainerStatus;
  /** Absolute paths of the host. */
  readonly bundle: string;
  readonly rootfs: string;
  /** RFC 3339. */
  readonly created: string;
  readonly owner: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** Bytes, and vCPUs, of the machine: what an update cannot exceed. */
  readonly machine: { readonly memory: number; readonly cpus: number };
  /** Of `run`: it ends with its command, and what a killed one leaves anybody may clean up. */
  readonly transient: boolean;
  /** Control groups of the host that the container was put into and that go with it. */
  readonly cgroups: readonly string[];
  /** Why its machine failed, where it did. */
  readonly failure?: string;
  /** What src/runtime/network/ has to undo; null: nothing. */
  readonly network: NetworkCleanup | null;
}

/** A container as its commands see it. */
export interface ContainerState extends StoredState {}

/**
 * What `state` prints and hooks get: the specification's fields, and those that runc adds.
 * @param log where the console of its machine is kept
 */
export function ociState(state: ContainerState, log?: string): Record<string, unknown> {
  return {
    ociVersion: state.ociVersion,
    id: state.id,
    pid: state.status === 'stopped' ? 0 : state.pid,
    status: state.status,
    bundle: state.bundle,
    rootfs: state.rootfs,
    created: state.created,
    annotations: state.annotations,
    owner: state.owner,
    ...(log === undefined ? {} : { log }),
    ...(state.failure === undefined ? {} : { failure: state.failure }),
  };
}
