import type { NativeDevice } from '../addon/index.js';

/**
 * What a virtio device is, in the same shape for all: `src/virtio/NAME/index.ts` makes one from the device's options.
 * The transport (C++) takes it as it is.
 */
export interface VirtioDescription {
  /** Name for messages and metrics: `blk0`, `rootfs`. */
  readonly name: string;
  /** Device type (virtio 1.2, section 5): 2 for a block device. */
  readonly deviceId: number;
  /** Feature bits offered beyond VIRTIO_F_VERSION_1, RING_INDIRECT_DESC and RING_EVENT_IDX, which every device offers. */
  readonly features: bigint;
  /** Maximum size of each virtqueue: powers of two, at most 32768. */
  readonly queueSizes: readonly number[];
  /** The configuration space as the guest first reads it. */
  readonly config: Uint8Array;
  /** Which bytes of the configuration space the driver may write; none by default. */
  readonly writableConfig?: { readonly offset: number; readonly length: number };
  /** What serves the queues: a native device, or one written in TypeScript. */
  readonly backend: NativeDevice;
}
