import type { NativeEnd } from '../addon/index.js';
import {
  KVM_EXIT_SHUTDOWN,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_SYSTEM_EVENT_CRASH,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_SHUTDOWN,
} from '../kvm/constants.js';
import { KvmError } from '../kvm/errors.js';
import type { Vcpu } from '../kvm/vcpu.js';
import type { MachineExit } from './machine.js';

/** Makes words of why the machine has ended. Called once all vCPUs have been asked out of the guest. */
export function exitOf(end: NativeEnd, vcpus: readonly Vcpu[]): MachineExit {
  const panic = end.panicked || end.panicText !== undefined;
  const panicked: MachineExit = {
    reason: 'panic',
    message: end.panicText ?? 'the guest reported a kernel panic',
  };
  switch (end.reason) {
    case 'stopped':
      return { reason: 'stopped' };
    case 'panic':
      return panicked;
    case 'power-off':
      return end.panicked ? panicked : { reason: 'power-off' };
    case 'reset':
      // A kernel that panics with panic=-1 resets the machine: the reset alone does not tell.
      return panic ? panicked : { reason: 'reset' };
    case 'exit':
      break;
  }
  if (end.exitReason === KVM_EXIT_SYSTEM_EVENT && end.errno === 0) {
    if (end.suberror === KVM_SYSTEM_EVENT_CRASH || panic) return panicked;
    if (end.suberror === KVM_SYSTEM_EVENT_SHUTDOWN) return { reason: 'power-off' };
    if (end.suberror === KVM_SYSTEM_EVENT_RESET) return { reason: 'reset' };
  }
  const vcpu = vcpus[end.vcpu];
  const registers = vcpu === undefined ? '' : registersOf(vcpu);
  if (end.exitReason === KVM_EXIT_SHUTDOWN && end.errno === 0) {
    // A kernel whose reboot= is triple fault ends a panic so.
    if (panic) return panicked;
    return { reason: 'triple-fault', message: `vCPU ${end.vcpu}: triple fault; ${registers}` };
  }
  return { reason: 'kvm-error', message: `vCPU ${end.vcpu}: ${describe(end, vcpu)}; ${registers}` };
}

function describe(end: NativeEnd, vcpu: Vcpu | undefined): string {
  if (end.errno !== 0 || vcpu === undefined) return new KvmError('KVM_RUN', end.errno).message;
  const exit = vcpu.lastExit();
  switch (exit.reason) {
    case 'internal-error': {
      const code = exit.instruction === undefined ? '' : `, at the bytes ${hexBytes(exit.instruction)}`;
      return `KVM internal error ${exit.suberror} (${exit.message}${code})`;
    }
    case 'fail-entry':
      return `KVM cannot enter the guest (hardware reason 0x${exit.hardwareReason.toString(16)})`;
    case 'unknown':
      return `KVM exit ${exit.number} (hardware reason 0x${exit.hardwareReason.toString(16)})`;
    case 'hlt':
      return 'the vCPU halted with no interrupt controller to wake it';
    default:
      return `unexpected KVM exit: ${exit.reason}`;
  }
}

function registersOf(vcpu: Vcpu): string {
  try {
    const regs = vcpu.getRegs();
    const sregs = vcpu.getSregs();
    const names = ['rip', 'rsp', 'rflags', 'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp'] as const;
    const words = names.map((name) => `${name}=${hex(regs[name])}`);
    words.push(
      `cr0=${hex(sregs.cr0)}`,
      `cr2=${hex(sregs.cr2)}`,
      `cr3=${hex(sregs.cr3)}`,
      `cr4=${hex(sregs.cr4)}`,
    );
    words.push(`efer=${hex(sregs.efer)}`, `cs=${sregs.cs.selector.toString(16)}:${hex(sregs.cs.base)}`);
    return words.join(' ');
  } catch (error) {
    return `registers unknown (${error instanceof Error ? error.message : String(error)})`;
  }
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function hexBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
