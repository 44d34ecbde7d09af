import type { EntryState, SegmentState } from '../boot/entry.js';
import type { Segment } from '../kvm/registers.js';
import type { Vcpu } from '../kvm/vcpu.js';

/** Puts a vCPU before the first instruction of the kernel. */
export function bootVcpu(vcpu: Vcpu, entry: EntryState): void {
  const sregs = vcpu.getSregs();
  const data = segment(entry.data);
  vcpu.setSregs({
    ...sregs,
    cs: segment(entry.cs),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr: segment(entry.tr),
    gdt: { base: BigInt(entry.gdt.base), limit: entry.gdt.limit },
    cr0: BigInt(entry.cr0),
    cr3: BigInt(entry.cr3),
    cr4: BigInt(entry.cr4),
    efer: BigInt(entry.efer),
  });
  vcpu.setRegs({
    rip: BigInt(entry.rip),
    rsi: BigInt(entry.rsi),
    rbx: BigInt(entry.rbx),
    rflags: BigInt(entry.rflags),
  });
}

function segment(state: SegmentState): Segment {
  return {
    base: BigInt(state.base),
    limit: state.limit,
    selector: state.selector,
    type: state.type,
    present: Number(state.present),
    dpl: state.dpl,
    db: Number(state.db),
    s: Number(state.s),
    l: Number(state.l),
    g: Number(state.g),
    avl: 0,
    unusable: 0,
  };
}
