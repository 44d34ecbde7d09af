/**
 * The rig of the hostile guest suite: a machine with real devices on it, as the product builds them, whose guest is the interpreter.
 *
 *     0x00001000  the interpreter; 0x9000 page tables; 0xf000 IDT
 *     0x00012000  a mailbox and a stack a vCPU; 0x14000 counters of interrupts
 *     0x00020000  the program of vCPU 0; 0x80000: of vCPU 1
 *     0x00100000  rings and buffers, 1 MiB a device (see driver.ts)
 *     0x04000000  the second region of RAM: adjacent, but of its own
 *     0x04200000  nothing, up to the devices at 3 GiB
 *     4 GiB       the third region of RAM
 */
import { addon, type NativeEnd, type NativeMachine } from '../../../src/addon/index.js';
import { Kvm } from '../../../src/kvm/kvm.js';
import type { Vcpu } from '../../../src/kvm/vcpu.js';
import type { Vm } from '../../../src/kvm/vm.js';
import { GuestMemory } from '../../../src/memory/guest-memory.js';
import { VIRTIO_MMIO_ADDRESS, VIRTIO_MMIO_STRIDE } from '../../../src/memory/layout.js';
import type { VirtioDescription } from '../../../src/virtio/description.js';
import { assemble } from '../assemble.js';
import { enterMode } from '../micro-guest.js';
import {
  DEVICE_VECTOR,
  DEVICE_VECTORS,
  DONE_PORT,
  DOORBELL_VECTOR,
  decodeResults,
  describe,
  encodeProgram,
  INTERPRETER,
  INTERRUPT_COUNTERS,
  mailbox,
  type Operation,
  type OperationResult,
} from './interpreter.js';

const MIB = 1 << 20;
export const RAM = { address: 0, size: 64 * MIB } as const;
/** Begins where RAM ends, so that a buffer can cross the border of two regions. */
export const NEXT_RAM = { address: 64 * MIB, size: 2 * MIB } as const;
export const HIGH_RAM = { address: 2 ** 32, size: 2 * MIB } as const;

const ORIGIN = 0x1000;
const PAGE_TABLES = 0x9000;
const IDT = 0xf000;
const HIGH_DIRECTORY = 0x11000;
const MAILBOXES = 0x12000;
const PROGRAMS = [0x20000, 0x80000];
const PROGRAM_SIZE = 0x60000;
const DEVICE_GSI = 24;
/** _IOW(KVMIO, 0x99, struct kvm_mp_state); KVM_MP_STATE_RUNNABLE is 0. */
const KVM_SET_MP_STATE = 0x4004ae99;

/** A program that has not ended after this long is told to give up its waits, and must then end. */
const PATIENCE_MS = 50_000;

export interface RigDevice {
  readonly name: string;
  readonly index: number;
  readonly base: number;
  readonly description: VirtioDescription;
}

export interface RigOptions {
  /** In the order of their addresses. */
  readonly describe: (memory: () => GuestMemory) => readonly VirtioDescription[];
  /** 1 (the default) or 2. */
  readonly cpus?: 1 | 2;
  /** Puts more on the buses. */
  readonly add?: (machine: NativeMachine) => void;
}

interface Running {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Rig {
  readonly memory: GuestMemory;
  readonly machine: NativeMachine;
  readonly devices: readonly RigDevice[];
  /** What devices have told: activations, resets, failures, log lines. */
  readonly events: { readonly type: string; readonly device: string; readonly message: string }[] = [];
  /** How the machine has ended by itself, which it never should. */
  ended: NativeEnd | undefined;
  readonly #vm: Vm;
  readonly #release: (() => void)[] = [];
  readonly #running = new Map<number, Running>();

  constructor(options: RigOptions) {
    const kvm = Kvm.open();
    const vm = kvm.createVm();
    this.#vm = vm;
    // Intel's processors need these for real mode, in which a vCPU begins.
    vm.setIdentityMapAddress(0xfffbc000);
    vm.setTssAddress(0xfffbd000);
    vm.createIrqchip();
    this.memory = new GuestMemory({ regions: [RAM, NEXT_RAM, HIGH_RAM], hugePages: false });
    this.memory.regions.forEach(({ address, size, host }, slot) => {
      vm.setUserMemoryRegion({ slot, address, size, host });
    });
    this.machine = new (addon().NativeMachine)(vm.fd, this.memory.native, (...event) => {
      const [type, what, message = ''] = event;
      if (typeof what === 'string') this.events.push({ type, device: what, message });
      else if (what instanceof Error) this.events.push({ type, device: '', message: what.message });
      else this.#died(what);
    });
    this.machine.addScriptDevice(
      'port',
      DONE_PORT,
      4,
      () => 0,
      (_offset, _size, vcpu) => this.#running.get(Number(vcpu))?.resolve(),
    );
    this.devices = options
      .describe(() => this.memory)
      .map((description, index) => {
        const base = VIRTIO_MMIO_ADDRESS + index * VIRTIO_MMIO_STRIDE;
        this.machine.addVirtioMmio(base, DEVICE_GSI + index, description);
        return { name: description.name, index, base, description };
      });
    vm.setGsiRouting(
      this.devices.map(({ index }) => ({
        gsi: DEVICE_GSI + index,
        msi: { address: 0xfee00000n, data: DEVICE_VECTOR + index },
      })),
    );
    options.add?.(this.machine);
    const code = assemble(INTERPRETER, 64, ORIGIN);
    this.memory.write(ORIGIN, code.bytes);
    const cpuid = kvm.supportedCpuid();
    for (let id = 0; id < (options.cpus ?? 1); id++) {
      const vcpu = vm.createVcpu(id);
      vcpu.setCpuid2(cpuid);
      this.#enter(vcpu, id);
      this.machine.addVcpu(vcpu.fd, kvm.vcpuMmapSize);
      this.#release.push(() => vcpu.close());
    }
    this.#writeTables(code.labels);
    this.#release.push(
      () => vm.close(),
      () => kvm.close(),
      () => this.memory.close(),
    );
    this.machine.start();
  }

  #enter(vcpu: Vcpu, id: number): void {
    enterMode(vcpu, this.memory, 'long');
    if (id > 0) {
      const result = addon().ioctl(vcpu.fd, KVM_SET_MP_STATE, new Uint32Array(1));
      if (result < 0) throw new Error(`KVM_SET_MP_STATE: errno ${-result}`);
    }
    const box = MAILBOXES + id * mailbox.size;
    this.memory.writeU32(box + mailbox.vcpu, id);
    vcpu.setRegs({
      rip: BigInt(ORIGIN),
      rbp: BigInt(box),
      rsp: BigInt(box + mailbox.size),
      rflags: 2n,
    });
  }

  #writeTables(labels: Readonly<Record<string, number>>): void {
    const gate = (vector: number, label: string): void => {
      const address = labels[label] ?? 0;
      const at = IDT + vector * 16;
      // An interrupt gate, present, DPL 0 (Intel SDM 3A, 6.14.1).
      this.memory.writeU64(
        at,
        BigInt(address & 0xffff) | 0x8e00_0008_0000n | (BigInt(address >>> 16) << 48n),
      );
    };
    gate(DOORBELL_VECTOR, 'doorbell');
    for (let i = 0; i < DEVICE_VECTORS; i++) gate(DEVICE_VECTOR + i, `device${i}`);
    // The fifth GiB, beside the four of enterMode().
    const presentWritable = 3;
    const large = 0x80;
    this.memory.writeU64(PAGE_TABLES + 0x1000 + 4 * 8, BigInt(HIGH_DIRECTORY | presentWritable));
    for (let at = 0; at < HIGH_RAM.size; at += 2 * MIB) {
      this.memory.writeU64(
        HIGH_DIRECTORY + (at / (2 * MIB)) * 8,
        BigInt(HIGH_RAM.address + at) | BigInt(large | presentWritable),
      );
    }
  }

  device(name: string): RigDevice {
    const device = this.devices.find((each) => each.name === name);
    if (device === undefined) throw new Error(`the rig has no device ${name}`);
    return device;
  }

  /** Lets a vCPU carry the operations out. @throws Error if one of them waits in vain, or the machine ends */
  async run(operations: readonly Operation[], cpu: 0 | 1 = 0): Promise<OperationResult[]> {
    if (this.ended !== undefined) throw new Error(`the machine has ended: ${show(this.ended)}`);
    const at = PROGRAMS[cpu] ?? 0;
    const program = encodeProgram(operations, at);
    if (program.length > PROGRAM_SIZE) throw new Error('the program is too long');
    const box = MAILBOXES + cpu * mailbox.size;
    this.memory.write(at, program);
    this.memory.writeU32(box + mailbox.abort, 0);
    this.memory.writeU64(box + mailbox.program, BigInt(at));
    let patience: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      this.#running.set(cpu, { resolve, reject });
      patience = setTimeout(() => {
        this.memory.writeU32(box + mailbox.abort, 1);
        patience = setTimeout(() => reject(new Error(`vCPU ${cpu} is stuck`)), PATIENCE_MS);
      }, PATIENCE_MS);
      this.#vm.signalMsi({ address: BigInt(0xfee00000 + (cpu << 12)), data: DOORBELL_VECTOR });
    }).finally(() => {
      clearTimeout(patience);
      this.#running.delete(cpu);
    });
    const results = decodeResults(this.memory.read(at, program.length), operations.length);
    const late = results.findIndex(({ outcome }) => outcome === 'aborted');
    const operation = operations[late];
    if (operation !== undefined) {
      throw new Error(
        `waited in vain: ${describe(operation)}; last seen 0x${(results[late]?.value ?? 0n).toString(16)}`,
      );
    }
    return results;
  }

  /** Runs a program for its last operation's value. */
  async value(...operations: Operation[]): Promise<number> {
    const results = await this.run(operations);
    return Number(results.at(-1)?.value ?? 0n);
  }

  /** How often a device has raised its interrupt. */
  interruptsRaised(device: RigDevice): number {
    return this.machine.metrics()[device.name]?.interrupts ?? 0;
  }

  /** Where the guest counts how often a device has interrupted it, in 32 bits. */
  interruptCounter(device: RigDevice): number {
    return INTERRUPT_COUNTERS + 4 * device.index;
  }

  #died(end: NativeEnd): void {
    this.ended = end;
    for (const { reject } of this.#running.values()) {
      reject(new Error(`the machine has ended: ${show(end)}`));
    }
  }

  /** Ends the machine, whatever its guest does; programs that run are abandoned. */
  close(): void {
    this.machine.close();
    for (const { reject } of this.#running.values()) reject(new Error('the machine was closed'));
    for (const release of this.#release.splice(0)) release();
  }
}

function show(end: NativeEnd): string {
  return JSON.stringify(end, (_, value) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value));
}
