/** The native virtio devices: what each factory of native/addon/virtio_NAME.cc reads and returns. */

/** A native virtio device, as its factory returns it. `device` is an external value only the machine can open. */
export interface NativeDevice {
  readonly device: object;
}

export interface NativeBlkOptions {
  readonly fd: number;
}

/** One factory a device. */
export interface VirtioAddon {
  createVirtioBlk(options: NativeBlkOptions): NativeDevice;
}
