/**
 * A machine whose guest is a loop of machine code that drives a device, for benchmarks on any /dev/kvm. The code runs at
 * CPL 3 with IOPL 3: where KVM has no processor of its own for guests (kvm_pvm), only that runs at native speed.
 *
 *     0x1000   the code          0x20000  the queue: descriptors, available and used ring, a page each
 *     0x9000   page tables       0x30000  the words that the driver writes to the device's registers
 *                                0x100000 the requests' buffers
 */
import { addon, type NativeMachine } from '../src/addon/index.js';
import { Kvm } from '../src/kvm/kvm.js';
import type { Vcpu } from '../src/kvm/vcpu.js';
import { GuestMemory } from '../src/memory/guest-memory.js';
import { VIRTIO_MMIO_ADDRESS } from '../src/memory/layout.js';
import type { VirtioDescription } from '../src/virtio/description.js';
import { assemble } from '../test/support/assemble.js';
import { enterMode } from '../test/support/micro-guest.js';

const RAM = 16 << 20;
const ORIGIN = 0x1000;
const PAGE_TABLES = 0x9000;
const DESCRIPTORS = 0x20000;
const AVAILABLE = 0x21000;
const USED = 0x22000;
const REGISTERS = 0x30000;
const BUFFERS = 0x100000;
const QUEUE_SIZE = 64;
const GSI = 24;
/** The guest reads there when its warm-up has ended, and when the measured part has; the answer makes it wait for us. */
const CLOCK_PORT = 0x600;
export const SCRIPT_PORT = 0x700;
export const SCRIPT_ADDRESS = 0xd000_0000;
/** The line status register of the serial port, which C++ serves. */
const SERIAL_PORT = 0x3f8;
const PATIENCE_MS = 60_000;

/** A buffer of a request: what the driver wrote, or how many bytes the device may. */
export type Part = Uint8Array | number;

export interface BareOptions {
  /** What is done again and again. rbx: the device's registers. */
  readonly body: string;
  readonly warmUp: number;
  readonly count: number;
  readonly device?: {
    readonly describe: (memory: () => GuestMemory) => VirtioDescription;
    /** The chain of a request. */
    readonly request: readonly Part[];
    /** How many requests are on their way at once; a divisor of 64. */
    readonly depth: number;
  };
  /** Frees what the device was described with, when the machine has gone. */
  readonly afterwards?: () => void;
}

/** The body that makes `depth` requests available and waits until they are served, by looking, without an interrupt. */
export const requests = (depth: number): string => `
    add $${depth}, %r10w
    mov %r10w, ${AVAILABLE + 2}
    movl $0, 0x50(%rbx)
  waiting:
    pause
    cmp ${USED + 2}, %r10w
    jne waiting`;

/** Nanoseconds an operation of the measured part. */
export async function runBare({ body, warmUp, count, device, afterwards }: BareOptions): Promise<number> {
  const release: (() => void)[] = [];
  try {
    const kvm = Kvm.open();
    release.unshift(() => kvm.close());
    const vm = kvm.createVm();
    release.unshift(() => vm.close());
    // Intel's processors need these for real mode, in which a vCPU begins.
    vm.setIdentityMapAddress(0xfffbc000);
    vm.setTssAddress(0xfffbd000);
    vm.createIrqchip();
    const memory = new GuestMemory({ regions: [{ address: 0, size: RAM }] });
    release.unshift(() => memory.close());
    memory.regions.forEach(({ address, size, host }, slot) => {
      vm.setUserMemoryRegion({ slot, address, size, host });
    });
    let ended: (error: Error) => void = () => {};
    const machine = new (addon().NativeMachine)(vm.fd, memory.native, (...event) => {
      const [type, what, message] = event;
      if (type === 'failed') ended(new Error(`${what}: ${message}`));
      else if (type === 'error') ended(what);
      else if (type === 'ended')
        ended(new Error(`the machine ended by itself: ${what.reason}, exit ${what.exitReason}`));
    });
    release.unshift(() => machine.close());
    const interrupt = addon().eventfd(0);
    release.push(() => addon().close(interrupt));
    machine.addSerial(SERIAL_PORT, interrupt, {});
    machine.addScriptDevice(
      'port',
      SCRIPT_PORT,
      4,
      () => 0,
      () => {},
    );
    machine.addScriptDevice(
      'memory',
      SCRIPT_ADDRESS,
      4096,
      () => 0,
      () => {},
    );
    const registers = device === undefined ? [] : driver(memory, machine, device);
    memory.write(REGISTERS, new Uint8Array(Uint32Array.from([...registers, 0xffff]).buffer));

    const elapsed = clock(machine, (callback) => {
      ended = callback;
    });
    const code = assemble(program(body, warmUp, count), 64, ORIGIN);
    memory.write(ORIGIN, code.bytes);
    const vcpu = vm.createVcpu(0);
    release.unshift(() => vcpu.close());
    vcpu.setCpuid2(kvm.supportedCpuid());
    enterUser(vcpu, memory);
    machine.addVcpu(vcpu.fd, kvm.vcpuMmapSize);
    machine.start();
    return (await elapsed) / count;
  } finally {
    // The machine first: its threads use all the rest.
    for (const undo of release) undo();
    afterwards?.();
  }
}

const program = (body: string, warmUp: number, count: number): string => `
    mov $${VIRTIO_MMIO_ADDRESS}, %ebx
    mov $${REGISTERS}, %esi
  next:                              # pairs: which register, what to write
    mov (%rsi), %ecx
    cmp $0xffff, %ecx
    je ready
    mov 4(%rsi), %eax
    mov %eax, (%rbx, %rcx)
    add $8, %rsi
    jmp next
  ready:
    xor %r10d, %r10d
    mov $${warmUp}, %r12d
    mov $2, %r13d
  round:
${body}
    dec %r12d
    jnz round
    mov $${CLOCK_PORT}, %edx
    in (%dx), %al
    mov $${count}, %r12d
    dec %r13d
    jnz round
  stop:
    pause
    jmp stop`;

/** Nanoseconds between the guest's two reads of the clock port. */
function clock(machine: NativeMachine, onEnd: (callback: (error: Error) => void) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    onEnd(reject);
    const patience = setTimeout(() => reject(new Error('the guest does not come to its end')), PATIENCE_MS);
    let start: bigint | undefined;
    machine.addScriptDevice(
      'port',
      CLOCK_PORT,
      1,
      () => {
        const now = process.hrtime.bigint();
        if (start === undefined) start = now;
        else {
          clearTimeout(patience);
          resolve(Number(now - start));
        }
        return 0;
      },
      () => {},
    );
  });
}

/** Puts the device on the bus and its queue into memory. Returns what the driver is to write, register after register. */
function driver(
  memory: GuestMemory,
  machine: NativeMachine,
  { describe, request, depth }: NonNullable<BareOptions['device']>,
): number[] {
  machine.addVirtioMmio(
    VIRTIO_MMIO_ADDRESS,
    GSI,
    describe(() => memory),
  );
  for (let slot = 0; slot < depth; slot++) {
    let at = BUFFERS + slot * 0x10000;
    request.forEach((part, index) => {
      const entry = slot * request.length + index;
      const length = typeof part === 'number' ? part : part.length;
      if (typeof part !== 'number') memory.write(at, part);
      // Virtio 1.2, 2.7.5: 1 goes on, 2 is the device's to write.
      const flags = (index + 1 < request.length ? 1 : 0) | (typeof part === 'number' ? 2 : 0);
      memory.writeU64(DESCRIPTORS + entry * 16, BigInt(at));
      memory.writeU32(DESCRIPTORS + entry * 16 + 8, length);
      memory.writeU16(DESCRIPTORS + entry * 16 + 12, flags);
      memory.writeU16(DESCRIPTORS + entry * 16 + 14, entry + 1);
      at += (length + 4095) & ~4095;
    });
  }
  memory.writeU16(AVAILABLE, 1); // no interrupts
  for (let entry = 0; entry < QUEUE_SIZE; entry++) {
    memory.writeU16(AVAILABLE + 4 + entry * 2, (entry % depth) * request.length);
  }
  // Virtio 1.2, 4.2.3.1: acknowledge, driver, features (VERSION_1 alone), queue 0, go.
  return [
    ...[0x70, 0, 0x70, 1, 0x70, 3, 0x24, 1, 0x20, 1, 0x24, 0, 0x20, 0, 0x70, 0xb],
    ...[0x30, 0, 0x38, QUEUE_SIZE, 0x80, DESCRIPTORS, 0x84, 0, 0x90, AVAILABLE, 0x94, 0, 0xa0, USED, 0xa4, 0],
    ...[0x44, 1, 0x70, 0xf],
  ];
}

/** 64 bits, CPL 3, IOPL 3, no interrupts. */
function enterUser(vcpu: Vcpu, memory: GuestMemory): void {
  enterMode(vcpu, memory, 'long');
  const user = 4n;
  for (let entry = PAGE_TABLES; entry < PAGE_TABLES + 0x6000; entry += 8) {
    const value = memory.readU64(entry);
    if (value !== 0n) memory.writeU64(entry, value | user);
  }
  const sregs = vcpu.getSregs();
  for (const segment of [sregs.cs, sregs.ss, sregs.ds, sregs.es]) {
    segment.dpl = 3;
    segment.selector |= 3;
  }
  vcpu.setSregs(sregs);
  vcpu.setRegs({ rip: BigInt(ORIGIN), rsp: 0x9000n, rflags: 0x3002n });
}
