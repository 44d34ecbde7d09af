/** Options of the native virtio devices: what each factory of native/addon/virtio_NAME.cc reads. */

export interface NativeBlkOptions {
  readonly fd: number;
}
