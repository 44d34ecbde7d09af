import { addon } from '../addon/index.js';
import type { Struct } from './codec.js';
import * as k from './constants.js';
import { KvmDescriptor } from './descriptor.js';
import { KvmError } from './errors.js';
import {
  type ClockData,
  type IoapicState,
  kvmClockData,
  kvmIoapicState,
  kvmPicState,
  kvmPitState2,
  type PicState,
  type PitState2,
} from './registers.js';
import { Vcpu } from './vcpu.js';

/** A piece of guest physical memory and what it is mapped to (struct kvm_userspace_memory_region). */
export interface MemorySlot {
  /** 0 to KVM_CAP_NR_MEMSLOTS - 1. */
  readonly slot: number;
  /** KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY; default 0. */
  readonly flags?: number;
  /** Guest physical address, page aligned. */
  readonly address: number;
  /** Bytes, whole pages; 0 deletes the slot. */
  readonly size: number;
  /** Where it is mapped in this process, page aligned. */
  readonly host: bigint;
}

/** Where a GSI leads: a pin of an interrupt controller or a message. */
export type GsiRoute =
  | { readonly gsi: number; readonly chip: IrqchipId; readonly pin: number }
  | { readonly gsi: number; readonly msi: Msi };

/** A message-signalled interrupt: the address selects local APICs, the data the vector (Intel SDM 3A, 11.11). */
export interface Msi {
  readonly address: bigint;
  readonly data: number;
}

/** A write that signals an eventfd instead of leaving the kernel. */
export interface IoEvent {
  readonly fd: number;
  /** Guest physical address, or port where `pio`. */
  readonly address: number;
  /** Bytes of the write: 1, 2, 4, 8; 0: whatever comes (KVM_CAP_IOEVENTFD_NO_LENGTH, or ANY_LENGTH for MMIO). */
  readonly length: 0 | 1 | 2 | 4 | 8;
  /** Only a write of this value signals. */
  readonly datamatch?: bigint;
  readonly pio?: boolean;
}

export type PicId = typeof k.KVM_IRQCHIP_PIC_MASTER | typeof k.KVM_IRQCHIP_PIC_SLAVE;
export type IoapicId = typeof k.KVM_IRQCHIP_IOAPIC;
export type IrqchipId = PicId | IoapicId;

/** What a Vm needs of the Kvm that made it. */
export interface VcpuPage {
  readonly vcpuMmapSize: number;
}

const page = 4096;

/** A machine (Documentation/virt/kvm/api.rst, "VM ioctls"). Every method throws a KvmError that names the call. */
export class Vm extends KvmDescriptor {
  readonly #kvm: VcpuPage;
  readonly #slots = new Map<number, number>();

  /** Made by Kvm.createVm(). */
  constructor(fd: number, kvm: VcpuPage) {
    super('VM', fd);
    this.#kvm = kvm;
  }

  /** What KVM says of a capability of this very VM (4.4, KVM_CAP_CHECK_EXTENSION_VM). */
  checkExtension(capability: number): number {
    return this.call('KVM_CHECK_EXTENSION', k.KVM_CHECK_EXTENSION, capability);
  }

  /** Switches a capability on (4.37), with up to four arguments. */
  enableCap(capability: number, args: readonly bigint[] = []): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_enable_cap));
    view.setUint32(0, capability, true);
    args.slice(0, 4).forEach((arg, i) => {
      view.setBigUint64(8 + 8 * i, arg, true);
    });
    this.call('KVM_ENABLE_CAP', k.KVM_ENABLE_CAP, view);
  }

  /** Makes, changes (flags, place) or deletes (size 0) a memory slot (4.35). Costs the host a grace period. */
  setUserMemoryRegion(slot: MemorySlot): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_userspace_memory_region));
    view.setUint32(0, slot.slot, true);
    view.setUint32(4, slot.flags ?? 0, true);
    view.setBigUint64(8, BigInt(slot.address), true);
    view.setBigUint64(16, BigInt(slot.size), true);
    view.setBigUint64(24, slot.host, true);
    this.call('KVM_SET_USER_MEMORY_REGION', k.KVM_SET_USER_MEMORY_REGION, view);
    this.#slots.set(slot.slot, slot.size);
  }

  /**
   * The pages of a slot with KVM_MEM_LOG_DIRTY_PAGES that were written since the last call (4.8): bit n of byte n / 8
   * is page n. Throws a RangeError for a slot that this object did not set.
   */
  getDirtyLog(slot: number): Uint8Array {
    const bitmap = new Uint8Array(this.#bitmapBytes(slot));
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_dirty_log));
    view.setUint32(0, slot, true);
    this.#callWithPointer('KVM_GET_DIRTY_LOG', k.KVM_GET_DIRTY_LOG, view, bitmap, 8);
    return bitmap;
  }

  /**
   * Marks pages clean again (4.117); only after enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), with which getDirtyLog()
   * no longer does. Bit n of `bitmap` is page `firstPage` + n; `firstPage` and, except at the slot's end, `pages` are
   * multiples of 64.
   */
  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: Uint8Array): void {
    const needed = Math.ceil(pages / 64) * 8;
    const whole = this.#bitmapBytes(slot);
    if (firstPage % 64 !== 0 || firstPage / 8 + needed > whole || bitmap.length < Math.ceil(pages / 8)) {
      throw new RangeError(
        `pages ${firstPage} to ${firstPage + pages - 1} are not in slot ${slot}, or not in the bitmap`,
      );
    }
    const words = new Uint8Array(needed);
    words.set(bitmap.subarray(0, needed));
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_clear_dirty_log));
    view.setUint32(0, slot, true);
    view.setUint32(4, pages, true);
    view.setBigUint64(8, BigInt(firstPage), true);
    this.#callWithPointer('KVM_CLEAR_DIRTY_LOG', k.KVM_CLEAR_DIRTY_LOG, view, words, 16);
  }

  /** Three free pages in the first 4 GiB for real mode on Intel (4.36). Before any vCPU. */
  setTssAddress(address: number): void {
    this.call('KVM_SET_TSS_ADDR', k.KVM_SET_TSS_ADDR, address);
  }

  /** One free page in the first 4 GiB for real mode on Intel (4.40). Before any vCPU. */
  setIdentityMapAddress(address: number): void {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, BigInt(address), true);
    this.call('KVM_SET_IDENTITY_MAP_ADDR', k.KVM_SET_IDENTITY_MAP_ADDR, view);
  }

  /** Makes two 8259s, an I/O APIC and, with each later vCPU, a local APIC, all in the kernel (4.24). */
  createIrqchip(): void {
    this.call('KVM_CREATE_IRQCHIP', k.KVM_CREATE_IRQCHIP);
  }

  /** Makes an 8254 in the kernel (4.71). After createIrqchip(). `flags`: KVM_PIT_SPEAKER_DUMMY answers port 0x61. */
  createPit2(flags: number = k.KVM_PIT_SPEAKER_DUMMY): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_pit_config));
    view.setUint32(0, flags, true);
    this.call('KVM_CREATE_PIT2', k.KVM_CREATE_PIT2, view);
  }

  /** Sets the level of an interrupt line (4.25). An edge is two calls: true, false. */
  irqLine(gsi: number, level: boolean): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_irq_level));
    view.setUint32(0, gsi, true);
    view.setUint32(4, level ? 1 : 0, true);
    this.call('KVM_IRQ_LINE', k.KVM_IRQ_LINE, view);
  }

  /** State of an 8259 or of the I/O APIC (4.26). */
  getIrqchip(chip: PicId): PicState;
  getIrqchip(chip: IoapicId): IoapicState;
  getIrqchip(chip: IrqchipId): PicState | IoapicState {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_irqchip));
    view.setUint32(0, chip, true);
    this.call('KVM_GET_IRQCHIP', k.KVM_GET_IRQCHIP, view);
    return chip === k.KVM_IRQCHIP_IOAPIC ? kvmIoapicState().decode(view, 8) : kvmPicState().decode(view, 8);
  }

  /** The inverse of getIrqchip() (4.27). */
  setIrqchip(chip: PicId, state: PicState): void;
  setIrqchip(chip: IoapicId, state: IoapicState): void;
  setIrqchip(chip: IrqchipId, state: PicState | IoapicState): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_irqchip));
    view.setUint32(0, chip, true);
    if ('redirtbl' in state) {
      kvmIoapicState().set(view, 8, state);
    } else {
      kvmPicState().set(view, 8, state);
    }
    this.call('KVM_SET_IRQCHIP', k.KVM_SET_IRQCHIP, view);
  }

  /** State of the 8254 (4.72). */
  getPit2(): PitState2 {
    return this.#get('KVM_GET_PIT2', k.KVM_GET_PIT2, kvmPitState2());
  }

  setPit2(state: PitState2): void {
    this.call('KVM_SET_PIT2', k.KVM_SET_PIT2, kvmPitState2().encode(state));
  }

  /** kvm-clock (4.29): nanoseconds, and with it the host's clocks where `flags` say so. */
  getClock(): ClockData {
    return this.#get('KVM_GET_CLOCK', k.KVM_GET_CLOCK, kvmClockData());
  }

  /** Sets kvm-clock (4.30). Of the flags, only KVM_CLOCK_REALTIME is taken: the time that passed since is added. */
  setClock(state: ClockData): void {
    this.call('KVM_SET_CLOCK', k.KVM_SET_CLOCK, kvmClockData().encode(state));
  }

  /** Replaces the whole table of GSIs (4.52). Costs the host a grace period: set it once. */
  setGsiRouting(routes: readonly GsiRoute[]): void {
    const entry = k.sizes.kvm_irq_routing_entry;
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_irq_routing + entry * routes.length));
    view.setUint32(0, routes.length, true);
    routes.forEach((route, i) => {
      const at = k.sizes.kvm_irq_routing + entry * i;
      view.setUint32(at, route.gsi, true);
      if ('msi' in route) {
        view.setUint32(at + 4, k.KVM_IRQ_ROUTING_MSI, true);
        view.setBigUint64(at + 16, route.msi.address, true);
        view.setUint32(at + 24, route.msi.data, true);
      } else {
        view.setUint32(at + 4, k.KVM_IRQ_ROUTING_IRQCHIP, true);
        view.setUint32(at + 16, route.chip, true);
        view.setUint32(at + 20, route.pin, true);
      }
    });
    this.call('KVM_SET_GSI_ROUTING', k.KVM_SET_GSI_ROUTING, view);
  }

  /** Sends a message-signalled interrupt (4.71). True: delivered; false: the guest blocked it. */
  signalMsi(msi: Msi): boolean {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_msi));
    view.setBigUint64(0, msi.address, true);
    view.setUint32(8, msi.data, true);
    return this.call('KVM_SIGNAL_MSI', k.KVM_SIGNAL_MSI, view) > 0;
  }

  /**
   * A write to the eventfd `fd` raises `gsi` (4.75). With `resampleFd` the line is level triggered: it is lowered when
   * the guest acknowledges it, and `resampleFd` is signalled.
   */
  assignIrqfd(fd: number, gsi: number, resampleFd?: number): void {
    this.#irqfd(fd, gsi, resampleFd === undefined ? 0 : k.KVM_IRQFD_FLAG_RESAMPLE, resampleFd ?? 0);
  }

  deassignIrqfd(fd: number, gsi: number): void {
    this.#irqfd(fd, gsi, k.KVM_IRQFD_FLAG_DEASSIGN, 0);
  }

  /** A matching write of the guest signals the eventfd and goes on without leaving the kernel (4.59). */
  assignIoeventfd(event: IoEvent): void {
    this.#ioeventfd(event, 0);
  }

  /** Undoes assignIoeventfd(); the same description must be given. */
  deassignIoeventfd(event: IoEvent): void {
    this.#ioeventfd(event, k.KVM_IOEVENTFD_FLAG_DEASSIGN);
  }

  /** A new vCPU (4.7); `id` is its initial APIC id, less than KVM_CAP_MAX_VCPU_ID. Number 0 boots, the others wait. */
  createVcpu(id: number): Vcpu {
    return new Vcpu(this.call('KVM_CREATE_VCPU', k.KVM_CREATE_VCPU, id), id, this.#kvm.vcpuMmapSize);
  }

  #irqfd(fd: number, gsi: number, flags: number, resampleFd: number): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_irqfd));
    view.setUint32(0, fd, true);
    view.setUint32(4, gsi, true);
    view.setUint32(8, flags, true);
    view.setUint32(12, resampleFd, true);
    this.call('KVM_IRQFD', k.KVM_IRQFD, view);
  }

  #ioeventfd(event: IoEvent, flags: number): void {
    const match = event.datamatch === undefined ? 0 : k.KVM_IOEVENTFD_FLAG_DATAMATCH;
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_ioeventfd));
    view.setBigUint64(0, event.datamatch ?? 0n, true);
    view.setBigUint64(8, BigInt(event.address), true);
    view.setUint32(16, event.length, true);
    view.setInt32(20, event.fd, true);
    view.setUint32(24, flags | match | (event.pio === true ? k.KVM_IOEVENTFD_FLAG_PIO : 0), true);
    this.call('KVM_IOEVENTFD', k.KVM_IOEVENTFD, view);
  }

  #get<T>(name: string, request: number, codec: Struct<T>): T {
    const view = new DataView(new ArrayBuffer(codec.size));
    this.call(name, request, view);
    return codec.decode(view);
  }

  // The kernel works in whole 64-bit words.
  #bitmapBytes(slot: number): number {
    const size = this.#slots.get(slot);
    if (size === undefined) {
      throw new RangeError(`memory slot ${slot} is not set`);
    }
    return Math.ceil(size / page / 64) * 8;
  }

  #callWithPointer(name: string, request: number, arg: DataView, pointee: Uint8Array, offset: number): void {
    const result = addon().ioctl(this.fd, request, arg, pointee, offset);
    if (result < 0) {
      throw new KvmError(name, -result);
    }
  }
}
