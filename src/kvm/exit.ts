/** Why KVM_RUN returned: the kvm_run page, decoded (Documentation/virt/kvm/api.rst, section 5). */
import * as k from './constants.js';

/**
 * Why a vCPU left the guest. `data` of io and mmio is a view of the kvm_run page: for a read, put the answer there
 * before the next run().
 */
export type VcpuExit =
  | {
      readonly reason: 'io';
      readonly direction: 'in' | 'out';
      readonly port: number;
      /** Bytes of one access: 1, 2 or 4. */
      readonly size: number;
      /** Accesses, more than 1 for string instructions; `data` has size * count bytes. */
      readonly count: number;
      readonly data: Uint8Array;
    }
  | {
      readonly reason: 'mmio';
      readonly direction: 'read' | 'write';
      readonly address: bigint;
      /** 1 to 8 bytes. */
      readonly data: Uint8Array;
    }
  | { readonly reason: 'hlt' }
  /** Triple fault. */
  | { readonly reason: 'shutdown' }
  /** A signal, or immediate exit. */
  | { readonly reason: 'intr' }
  | { readonly reason: 'irq-window-open' }
  /** `hardwareReason`: the VMX or SVM code. */
  | { readonly reason: 'fail-entry'; readonly hardwareReason: bigint; readonly cpu: number }
  | InternalError
  | { readonly reason: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  | {
      readonly reason: 'debug';
      readonly exception: number;
      readonly pc: bigint;
      readonly dr6: bigint;
      readonly dr7: bigint;
    }
  /** Another number of linux/kvm.h; for KVM_EXIT_UNKNOWN with the hardware's reason. */
  | { readonly reason: 'unknown'; readonly number: number; readonly hardwareReason: bigint };

/** KVM cannot go on. */
export interface InternalError {
  readonly reason: 'internal-error';
  readonly suberror: number;
  /** In words, such as 'emulation failure'. */
  readonly message: string;
  readonly data: readonly bigint[];
  /** The instruction that the emulator does not know, where KVM gives it: up to 15 bytes, of which it is the first. */
  readonly instruction?: Uint8Array;
}

const suberrors: Record<number, string> = {
  [k.KVM_INTERNAL_ERROR_EMULATION]: 'emulation failure',
  [k.KVM_INTERNAL_ERROR_SIMUL_EX]: 'exception while an exception was delivered',
  [k.KVM_INTERNAL_ERROR_DELIVERY_EV]: 'exit while an event was delivered',
  [k.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON]: 'unexpected exit reason of the processor',
};

/** Offsets in struct kvm_run. */
export const runPage = { immediateExit: 1, exitReason: 8, union: 32 } as const;

/** Decodes the exit that `run`, a whole kvm_run mapping, shows. Offsets from it are checked against its size. */
export function decodeExit(run: DataView): VcpuExit {
  const at = runPage.union;
  const number = run.getUint32(runPage.exitReason, true);
  switch (number) {
    case k.KVM_EXIT_IO:
      return decodeIo(run);
    case k.KVM_EXIT_MMIO:
      return {
        reason: 'mmio',
        direction: run.getUint8(at + 20) === 0 ? 'read' : 'write',
        address: run.getBigUint64(at, true),
        data: new Uint8Array(run.buffer, run.byteOffset + at + 8, Math.min(8, run.getUint32(at + 16, true))),
      };
    case k.KVM_EXIT_HLT:
      return { reason: 'hlt' };
    case k.KVM_EXIT_SHUTDOWN:
      return { reason: 'shutdown' };
    case k.KVM_EXIT_INTR:
      return { reason: 'intr' };
    case k.KVM_EXIT_IRQ_WINDOW_OPEN:
      return { reason: 'irq-window-open' };
    case k.KVM_EXIT_FAIL_ENTRY:
      return {
        reason: 'fail-entry',
        hardwareReason: run.getBigUint64(at, true),
        cpu: run.getUint32(at + 8, true),
      };
    case k.KVM_EXIT_INTERNAL_ERROR:
      return decodeInternalError(run);
    case k.KVM_EXIT_SYSTEM_EVENT:
      return { reason: 'system-event', type: run.getUint32(at, true), data: words(run, at + 4) };
    case k.KVM_EXIT_DEBUG:
      return {
        reason: 'debug',
        exception: run.getUint32(at, true),
        pc: run.getBigUint64(at + 8, true),
        dr6: run.getBigUint64(at + 16, true),
        dr7: run.getBigUint64(at + 24, true),
      };
    default:
      return { reason: 'unknown', number, hardwareReason: run.getBigUint64(at, true) };
  }
}

function decodeIo(run: DataView): VcpuExit {
  const at = runPage.union;
  const size = run.getUint8(at + 1);
  const count = run.getUint32(at + 4, true);
  const offset = run.getUint32(at + 8, true);
  if (offset + size * count > run.byteLength) {
    throw new RangeError(`kvm_run: ${count} accesses of ${size} bytes at ${offset} do not fit the mapping`);
  }
  return {
    reason: 'io',
    direction: run.getUint8(at) === k.KVM_EXIT_IO_OUT ? 'out' : 'in',
    port: run.getUint16(at + 2, true),
    size,
    count,
    data: new Uint8Array(run.buffer, run.byteOffset + offset, size * count),
  };
}

// struct internal, and for a failed emulation its overlay: flags, then the size and the bytes of the instruction.
function decodeInternalError(run: DataView): InternalError {
  const at = runPage.union;
  const suberror = run.getUint32(at, true);
  const data = words(run, at + 4);
  const error: InternalError = {
    reason: 'internal-error',
    suberror,
    message: suberrors[suberror] ?? `suberror ${suberror}`,
    data,
  };
  const hasBytes = ((data[0] ?? 0n) & k.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) !== 0n;
  if (suberror !== k.KVM_INTERNAL_ERROR_EMULATION || data.length < 3 || !hasBytes) {
    return error;
  }
  const size = Math.min(15, run.getUint8(at + 16));
  const start = run.byteOffset + at + 17;
  return { ...error, instruction: new Uint8Array(run.buffer.slice(start, start + size)) };
}

// ndata and, from the next multiple of 8 on, data[16].
function words(run: DataView, at: number): bigint[] {
  const length = Math.min(16, run.getUint32(at, true));
  return Array.from({ length }, (_, i) => run.getBigUint64(at + 4 + 8 * i, true));
}
