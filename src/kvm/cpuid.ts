/** What the CPUID instruction answers in a guest: a list of leaves for KVM_SET_CPUID2 (api.rst 4.46, 4.20). */
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX, sizes } from './constants.js';

const head = sizes.kvm_cpuid2;
const entrySize = sizes.kvm_cpuid_entry2;

/** One leaf, decoded. `index` (ECX) counts only where `flags` has KVM_CPUID_FLAG_SIGNIFCANT_INDEX. */
export interface CpuidEntry {
  function: number;
  index: number;
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** A register of an entry, as its offset in struct kvm_cpuid_entry2. */
export const cpuidRegister = { eax: 12, ebx: 16, ecx: 20, edx: 24 } as const;
export type CpuidRegister = keyof typeof cpuidRegister;

/**
 * A struct kvm_cpuid2 kept as the bytes that KVM takes: reading and changing single registers in place costs next to
 * nothing, which matters at start-up. `entries()` decodes for those who want objects.
 */
export class Cpuid {
  /** The struct with room for `capacity` entries, of which `count` are used. */
  readonly view: DataView;

  /** `view` begins with nent and padding, as KVM_GET_SUPPORTED_CPUID leaves it. */
  constructor(view: DataView) {
    this.view = view;
  }

  /** An empty list with room for `capacity` entries. */
  static allocate(capacity: number): Cpuid {
    return new Cpuid(new DataView(new ArrayBuffer(head + capacity * entrySize)));
  }

  static fromEntries(entries: readonly CpuidEntry[]): Cpuid {
    const cpuid = Cpuid.allocate(entries.length);
    for (const entry of entries) {
      cpuid.put(entry);
    }
    return cpuid;
  }

  get capacity(): number {
    return Math.floor((this.view.byteLength - head) / entrySize);
  }

  get count(): number {
    return Math.min(this.view.getUint32(0, true), this.capacity);
  }

  /** Takes empty entries off the end; KVM_GET_CPUID2 of Linux 6.1 leaves the count as large as the room. */
  trim(): void {
    const words = entrySize / 4;
    let { count } = this;
    const isEmpty = (entry: number): boolean => {
      for (let i = 0; i < words; i++) {
        if (this.view.getUint32(head + entry * entrySize + i * 4, true) !== 0) {
          return false;
        }
      }
      return true;
    };
    while (count > 0 && isEmpty(count - 1)) {
      count--;
    }
    this.view.setUint32(0, count, true);
  }

  copy(): Cpuid {
    const { buffer, byteOffset, byteLength } = this.view;
    return new Cpuid(new DataView(new Uint8Array(buffer, byteOffset, byteLength).slice().buffer));
  }

  entries(): CpuidEntry[] {
    return Array.from({ length: this.count }, (_, i) => {
      const word = (offset: number): number => this.view.getUint32(head + i * entrySize + offset, true);
      return {
        function: word(0),
        index: word(4),
        flags: word(8),
        eax: word(12),
        ebx: word(16),
        ecx: word(20),
        edx: word(24),
      };
    });
  }

  /** Where the entry of a leaf begins in `view`, or -1. Leaves without sub-leaves ignore `index`. */
  find(leaf: number, index = 0): number {
    const end = head + this.count * entrySize;
    for (let at = head; at < end; at += entrySize) {
      if (this.view.getUint32(at, true) === leaf) {
        const significant = this.view.getUint32(at + 8, true) & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        if (significant === 0 || this.view.getUint32(at + 4, true) === index) {
          return at;
        }
      }
    }
    return -1;
  }

  /** A register of a leaf; undefined where the leaf is not there. */
  get(leaf: number, register: CpuidRegister, index = 0): number | undefined {
    const at = this.find(leaf, index);
    return at < 0 ? undefined : this.view.getUint32(at + cpuidRegister[register], true);
  }

  /** Replaces the bits of `mask` in a register of a leaf; false, and nothing done, where the leaf is not there. */
  set(leaf: number, register: CpuidRegister, value: number, mask = 0xffffffff, index = 0): boolean {
    const at = this.find(leaf, index);
    if (at < 0) {
      return false;
    }
    const old = this.view.getUint32(at + cpuidRegister[register], true);
    this.view.setUint32(at + cpuidRegister[register], ((old & ~mask) | (value & mask)) >>> 0, true);
    return true;
  }

  /** Writes an entry: over the one with its leaf and index, or behind the last. Throws a RangeError when full. */
  put(entry: CpuidEntry): void {
    let at = this.find(entry.function, entry.index);
    if (at < 0) {
      const { count } = this;
      if (count >= this.capacity) {
        throw new RangeError(`the CPUID list is full: ${count} entries`);
      }
      at = head + count * entrySize;
      this.view.setUint32(0, count + 1, true);
    }
    this.view.setUint32(at, entry.function, true);
    this.view.setUint32(at + 4, entry.index, true);
    this.view.setUint32(at + 8, entry.flags, true);
    this.view.setUint32(at + 12, entry.eax, true);
    this.view.setUint32(at + 16, entry.ebx, true);
    this.view.setUint32(at + 20, entry.ecx, true);
    this.view.setUint32(at + 24, entry.edx, true);
  }

  /** Takes all sub-leaves of a leaf out. */
  remove(leaf: number): void {
    const bytes = new Uint8Array(this.view.buffer, this.view.byteOffset, this.view.byteLength);
    let count = this.count;
    for (let at = head; at < head + count * entrySize; ) {
      if (this.view.getUint32(at, true) === leaf) {
        bytes.copyWithin(at, at + entrySize, head + count * entrySize);
        count--;
      } else {
        at += entrySize;
      }
    }
    this.view.setUint32(0, count, true);
  }
}

/** What makes the supported CPUID that of one vCPU. */
export interface CpuidTarget {
  /** This vCPU's local APIC id; with one thread a core it is its number. */
  readonly apicId: number;
  /** vCPUs of the machine: one package of so many cores. */
  readonly vcpus: number;
  /** KVM_CAP_TSC_DEADLINE_TIMER is there and the local APIC is the kernel's: the supported list may not show it. */
  readonly tscDeadline: boolean;
}

/**
 * Adapts what KVM supports to one vCPU, in place: APIC id and topology (leaves 1, 4, 0xb, 0x80000008,
 * 0x8000001d, 0x8000001e; 0x1f goes), the hypervisor bit and the TSC deadline timer. KVM's own leaves (0x40000000 on) stay as KVM
 * supports them. The list may be adapted again for the next vCPU.
 */
export function adaptCpuid(cpuid: Cpuid, target: CpuidTarget): void {
  const { apicId, vcpus } = target;
  // Leaf 1 EBX: initial APIC id 31:24, addressable ids 23:16, CLFLUSH size 15:8 kept. EDX bit 28: the ids are valid.
  cpuid.set(1, 'ebx', (apicId << 24) | (Math.min(vcpus, 255) << 16), 0xffff0000);
  cpuid.set(1, 'edx', vcpus > 1 ? 1 << 28 : 0, 1 << 28);
  const hypervisor = 1 << 31;
  const deadline = 1 << 24;
  cpuid.set(1, 'ecx', hypervisor | (target.tscDeadline ? deadline : 0), hypervisor | deadline);
  adaptCaches(cpuid, vcpus);
  adaptTopology(cpuid, apicId, vcpus);
}

// Leaves 4 (Intel) and 0x8000001d (AMD): a cache up to level 2 is one core's, a later one the package's. EAX 25:14 is
// the number of ids that share it, less 1; in leaf 4, 31:26 the number of cores of the package, less 1.
function adaptCaches(cpuid: Cpuid, vcpus: number): void {
  for (const leaf of [4, 0x8000001d]) {
    for (let index = 0; index < 8; index++) {
      const eax = cpuid.get(leaf, 'eax', index);
      if (eax === undefined || (eax & 0x1f) === 0) {
        break;
      }
      const sharing = ((eax >> 5) & 7) > 2 ? vcpus - 1 : 0;
      const cores = leaf === 4 ? Math.min(vcpus - 1, 63) << 26 : 0;
      cpuid.set(leaf, 'eax', (sharing << 14) | cores, leaf === 4 ? 0xffffc000 : 0x03ffc000, index);
    }
  }
}

// Leaf 0xb: sub-leaf 0 the threads of a core (1), sub-leaf 1 the cores of the package; EAX: the shift that strips the
// level from an x2APIC id, EDX: this vCPU's id. KVM supplies an empty sub-leaf 0 only. Leaf 0x1f would say the same.
// AMD says it in 0x80000008 and 0x8000001e too.
function adaptTopology(cpuid: Cpuid, apicId: number, vcpus: number): void {
  const bits = 32 - Math.clz32(vcpus - 1);
  const flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  cpuid.remove(0x1f);
  if (cpuid.find(0xb) >= 0) {
    cpuid.remove(0xb);
    cpuid.put({ function: 0xb, index: 0, flags, eax: 0, ebx: 1, ecx: 0x100, edx: apicId });
    cpuid.put({ function: 0xb, index: 1, flags, eax: bits, ebx: vcpus, ecx: 0x201, edx: apicId });
  }
  // ECX 7:0: cores less 1; 15:12: how many bits of the APIC id number them.
  cpuid.set(0x80000008, 'ecx', (bits << 12) | Math.min(vcpus - 1, 255), 0xf0ff);
  cpuid.set(0x8000001e, 'eax', apicId);
  cpuid.set(0x8000001e, 'ebx', apicId & 0xff, 0xffff);
  cpuid.set(0x8000001e, 'ecx', 0, 0x7ff);
}
