import { addon } from '../addon/index.js';
import * as k from './constants.js';
import { Cpuid } from './cpuid.js';
import { KvmDescriptor } from './descriptor.js';
import { E2BIG, EINTR, KvmError, openError } from './errors.js';
import { decodeMsrs, encodeMsrs } from './msrs.js';
import type { Msr } from './registers.js';
import { Vm } from './vm.js';

const O_RDWR = 2;

/** /dev/kvm: the host's virtualization, from which machines are made (Documentation/virt/kvm/api.rst, "system ioctls"). */
export class Kvm extends KvmDescriptor {
  #mmapSize = 0;
  /** The result of a KVM_CREATE_VM that was made ahead, or -errno. */
  #preparedVm: number | undefined;

  private constructor(fd: number) {
    super('KVM device', fd);
  }

  /**
   * Opens KVM and checks its API version (4.1). Throws a KvmError: ENOENT, EACCES and ENODEV name the remedy; a
   * version other than 12 has errno 0.
   */
  static open(path = '/dev/kvm'): Kvm {
    const ahead = addon().takePreparedKvm(path);
    const fd = ahead?.device ?? addon().open(path, O_RDWR);
    if (fd < 0) {
      throw openError(path, -fd);
    }
    const kvm = new Kvm(fd);
    kvm.#preparedVm = ahead?.vm;
    try {
      const version = kvm.call('KVM_GET_API_VERSION', k.KVM_GET_API_VERSION);
      if (version !== k.KVM_API_VERSION) {
        throw new KvmError(
          'KVM_GET_API_VERSION',
          0,
          `${path} speaks version ${version}, not ${k.KVM_API_VERSION}`,
        );
      }
    } catch (error) {
      kvm.close();
      throw error;
    }
    return kvm;
  }

  /**
   * Begins to open KVM and to make the first VM while the caller does something else; the next open() and createVm() take
   * them. Errors show there.
   */
  static prepare(path = '/dev/kvm'): void {
    addon().prepareKvm(path);
  }

  /** What KVM says of a capability (4.4): 0 absent, 1 there, or a number that the capability defines. */
  checkExtension(capability: number): number {
    return this.call('KVM_CHECK_EXTENSION', k.KVM_CHECK_EXTENSION, capability);
  }

  /** Bytes of a vCPU's kvm_run mapping (4.5). */
  get vcpuMmapSize(): number {
    this.#mmapSize ||= this.call('KVM_GET_VCPU_MMAP_SIZE', k.KVM_GET_VCPU_MMAP_SIZE);
    return this.#mmapSize;
  }

  /** The CPUID leaves that this KVM on this host can give a guest (4.46), a new copy at each call. */
  supportedCpuid(): Cpuid {
    for (let capacity = 128; ; capacity *= 2) {
      const cpuid = Cpuid.allocate(capacity);
      cpuid.view.setUint32(0, capacity, true);
      const result = this.tryCall('KVM_GET_SUPPORTED_CPUID', k.KVM_GET_SUPPORTED_CPUID, cpuid.view);
      if (result >= 0) {
        return cpuid;
      }
      if (result !== -E2BIG || capacity > 4096) {
        throw new KvmError('KVM_GET_SUPPORTED_CPUID', -result);
      }
    }
  }

  /** The MSRs that KVM can save and restore on this host (4.3). */
  msrIndexList(): number[] {
    return this.#msrList('KVM_GET_MSR_INDEX_LIST', k.KVM_GET_MSR_INDEX_LIST);
  }

  /** The MSRs that describe features of the host; getFeatureMsrs() reads them (4.3, KVM_CAP_GET_MSR_FEATURES). */
  featureMsrs(): number[] {
    return this.#msrList('KVM_GET_MSR_FEATURE_INDEX_LIST', k.KVM_GET_MSR_FEATURE_INDEX_LIST);
  }

  /** The host's values of feature MSRs (4.18, on /dev/kvm). Throws a KvmError that names the first refused index. */
  getFeatureMsrs(indices: readonly number[]): Msr[] {
    const view = encodeMsrs(indices.map((index) => ({ index, data: 0n })));
    const done = this.call('KVM_GET_MSRS', k.KVM_GET_MSRS, view);
    return decodeMsrs('KVM_GET_MSRS', view, done);
  }

  /** A new machine: no memory, no vCPU, no interrupt controller (4.2). Throws a KvmError. */
  createVm(): Vm {
    const name = 'KVM_CREATE_VM';
    // Interrupted where a signal comes while the kernel registers its notifiers; to be tried again.
    for (;;) {
      const fd = this.#preparedVm ?? this.tryCall(name, k.KVM_CREATE_VM, 0);
      this.#preparedVm = undefined;
      if (fd >= 0) {
        return new Vm(fd, this);
      }
      if (fd !== -EINTR) {
        throw new KvmError(name, -fd);
      }
    }
  }

  override close(): void {
    if (this.#preparedVm !== undefined && this.#preparedVm >= 0) addon().close(this.#preparedVm);
    this.#preparedVm = undefined;
    super.close();
  }

  #msrList(name: string, request: number): number[] {
    const probe = new DataView(new ArrayBuffer(k.sizes.kvm_msr_list));
    const asked = this.tryCall(name, request, probe);
    if (asked < 0 && asked !== -E2BIG) {
      throw new KvmError(name, -asked);
    }
    const count = probe.getUint32(0, true);
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_msr_list + 4 * count));
    view.setUint32(0, count, true);
    this.call(name, request, view);
    const found = Math.min(count, view.getUint32(0, true));
    return Array.from({ length: found }, (_, i) => view.getUint32(k.sizes.kvm_msr_list + 4 * i, true));
  }
}
