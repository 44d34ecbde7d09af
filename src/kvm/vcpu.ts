import { addon, type MappedVcpu } from '../addon/index.js';
import type { Struct } from './codec.js';
import * as k from './constants.js';
import { Cpuid } from './cpuid.js';
import { KvmDescriptor } from './descriptor.js';
import { EAGAIN, EINTR, KvmError } from './errors.js';
import { decodeExit, runPage, type VcpuExit } from './exit.js';
import { decodeMsrs, encodeMsrs } from './msrs.js';
import {
  type Debugregs,
  type Fpu,
  kvmDebugregs,
  kvmFpu,
  kvmRegs,
  kvmSregs,
  kvmSregs2,
  kvmTranslation,
  kvmVcpuEvents,
  kvmXcrs,
  type Msr,
  type Regs,
  type Sregs,
  type Sregs2,
  type Translation,
  type VcpuEvents,
} from './registers.js';

/** An extended control register; XCR0 is index 0. */
export interface Xcr {
  readonly xcr: number;
  readonly value: bigint;
}

/**
 * A virtual processor (Documentation/virt/kvm/api.rst, "vcpu ioctls"). Every method throws a KvmError that names the
 * call. All calls but setImmediateExit() belong to the thread that runs the vCPU, or to one that runs while it does
 * not.
 */
export class Vcpu extends KvmDescriptor {
  readonly id: number;
  readonly #mmapSize: number;
  #mapped: MappedVcpu | undefined;
  #run: DataView | undefined;

  /** Made by Vm.createVcpu(). */
  constructor(fd: number, id: number, mmapSize: number) {
    super('vCPU', fd);
    this.id = id;
    this.#mmapSize = mmapSize;
  }

  /** General purpose registers (4.11). */
  getRegs(): Regs {
    return this.#get('KVM_GET_REGS', k.KVM_GET_REGS, kvmRegs());
  }

  /** Sets all of them (4.12); those not given are 0, rflags 2. */
  setRegs(regs: Partial<Regs>): void {
    this.call('KVM_SET_REGS', k.KVM_SET_REGS, kvmRegs().encode({ ...zeroRegs, ...regs }));
  }

  /** Segments, descriptor tables, control registers (4.13). */
  getSregs(): Sregs {
    return this.#get('KVM_GET_SREGS', k.KVM_GET_SREGS, kvmSregs());
  }

  setSregs(sregs: Sregs): void {
    this.call('KVM_SET_SREGS', k.KVM_SET_SREGS, kvmSregs().encode(sregs));
  }

  /** The same with the PDPTEs of PAE paging (4.131); KVM_CAP_SREGS2. */
  getSregs2(): Sregs2 {
    return this.#get('KVM_GET_SREGS2', k.KVM_GET_SREGS2, kvmSregs2());
  }

  setSregs2(sregs: Sregs2): void {
    this.call('KVM_SET_SREGS2', k.KVM_SET_SREGS2, kvmSregs2().encode(sregs));
  }

  /** x87 and SSE (4.22). */
  getFpu(): Fpu {
    return this.#get('KVM_GET_FPU', k.KVM_GET_FPU, kvmFpu());
  }

  setFpu(fpu: Fpu): void {
    this.call('KVM_SET_FPU', k.KVM_SET_FPU, kvmFpu().encode(fpu));
  }

  /** The XSAVE area in its standard format (4.42): 4096 bytes. */
  getXsave(): Uint8Array {
    const area = new Uint8Array(k.sizes.kvm_xsave);
    this.call('KVM_GET_XSAVE', k.KVM_GET_XSAVE, area);
    return area;
  }

  /** The same of `size` bytes (4.134), as checkExtension(KVM_CAP_XSAVE2) of the Vm says. */
  getXsave2(size: number): Uint8Array {
    const area = new Uint8Array(Math.max(size, k.sizes.kvm_xsave));
    this.call('KVM_GET_XSAVE2', k.KVM_GET_XSAVE2, area);
    return area;
  }

  /** Takes what getXsave() or getXsave2() gave (4.43). */
  setXsave(area: Uint8Array): void {
    this.call('KVM_SET_XSAVE', k.KVM_SET_XSAVE, area);
  }

  /** Extended control registers (4.44). */
  getXcrs(): Xcr[] {
    const all = this.#get('KVM_GET_XCRS', k.KVM_GET_XCRS, kvmXcrs());
    return all.xcrs.slice(0, all.nr_xcrs);
  }

  setXcrs(xcrs: readonly Xcr[]): void {
    const all = Array.from({ length: k.KVM_MAX_XCRS }, (_, i) => xcrs[i] ?? { xcr: 0, value: 0n });
    this.call(
      'KVM_SET_XCRS',
      k.KVM_SET_XCRS,
      kvmXcrs().encode({ nr_xcrs: xcrs.length, flags: 0, xcrs: all }),
    );
  }

  /** DR0 to DR3, DR6, DR7 (4.33). */
  getDebugregs(): Debugregs {
    return this.#get('KVM_GET_DEBUGREGS', k.KVM_GET_DEBUGREGS, kvmDebugregs());
  }

  setDebugregs(state: Debugregs): void {
    this.call('KVM_SET_DEBUGREGS', k.KVM_SET_DEBUGREGS, kvmDebugregs().encode(state));
  }

  /** Model-specific registers (4.18), in the order asked. Throws a KvmError that names the first refused index. */
  getMsrs(indices: readonly number[]): Msr[] {
    const view = encodeMsrs(indices.map((index) => ({ index, data: 0n })));
    return decodeMsrs('KVM_GET_MSRS', view, this.call('KVM_GET_MSRS', k.KVM_GET_MSRS, view));
  }

  /** Sets them in order (4.19) up to the first refused one, which the KvmError names. */
  setMsrs(msrs: readonly Msr[]): void {
    const view = encodeMsrs(msrs);
    decodeMsrs('KVM_SET_MSRS', view, this.call('KVM_SET_MSRS', k.KVM_SET_MSRS, view));
  }

  /** What CPUID answers (4.20). Before the first run. */
  setCpuid2(cpuid: Cpuid): void {
    this.call('KVM_SET_CPUID2', k.KVM_SET_CPUID2, cpuid.view);
  }

  /** What CPUID answers, as KVM keeps it. */
  getCpuid2(): Cpuid {
    const cpuid = Cpuid.allocate(256);
    cpuid.view.setUint32(0, 256, true);
    this.call('KVM_GET_CPUID2', k.KVM_GET_CPUID2, cpuid.view);
    cpuid.trim();
    return cpuid;
  }

  /** The local APIC's register page (4.57): 1024 bytes, each register at its offset (Intel SDM 3A, 11.4.1). */
  getLapic(): DataView {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_lapic_state));
    this.call('KVM_GET_LAPIC', k.KVM_GET_LAPIC, view);
    return view;
  }

  setLapic(state: DataView): void {
    this.call('KVM_SET_LAPIC', k.KVM_SET_LAPIC, state);
  }

  /** Whether it runs, halts or waits for INIT and SIPI (4.38): a KVM_MP_STATE_ number. */
  get mpState(): number {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_mp_state));
    this.call('KVM_GET_MP_STATE', k.KVM_GET_MP_STATE, view);
    return view.getUint32(0, true);
  }

  set mpState(state: number) {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_mp_state));
    view.setUint32(0, state, true);
    this.call('KVM_SET_MP_STATE', k.KVM_SET_MP_STATE, view);
  }

  /** Exceptions, interrupts, NMI and SMI under way (4.31). */
  getVcpuEvents(): VcpuEvents {
    return this.#get('KVM_GET_VCPU_EVENTS', k.KVM_GET_VCPU_EVENTS, kvmVcpuEvents());
  }

  setVcpuEvents(events: VcpuEvents): void {
    this.call('KVM_SET_VCPU_EVENTS', k.KVM_SET_VCPU_EVENTS, kvmVcpuEvents().encode(events));
  }

  /** Rate of the guest's time stamp counter in kHz (4.56). */
  get tscKhz(): number {
    return this.call('KVM_GET_TSC_KHZ', k.KVM_GET_TSC_KHZ);
  }

  /** Sets it (4.55); without KVM_CAP_TSC_CONTROL only rates near the host's are taken. */
  set tscKhz(rate: number) {
    this.call('KVM_SET_TSC_KHZ', k.KVM_SET_TSC_KHZ, rate);
  }

  /** Single step and break points of the host (4.87): KVM_GUESTDBG_ flags; `debugreg` DR0 to DR7 for hardware ones. */
  setGuestDebug(control: number, debugreg: readonly bigint[] = []): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_guest_debug));
    view.setUint32(0, control, true);
    debugreg.slice(0, 8).forEach((value, i) => {
      view.setBigUint64(8 + 8 * i, value, true);
    });
    this.call('KVM_SET_GUEST_DEBUG', k.KVM_SET_GUEST_DEBUG, view);
  }

  /** Queues a non-maskable interrupt (4.64). */
  nmi(): void {
    this.call('KVM_NMI', k.KVM_NMI);
  }

  /** Queues an external interrupt where the interrupt controller is not the kernel's (4.16). */
  interrupt(vector: number): void {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_interrupt));
    view.setUint32(0, vector, true);
    this.call('KVM_INTERRUPT', k.KVM_INTERRUPT, view);
  }

  /** Tells the guest's kvm-clock that it was paused (4.70). EINVAL where the guest has none. */
  kvmclockCtrl(): void {
    this.call('KVM_KVMCLOCK_CTRL', k.KVM_KVMCLOCK_CTRL);
  }

  /** Translates a guest linear address by the current page tables (4.15). */
  translate(linearAddress: bigint): Translation {
    const view = new DataView(new ArrayBuffer(k.sizes.kvm_translation));
    view.setBigUint64(0, linearAddress, true);
    this.call('KVM_TRANSLATE', k.KVM_TRANSLATE, view);
    return kvmTranslation().decode(view);
  }

  /**
   * Runs the guest on this thread until it needs something (4.10). It blocks JavaScript: for tests, tools and those
   * who learn; machines run their vCPUs on threads of the addon.
   */
  run(): VcpuExit {
    const page = this.#page();
    const result = this.tryCall('KVM_RUN', k.KVM_RUN);
    if (result === -EINTR || result === -EAGAIN) {
      return { reason: 'intr' };
    }
    // An emulation failure may come with EFAULT and the exit reason set (KVM_EXIT_MEMORY_FAULT); that is an error.
    if (result < 0) {
      throw new KvmError('KVM_RUN', -result);
    }
    return decodeExit(page);
  }

  /** Why the last KVM_RUN returned; for a vCPU whose native thread has ended. */
  lastExit(): VcpuExit {
    return decodeExit(this.#page());
  }

  /** The next or the present KVM_RUN returns at once with EINTR (section 5, immediate_exit), until set to false. */
  setImmediateExit(on: boolean): void {
    this.#page().setUint8(runPage.immediateExit, on ? 1 : 0);
  }

  /** Closes the vCPU and unmaps its kvm_run page; views of the page that were given out become empty. */
  override close(): void {
    this.#run = undefined;
    this.#mapped?.unmap();
    this.#mapped = undefined;
    super.close();
  }

  // Mapped at first use: a vCPU that a native thread runs needs no page here.
  #page(): DataView {
    if (this.#run === undefined) {
      const mapped = addon().mmapVcpu(this.fd, this.#mmapSize);
      if (typeof mapped === 'number') {
        throw new KvmError('mmap', -mapped, 'the kvm_run page of a vCPU');
      }
      this.#mapped = mapped;
      this.#run = new DataView(mapped.buffer);
    }
    return this.#run;
  }

  #get<T>(name: string, request: number, codec: Struct<T>): T {
    const view = new DataView(new ArrayBuffer(codec.size));
    this.call(name, request, view);
    return codec.decode(view);
  }
}

const zeroRegs: Regs = {
  rax: 0n,
  rbx: 0n,
  rcx: 0n,
  rdx: 0n,
  rsi: 0n,
  rdi: 0n,
  rsp: 0n,
  rbp: 0n,
  r8: 0n,
  r9: 0n,
  r10: 0n,
  r11: 0n,
  r12: 0n,
  r13: 0n,
  r14: 0n,
  r15: 0n,
  rip: 0n,
  rflags: 2n,
};
