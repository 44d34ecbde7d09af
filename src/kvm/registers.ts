/**
 * State of a vCPU and of the interrupt controllers, as plain objects: one table a struct of asm/kvm.h. 64-bit
 * members are bigints.
 */
import { array, bytes, lazy, reserved, type Struct, s64, struct, u8, u16, u32, u64 } from './codec.js';
import { KVM_IOAPIC_NUM_PINS } from './constants.js';

type StateOf<F> = F extends () => Struct<infer T> ? T : never;

/** General purpose registers (struct kvm_regs). */
export const kvmRegs = lazy(() =>
  struct('kvm_regs', {
    rax: u64,
    rbx: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    rsp: u64,
    rbp: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rip: u64,
    rflags: u64,
  }),
);
export type Regs = StateOf<typeof kvmRegs>;

/** A segment register with its hidden part; `type` and the bits as in a descriptor (Intel SDM 3A, 3.4.5). */
const kvmSegment = lazy(() =>
  struct('kvm_segment', {
    base: u64,
    limit: u32,
    selector: u16,
    type: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: reserved(1),
  }),
);
export type Segment = StateOf<typeof kvmSegment>;

const kvmDtable = lazy(() => struct('kvm_dtable', { base: u64, limit: u16, padding: reserved(6) }));
export type DescriptorTable = StateOf<typeof kvmDtable>;

function sregsHead() {
  const segment = kvmSegment();
  const dtable = kvmDtable();
  return {
    cs: segment,
    ds: segment,
    es: segment,
    fs: segment,
    gs: segment,
    ss: segment,
    tr: segment,
    ldt: segment,
    gdt: dtable,
    idt: dtable,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
  };
}

/** Segments, descriptor tables and control registers (struct kvm_sregs). `interrupt_bitmap`: at most one bit set. */
export const kvmSregs = lazy(() => struct('kvm_sregs', { ...sregsHead(), interrupt_bitmap: array(u64, 4) }));
export type Sregs = StateOf<typeof kvmSregs>;

/** The same with the PDPTEs of PAE paging instead of the bitmap (struct kvm_sregs2). */
export const kvmSregs2 = lazy(() =>
  struct('kvm_sregs2', { ...sregsHead(), flags: u64, pdptrs: array(u64, 4) }),
);
export type Sregs2 = StateOf<typeof kvmSregs2>;

/** x87 and SSE (struct kvm_fpu). KVM neither gives nor takes `mxcsr` here; the XSAVE area has it. */
export const kvmFpu = lazy(() =>
  struct('kvm_fpu', {
    fpr: array(bytes(16), 8),
    fcw: u16,
    fsw: u16,
    ftwx: u8,
    pad1: reserved(1),
    last_opcode: u16,
    last_ip: u64,
    last_dp: u64,
    xmm: array(bytes(16), 16),
    mxcsr: u32,
    pad2: reserved(4),
  }),
);
export type Fpu = StateOf<typeof kvmFpu>;

/** DR0 to DR3, DR6, DR7 (struct kvm_debugregs). */
export const kvmDebugregs = lazy(() =>
  struct('kvm_debugregs', { db: array(u64, 4), dr6: u64, dr7: u64, flags: u64, reserved: reserved(72) }),
);
export type Debugregs = StateOf<typeof kvmDebugregs>;

/** Pending and injected events (struct kvm_vcpu_events). `flags` say which optional members KVM_SET takes. */
export const kvmVcpuEvents = lazy(() =>
  struct('kvm_vcpu_events', {
    exception: struct('exception', {
      injected: u8,
      nr: u8,
      has_error_code: u8,
      pending: u8,
      error_code: u32,
    }),
    interrupt: struct('interrupt', { injected: u8, nr: u8, soft: u8, shadow: u8 }),
    nmi: struct('nmi', { injected: u8, pending: u8, masked: u8, pad: reserved(1) }),
    sipi_vector: u32,
    flags: u32,
    smi: struct('smi', { smm: u8, pending: u8, smm_inside_nmi: u8, latched_init: u8 }),
    triple_fault: struct('triple_fault', { pending: u8 }),
    reserved: reserved(26),
    exception_has_payload: u8,
    exception_payload: u64,
  }),
);
export type VcpuEvents = StateOf<typeof kvmVcpuEvents>;

/** Answer of KVM_TRANSLATE; `valid` 0: not mapped. */
export const kvmTranslation = lazy(() =>
  struct('kvm_translation', {
    linear_address: u64,
    physical_address: u64,
    valid: u8,
    writeable: u8,
    usermode: u8,
    pad: reserved(5),
  }),
);
export type Translation = StateOf<typeof kvmTranslation>;

/** One 8259A (struct kvm_pic_state). */
export const kvmPicState = lazy(() =>
  struct('kvm_pic_state', {
    last_irr: u8,
    irr: u8,
    imr: u8,
    isr: u8,
    priority_add: u8,
    irq_base: u8,
    read_reg_select: u8,
    poll: u8,
    special_mask: u8,
    init_state: u8,
    auto_eoi: u8,
    rotate_on_auto_eoi: u8,
    special_fully_nested_mode: u8,
    init4: u8,
    elcr: u8,
    elcr_mask: u8,
  }),
);
export type PicState = StateOf<typeof kvmPicState>;

/** The I/O APIC (struct kvm_ioapic_state); `redirtbl` as the chip has it (82093AA, 3.2.4). */
export const kvmIoapicState = lazy(() =>
  struct('kvm_ioapic_state', {
    base_address: u64,
    ioregsel: u32,
    id: u32,
    irr: u32,
    pad: reserved(4),
    redirtbl: array(u64, KVM_IOAPIC_NUM_PINS),
  }),
);
export type IoapicState = StateOf<typeof kvmIoapicState>;

/** The 8254 (struct kvm_pit_state2). */
export const kvmPitState2 = lazy(() =>
  struct('kvm_pit_state2', {
    channels: array(
      struct('kvm_pit_channel_state', {
        count: u32,
        latched_count: u16,
        count_latched: u8,
        status_latched: u8,
        status: u8,
        read_state: u8,
        write_state: u8,
        write_latch: u8,
        rw_mode: u8,
        mode: u8,
        bcd: u8,
        gate: u8,
        count_load_time: s64,
      }),
      3,
    ),
    flags: u32,
    reserved: reserved(36),
  }),
);
export type PitState2 = StateOf<typeof kvmPitState2>;

/** kvm-clock (struct kvm_clock_data): nanoseconds since the VM's start; `flags` say what else is valid. */
export const kvmClockData = lazy(() =>
  struct('kvm_clock_data', {
    clock: u64,
    flags: u32,
    pad0: reserved(4),
    realtime: u64,
    host_tsc: u64,
    pad: reserved(16),
  }),
);
export type ClockData = StateOf<typeof kvmClockData>;

/** Extended control registers (struct kvm_xcrs), those in use only: XCR0 is index 0. */
const kvmXcr = lazy(() => struct('kvm_xcr', { xcr: u32, reserved: reserved(4), value: u64 }));
export const kvmXcrs = lazy(() =>
  struct('kvm_xcrs', { nr_xcrs: u32, flags: u32, xcrs: array(kvmXcr(), 16), padding: reserved(128) }),
);
export type Xcrs = StateOf<typeof kvmXcrs>;

/** A model-specific register and its value. */
export interface Msr {
  readonly index: number;
  readonly data: bigint;
}
