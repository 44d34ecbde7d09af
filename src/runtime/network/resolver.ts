import { readFileSync } from 'node:fs';
import type { Vsock } from '../../virtio/vsock/index.js';
import { messageOf } from '../errors.js';
import type { Spec } from '../spec/types.js';

/** The host's vsock port that the guest's name server asks. */
export const RESOLVER_PORT = 1023;
const DNS_PORT = 53;
const MAX_OPEN = 128;
/** A resolver itself gives up earlier. */
const IDLE_MS = 30_000;
const MAX_RESOLV_CONF = 64 << 10;

/**
 * The name server on the loopback of its network namespace that a container is told of: docker's, for networks that users make, is at
 * 127.0.0.11. In a machine that would be the guest's own loopback.
 */
export function namespaceResolver({ mounts = [] }: Spec, directory: string): string | undefined {
  const mount = mounts.find(({ destination }) => destination === '/etc/resolv.conf');
  if (mount?.source === undefined) return undefined;
  try {
    const path = mount.source.startsWith('/') ? mount.source : `${directory}/${mount.source}`;
    const text = readFileSync(path, 'utf8').slice(0, MAX_RESOLV_CONF);
    return /^\s*nameserver\s+(127(?:\.\d{1,3}){3})\s*$/m.exec(text)?.[1];
  } catch {
    // Whoever mounts it says so.
    return undefined;
  }
}

/**
 * Connects the guest's name server with the one at `address` of the network namespace that the calling thread is in: DNS over TCP on both
 * sides, byte by byte.
 */
export function serveResolver(vsock: Vsock, address: string, warn: (message: string) => void): void {
  let open = 0;
  let warned = false;
  const net = import('node:net');
  vsock.listen(RESOLVER_PORT, async (guest) => {
    guest.on('error', () => guest.destroy());
    if (open >= MAX_OPEN) {
      guest.destroy();
      return;
    }
    open++;
    guest.once('close', () => open--);
    const { connect } = await net;
    const server = connect({ host: address, port: DNS_PORT, allowHalfOpen: true });
    server.setTimeout(IDLE_MS, () => server.destroy());
    server.on('error', (error) => {
      if (!warned) warn(`network: the name server ${address}: ${messageOf(error)}`);
      warned = true;
    });
    // What it said to its end is still on its way to the guest.
    server.once('close', () => {
      if (!guest.writableEnded) guest.destroy();
    });
    guest.once('close', () => server.destroy());
    guest.pipe(server);
    server.pipe(guest);
  });
}
