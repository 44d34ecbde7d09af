import { statSync } from 'node:fs';
import { reasonOf, UserError } from '../errors.js';
import type { Spec } from '../spec/types.js';

/** How a container gets its network. */
export type NetworkPlan =
  /** From the interfaces of the network namespace with this path, which the sandbox joins. */
  | { readonly kind: 'join'; readonly path: string }
  /** A namespace of its own, and of what hooks put into it. */
  | { readonly kind: 'own' }
  /** By passt. `required`: without it, it is an error rather than a warning. */
  | {
      readonly kind: 'passt';
      readonly required: boolean;
      readonly program: string;
      readonly arguments: readonly string[];
    }
  /** A loopback only. */
  | { readonly kind: 'none' };

export interface NetworkWish {
  readonly spec: Spec;
  readonly settings: {
    readonly network: 'auto' | 'passt' | 'none';
    readonly passt: { readonly program: string; readonly arguments: readonly string[] };
  };
  /** Without the right to make network namespaces. */
  readonly rootless: boolean;
  readonly command: 'run' | 'create';
}

const HOST_NETWORK =
  "the bundle asks for the host's network, which a machine cannot share. Give it a network namespace (podman and docker: " +
  'no --network host), or set the annotation io.tsvmm.network: passt for a user-mode network with the ' +
  "host's addresses, none for a loopback only";

/** @throws UserError for a namespace that is not there or is none, and where the host's network is asked for in earnest */
export function planNetwork({ spec, settings, rootless, command }: NetworkWish): NetworkPlan {
  const namespaces = spec.linux?.namespaces ?? [];
  const index = namespaces.findIndex(({ type }) => type === 'network');
  const path = namespaces[index]?.path;
  const passt = (required: boolean): NetworkPlan => ({ kind: 'passt', required, ...settings.passt });
  const isHost = index < 0 || (path !== undefined && isOwn(path, `linux.namespaces[${index}].path`));
  if (!isHost && path !== undefined) return { kind: 'join', path };
  if (settings.network === 'none') return { kind: 'none' };
  if (settings.network === 'passt') return passt(true);
  if (!isHost) return rootless ? { kind: 'none' } : { kind: 'own' };
  if (command === 'create' && !rootless) throw new UserError(HOST_NETWORK);
  return passt(false);
}

/** Whether the path is the namespace that this process is in. */
function isOwn(path: string, field: string): boolean {
  const own = statSync('/proc/self/ns/net');
  try {
    const other = statSync(path);
    if (other.dev === own.dev) return other.ino === own.ino;
  } catch (error) {
    throw new UserError(`config.json: ${field}: ${path}: ${reasonOf(error)}`);
  }
  throw new UserError(`config.json: ${field}: ${path} is no network namespace`);
}
