/**
 * A tiny machine for tests on any /dev/kvm: some RAM, one vCPU, a page of assembly.
 *
 *     0x0500  GDT: 0x08 code, 0x10 data, flat
 *     0x1000  the code; the stack comes down towards it from 0x9000
 *     0x9000  page tables of long mode: the first 4 GiB, one to one, in pages of 2 MiB
 *     0xf000  IDT (in real mode: the vectors at 0)
 *     0x10000 and above: the test's own
 */

import type { VcpuExit } from '../../src/kvm/exit.js';
import { Kvm } from '../../src/kvm/kvm.js';
import type { Segment } from '../../src/kvm/registers.js';
import type { Vcpu } from '../../src/kvm/vcpu.js';
import type { Vm } from '../../src/kvm/vm.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { assemble } from './assemble.js';

export type Mode = 'real' | 'protected' | 'long';

export interface MicroGuestOptions {
  /** The mode that the vCPU starts in, interrupts off. */
  readonly mode: Mode;
  /** Assembly source, as for assemble(); starts at its first line. */
  readonly code: string;
  /** One memory slot each; default 1 MiB from 0 on. `flags`: KVM_MEM_ flags. */
  readonly regions?: readonly { readonly address: number; readonly size: number; readonly flags?: number }[];
  /** Interrupt controllers and timer in the kernel; `hlt` then waits instead of exiting. Default false. */
  readonly irqchip?: boolean;
}

const gdt = 0x500;
const origin = 0x1000;
const stack = 0x9000;
const pageTables = 0x9000;
const idt = 0xf000;

export class MicroGuest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly memory: GuestMemory;
  readonly labels: Readonly<Record<string, number>>;
  readonly #mode: Mode;

  constructor(options: MicroGuestOptions) {
    const { mode, code, regions = [{ address: 0, size: 1 << 20 }], irqchip = false } = options;
    this.#mode = mode;
    this.kvm = Kvm.open();
    this.vm = this.kvm.createVm();
    // Intel's processors need these for real mode.
    this.vm.setIdentityMapAddress(0xfffbc000);
    this.vm.setTssAddress(0xfffbd000);
    if (irqchip) {
      this.vm.createIrqchip();
      this.vm.createPit2();
    }
    this.memory = new GuestMemory({ regions });
    this.memory.regions.forEach(({ address, size, host }, slot) => {
      this.vm.setUserMemoryRegion({ slot, address, size, host, flags: regions[slot]?.flags ?? 0 });
    });
    this.vcpu = this.vm.createVcpu(0);
    this.vcpu.setCpuid2(this.kvm.supportedCpuid());
    const assembled = assemble(code, { real: 16, protected: 32, long: 64 }[mode] as 16 | 32 | 64, origin);
    this.labels = assembled.labels;
    this.memory.write(origin, assembled.bytes);
    enterMode(this.vcpu, this.memory, mode);
    this.vcpu.setRegs({ rip: BigInt(origin), rsp: BigInt(stack), rflags: 2n });
  }

  /** The next exit. */
  run(): VcpuExit {
    return this.vcpu.run();
  }

  /** Runs to an exit of this reason; throws an Error that shows the exit if it is another. */
  expect<R extends VcpuExit['reason']>(reason: R): Extract<VcpuExit, { reason: R }> {
    const exit = this.run();
    if (exit.reason !== reason) {
      const shown = JSON.stringify(exit, (_, value) =>
        typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
      );
      throw new Error(
        `expected the exit '${reason}', not ${shown}, rip 0x${this.vcpu.getRegs().rip.toString(16)}`,
      );
    }
    return exit as Extract<VcpuExit, { reason: R }>;
  }

  /** Makes an interrupt or exception vector lead to a label of the code. */
  setVector(vector: number, label: string): void {
    const address = this.label(label);
    if (this.#mode === 'real') {
      this.memory.writeU16(vector * 4, address);
      this.memory.writeU16(vector * 4 + 2, 0);
      return;
    }
    // An interrupt gate, present, DPL 0 (Intel SDM 3A, 6.11 and 6.14.1).
    const size = this.#mode === 'long' ? 16 : 8;
    this.memory.writeU16(idt + vector * size, address & 0xffff);
    this.memory.writeU16(idt + vector * size + 2, 0x08);
    this.memory.writeU16(idt + vector * size + 4, 0x8e00);
    this.memory.writeU16(idt + vector * size + 6, address >>> 16);
  }

  label(name: string): number {
    const address = this.labels[name];
    if (address === undefined) {
      throw new Error(`the guest's code has no label ${name}`);
    }
    return address;
  }

  close(): void {
    this.vcpu.close();
    this.vm.close();
    this.kvm.close();
    this.memory.close();
  }
}

/** A micro-guest that is closed when the test ends. */
export function microGuest(
  test: { teardown(end: () => void): unknown },
  options: MicroGuestOptions,
): MicroGuest {
  const guest = new MicroGuest(options);
  test.teardown(() => guest.close());
  return guest;
}

/** Puts GDT and page tables into memory, as the mode needs, and the vCPU's segments and control registers right. */
export function enterMode(vcpu: Vcpu, memory: GuestMemory, mode: Mode): void {
  const sregs = vcpu.getSregs();
  if (mode === 'real') {
    for (const segment of [sregs.cs, sregs.ds, sregs.es, sregs.ss]) {
      segment.base = 0n;
      segment.selector = 0;
    }
    vcpu.setSregs(sregs);
    return;
  }
  const long = mode === 'long';
  // Base 0, limit 4 GiB; code: 32 or 64 bits (Intel SDM 3A, 3.4.5).
  memory.writeU64(gdt + 0x08, long ? 0x00af9b000000ffffn : 0x00cf9b000000ffffn);
  memory.writeU64(gdt + 0x10, 0x00cf93000000ffffn);
  sregs.gdt = { base: BigInt(gdt), limit: 0x17 };
  sregs.idt = { base: BigInt(idt), limit: long ? 0xfff : 0x7ff };
  const flat: Segment = {
    base: 0n,
    limit: 0xffffffff,
    selector: 0x10,
    type: 3,
    present: 1,
    dpl: 0,
    db: 1,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
  };
  sregs.cs = { ...flat, selector: 0x08, type: 11, db: long ? 0 : 1, l: long ? 1 : 0 };
  sregs.ds = flat;
  sregs.es = flat;
  sregs.ss = flat;
  const protectedMode = 0x1n;
  sregs.cr0 |= protectedMode;
  if (long) {
    const presentWritable = 3n;
    const large = 0x80n;
    memory.writeU64(pageTables, BigInt(pageTables + 0x1000) | presentWritable);
    for (let gib = 0; gib < 4; gib++) {
      const directory = pageTables + 0x2000 + gib * 0x1000;
      memory.writeU64(pageTables + 0x1000 + gib * 8, BigInt(directory) | presentWritable);
      for (let i = 0; i < 512; i++) {
        memory.writeU64(directory + i * 8, BigInt(gib * 0x40000000 + i * 0x200000) | large | presentWritable);
      }
    }
    sregs.cr3 = BigInt(pageTables);
    sregs.cr4 |= 0x20n; // PAE
    sregs.cr0 |= 0x80000000n; // PG
    sregs.efer |= 0x500n; // LME, LMA
  }
  vcpu.setSregs(sregs);
}
