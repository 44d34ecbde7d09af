import { GDT_ADDRESS } from '../memory/layout.js';

/** A segment register with its hidden part, as KVM_SET_SREGS takes it (struct kvm_segment). */
export interface SegmentState {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  /** Type field of the descriptor, 4 bits. */
  readonly type: number;
  readonly present: boolean;
  /** Descriptor privilege level. */
  readonly dpl: number;
  /** 1 for code and data, 0 for system segments. */
  readonly s: boolean;
  /** Default operand size 32 bits. */
  readonly db: boolean;
  /** 64-bit code. */
  readonly l: boolean;
  /** Limit in pages. */
  readonly g: boolean;
}

/** The boot processor's registers at the kernel's first instruction; what is not named here is zero. */
export interface EntryState {
  readonly rip: number;
  readonly rsi: number;
  readonly rbx: number;
  readonly rflags: number;
  readonly cs: SegmentState;
  /** For ds, es, fs, gs and ss. */
  readonly data: SegmentState;
  readonly tr: SegmentState;
  readonly gdt: { readonly base: number; readonly limit: number };
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
}

/** __BOOT_CS and __BOOT_DS (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"). */
export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;
const BOOT_TSS = 0x20;

const CR0_PE = 1 << 0;
const CR0_ET = 1 << 4;
const CR0_PG = 2 ** 31;
const CR4_PAE = 1 << 5;
const EFER_LME = 1 << 8;
const EFER_LMA = 1 << 10;
/** Bit 1 of RFLAGS is always set. */
const RFLAGS_RESERVED = 1 << 1;

const CODE = { type: 11, present: true, dpl: 0, s: true, g: true, base: 0, limit: 0xffff_ffff } as const;
const CODE_64: SegmentState = { ...CODE, selector: BOOT_CS, db: false, l: true };
const CODE_32: SegmentState = { ...CODE, selector: BOOT_CS, db: true, l: false };
const DATA: SegmentState = { ...CODE, selector: BOOT_DS, type: 3, db: true, l: false };
/** A task register must hold a busy TSS for the processor to run in virtual machine mode. */
const TSS: SegmentState = {
  selector: BOOT_TSS,
  base: 0,
  limit: 0x67,
  type: 11,
  present: true,
  dpl: 0,
  s: false,
  db: false,
  l: false,
  g: false,
};

/** The GDT that belongs to an entry state, to be written at GDT_ADDRESS: null, unused, code, data, TSS. */
export function buildGdt(state: EntryState): Uint8Array {
  const bytes = new Uint8Array(state.gdt.limit + 1);
  const view = new DataView(bytes.buffer);
  for (const segment of [state.cs, state.data, state.tr]) {
    view.setBigUint64(segment.selector, descriptor(segment), true);
  }
  return bytes;
}

/** A segment descriptor (Intel SDM volume 3A, 3.4.5). */
function descriptor(segment: SegmentState): bigint {
  const limit = BigInt(segment.g ? Math.floor(segment.limit / 4096) : segment.limit);
  const base = BigInt(segment.base);
  const flags =
    BigInt(segment.type) |
    (segment.s ? 1n << 4n : 0n) |
    (BigInt(segment.dpl) << 5n) |
    (segment.present ? 1n << 7n : 0n) |
    (segment.l ? 1n << 13n : 0n) |
    (segment.db ? 1n << 14n : 0n) |
    (segment.g ? 1n << 15n : 0n);
  return (
    (limit & 0xffffn) |
    ((base & 0xffffffn) << 16n) |
    (flags << 40n) |
    (((limit >> 16n) & 0xfn) << 48n) |
    (((base >> 24n) & 0xffn) << 56n)
  );
}

// Null, unused, code, data, and a TSS descriptor of 16 bytes.
const GDT = { base: GDT_ADDRESS, limit: BOOT_TSS + 16 - 1 } as const;

/**
 * The 64-bit boot protocol's entry (boot.rst): long mode, identity-mapped paging, rsi at the zero page, interrupts off.
 * @param entry physical address of the 64-bit entry point.
 * @param zeroPage physical address of struct boot_params.
 * @param pageTables physical address of the PML4.
 */
export function linux64Entry(entry: number, zeroPage: number, pageTables: number): EntryState {
  return {
    rip: entry,
    rsi: zeroPage,
    rbx: 0,
    rflags: RFLAGS_RESERVED,
    cs: CODE_64,
    data: DATA,
    tr: TSS,
    gdt: GDT,
    cr0: CR0_PG + CR0_ET + CR0_PE,
    cr3: pageTables,
    cr4: CR4_PAE,
    efer: EFER_LME | EFER_LMA,
  };
}

/**
 * The PVH entry (xen/include/public/arch-x86/hvm/start_info.h): 32-bit protected mode without paging, ebx at the start
 * info.
 */
export function pvhEntry(entry: number, startInfo: number): EntryState {
  return {
    rip: entry,
    rsi: 0,
    rbx: startInfo,
    rflags: RFLAGS_RESERVED,
    cs: CODE_32,
    data: DATA,
    tr: TSS,
    gdt: GDT,
    cr0: CR0_ET + CR0_PE,
    cr3: 0,
    cr4: 0,
    efer: 0,
  };
}
