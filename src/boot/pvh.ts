import type { E820Entry, MemoryRange } from '../memory/layout.js';

/** What a PVH kernel is told. Addresses are guest physical, in bytes. */
export interface StartInfo {
  /** Where the structure will be; its module list and memory map follow it. */
  readonly address: number;
  /** Of the command line, ended by a NUL. */
  readonly commandLineAddress: number;
  readonly initrd?: MemoryRange;
  readonly e820: readonly E820Entry[];
  readonly acpiRsdp?: number;
}

const MAGIC = 0x336ec578;
const VERSION = 1;
const HEADER_SIZE = 56;
const MODULE_SIZE = 32;
const MEMMAP_ENTRY_SIZE = 24;

/** struct hvm_start_info, version 1, with its lists (xen/include/public/arch-x86/hvm/start_info.h). */
export function buildStartInfo(info: StartInfo): Uint8Array {
  const modules = info.initrd === undefined ? [] : [info.initrd];
  const modulesAt = HEADER_SIZE;
  const memoryMapAt = modulesAt + modules.length * MODULE_SIZE;
  const bytes = new Uint8Array(memoryMapAt + info.e820.length * MEMMAP_ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  const set64 = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), true);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(12, modules.length, true);
  set64(16, modules.length === 0 ? 0 : info.address + modulesAt);
  set64(24, info.commandLineAddress);
  set64(32, info.acpiRsdp ?? 0);
  set64(40, info.address + memoryMapAt);
  view.setUint32(48, info.e820.length, true);
  modules.forEach((module, index) => {
    set64(modulesAt + index * MODULE_SIZE, module.address);
    set64(modulesAt + index * MODULE_SIZE + 8, module.size);
  });
  info.e820.forEach((entry, index) => {
    const at = memoryMapAt + index * MEMMAP_ENTRY_SIZE;
    set64(at, entry.address);
    set64(at + 8, entry.size);
    view.setUint32(at + 16, entry.type, true);
  });
  return bytes;
}
