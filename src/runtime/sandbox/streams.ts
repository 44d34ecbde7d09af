import { addon } from '../../addon/index.js';
import type { Vsock } from '../../virtio/vsock/index.js';
import type { PreservedPort } from '../agent-client.js';

/** Descriptors on the host's end of one of the guest's connections; -1: none. */
export interface StreamEnds {
  readonly read: number;
  readonly write: number;
}

export interface BoundStream {
  /** The host's port that the guest connects to. */
  readonly port: number;
  /** The connection has ended, and what could be delivered has been. */
  readonly closed: Promise<void>;
  /** Takes it back, where the guest has not connected; descriptors that were handed over are closed. */
  cancel(): void;
}

export interface StreamBinder {
  /** @param handOver the descriptors are closed when they are no longer needed */
  bind(ends: StreamEnds, handOver?: boolean): BoundStream;
}

/** Below are the ports of the protocol itself (docs/agent-protocol.md). */
const FIRST_PORT = 1025;
const LAST_PORT = 0x7fff_ffff;

/** Gives each stream a port of its own; `onLost` hears of what could not be written. */
export function streamBinder(vsock: Vsock, onLost: (fd: number, bytes: number) => void): StreamBinder {
  let next = FIRST_PORT;
  return {
    bind({ read, write }, handOver = false) {
      const port = next;
      next = next === LAST_PORT ? FIRST_PORT : next + 1;
      let cancel = (): void => {};
      const closed = new Promise<void>((resolve) => {
        const bound = vsock.bindPort(port, {
          read,
          write,
          closeFds: handOver,
          onClosed: ({ lostBytes }) => {
            if (lostBytes > 0 && write >= 0 && !handOver) onLost(write, lostBytes);
            resolve();
          },
        });
        cancel = () => {
          bound.close();
          resolve();
        };
      });
      return { port, closed, cancel };
    },
  };
}

/** What a descriptor can do, as it was opened; nothing, where it is not open. */
export function accessOf(fd: number): StreamEnds {
  const access = addon().descriptorAccess(fd);
  return { read: access === 0 || access === 2 ? fd : -1, write: access === 1 || access === 2 ? fd : -1 };
}

/** Of descriptors beside the standard streams: what the agent is told, and when all has come of those that the process only writes to. */
export function bindPreserved(
  fds: readonly number[],
  bind: (ends: StreamEnds) => BoundStream,
): { readonly preserved: PreservedPort[]; readonly written: Promise<void>[] } {
  const preserved: PreservedPort[] = [];
  const written: Promise<void>[] = [];
  for (const fd of fds) {
    const ends = accessOf(fd);
    const { port, closed } = bind(ends);
    const access = ends.read < 0 ? 'write' : ends.write < 0 ? 'read' : 'both';
    preserved.push({ port, access });
    // A pipe in the guest, which ends with the process.
    if (access === 'write') written.push(closed);
  }
  return { preserved, written };
}
