import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName } from '../options.js';
import { Vsock } from './vsock.js';

export type {
  BindOptions,
  Channel,
  ChannelOptions,
  Closable,
  Vsock,
  VsockEnd,
  VsockListener,
} from './vsock.js';
export { VsockError } from './vsock.js';

/** A socket device (virtio 1.2, 5.10): stream connections between the guest and the host, without a network. */
export interface VsockOptions {
  /** For messages and metrics. */
  readonly name: string;
  /** The guest's address, 3 to 4294967294; 3 by default. The host's is 2. */
  readonly cid?: number | undefined;
}

const DEVICE_ID = 19;
/** Virtio 1.2, 5.10.3. */
const STREAM = 1n << 0n;
// A Linux guest keeps the receive queue filled with buffers of 4 KiB: this is half a MiB of its memory.
const QUEUE_SIZE = 128;
const EVENT_QUEUE_SIZE = 8;
const MAX_CID = 0xffff_fffe;

/** @throws TypeError or RangeError for a bad option */
export function describeVsock(options: VsockOptions): {
  readonly description: VirtioDescription;
  readonly vsock: Vsock;
} {
  const { name, cid = 3 } = options;
  checkName('vsock', name);
  checkInteger(`vsock ${name}: cid`, cid, 3, MAX_CID);
  const vsock = new Vsock((onEvent) => addon().createVirtioVsock({ cid, onEvent }));
  const config = new Uint8Array(8);
  new DataView(config.buffer).setBigUint64(0, BigInt(cid), true); // guest_cid
  return {
    description: {
      name,
      deviceId: DEVICE_ID,
      features: STREAM,
      queueSizes: [QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE],
      config,
      backend: vsock.native,
    },
    vsock,
  };
}
