/** struct kvm_msrs: a count and entries of 16 bytes (api.rst 4.18, 4.19). */
import { sizes } from './constants.js';
import { KvmError } from './errors.js';
import type { Msr } from './registers.js';

const head = sizes.kvm_msrs;
const entry = sizes.kvm_msr_entry;

export function encodeMsrs(msrs: readonly Msr[]): DataView {
  const view = new DataView(new ArrayBuffer(head + msrs.length * entry));
  view.setUint32(0, msrs.length, true);
  msrs.forEach((msr, i) => {
    view.setUint32(head + i * entry, msr.index, true);
    view.setBigUint64(head + i * entry + 8, msr.data, true);
  });
  return view;
}

/** The entries of which KVM did `done`; throws a KvmError that names the first one that it refused. */
export function decodeMsrs(name: string, view: DataView, done: number): Msr[] {
  const count = view.getUint32(0, true);
  if (done < count) {
    const index = view.getUint32(head + done * entry, true);
    throw new KvmError(name, 0, `MSR 0x${index.toString(16)} is refused`);
  }
  return Array.from({ length: count }, (_, i) => ({
    index: view.getUint32(head + i * entry, true),
    data: view.getBigUint64(head + i * entry + 8, true),
  }));
}
