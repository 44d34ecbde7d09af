/**
 * tsvmm as a library: machines, the devices that one writes for them, and the layers beneath for who wants them.
 * @packageDocumentation
 */

export { BootError } from './boot/error.js';
export type { ScriptDevice } from './devices/script-device.js';
export { KvmError } from './kvm/errors.js';
export { Kvm } from './kvm/kvm.js';
export { Vcpu } from './kvm/vcpu.js';
export { Vm } from './kvm/vm.js';
export type {
  BalloonConfig,
  DiskConfig,
  KernelConfig,
  MachineConfig,
  NetworkConfig,
  ShareConfig,
  StreamConfig,
  VsockConfig,
} from './machine/config.js';
export type { DeviceState, MachineDevice } from './machine/device.js';
export { MachineError } from './machine/error.js';
export { Machine, type MachineExit, type MachineState } from './machine/machine.js';
export { Timeline } from './machine/timeline.js';
export { GuestMemory, MemoryError } from './memory/guest-memory.js';
export { type Balloon, BalloonError, type BalloonStatistics } from './virtio/balloon/index.js';
export type { ConsolePort, PortOptions } from './virtio/console/index.js';
export type { NetLimits, Nic, PasstOptions } from './virtio/net/index.js';
export { Chain, QueueError, SplitQueue } from './virtio/queue.js';
export type { ScriptVirtioDevice } from './virtio/script-device.js';
export type { Vsock } from './virtio/vsock/index.js';
