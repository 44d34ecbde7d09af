import { BootError } from './error.js';
import type { FileReader } from './reader.js';

/** One PT_LOAD segment: file bytes that belong at a physical address, and how much memory they take there. */
export interface ElfSegment {
  /** Offset of the segment's bytes in the file. */
  readonly fileOffset: number;
  /** Bytes in the file; the memory from there to `memorySize` is zero. */
  readonly fileSize: number;
  /** Bytes in memory, at least `fileSize`. */
  readonly memorySize: number;
  /** Guest physical address (p_paddr). */
  readonly physicalAddress: number;
}

/** What a virtual machine needs to know of an ELF kernel. */
export interface ElfImage {
  /** In ascending order of address; they do not overlap. */
  readonly segments: readonly ElfSegment[];
  /** Physical address of the 64-bit entry point: startup_64 for Linux. */
  readonly entry: number;
  /** Physical address of the 32-bit PVH entry point (XEN_ELFNOTE_PHYS32_ENTRY), where the kernel has one. */
  readonly pvhEntry?: number;
  /** XEN_ELFNOTE_GUEST_OS, where the kernel names it: `linux`. */
  readonly guestOs?: string;
}

const EI_CLASS = 4;
const EI_DATA = 5;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const EM_X86_64 = 62;
const ET_EXEC = 2;
const ET_DYN = 3;
const PT_LOAD = 1;
const PT_INTERP = 3;
const PT_NOTE = 4;
const PN_XNUM = 0xffff;
const EHDR_SIZE = 64;
const PHDR_SIZE = 56;
const XEN_ELFNOTE_GUEST_OS = 6;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
/** Notes beyond this are not a kernel's. */
const NOTES_MAX = 1 << 20;
/** Physical addresses have at most 52 bits (Intel SDM volume 3A, 4.1.4). */
const PHYSICAL_END = 2 ** 52;

const MACHINES: Readonly<Record<number, string>> = {
  2: 'SPARC',
  3: 'x86 (32-bit)',
  8: 'MIPS',
  20: 'PowerPC',
  21: 'PowerPC 64',
  22: 's390',
  40: 'ARM (32-bit)',
  43: 'SPARC V9',
  183: 'arm64',
  243: 'RISC-V',
  258: 'LoongArch',
};

/** Whether these first bytes of a file are an ELF file's. */
export function isElf(head: Uint8Array): boolean {
  return head[0] === 0x7f && head[1] === 0x45 && head[2] === 0x4c && head[3] === 0x46;
}

/**
 * Reads an ELF kernel's headers (System V ABI, chapters 4 and 5): 64-bit x86-64, executable.
 * Only headers and notes are read, not the segments.
 * @param name how messages call the file.
 * @throws BootError that names the field.
 */
export function parseElf(file: FileReader, name: string): ElfImage {
  const head = file.read(0, EHDR_SIZE);
  if (!isElf(head)) throw new BootError('not-a-kernel', `${name}: not an ELF file`);
  if (head.length < EHDR_SIZE) throw new BootError('truncated', `${name}: the ELF header is truncated`);
  const view = viewOf(head);
  const machine = view.getUint16(18, true);
  if (head[EI_DATA] !== ELFDATA2LSB) {
    throw new BootError('wrong-architecture', `${name}: e_ident[EI_DATA]: not a little-endian ELF file`);
  }
  if (machine !== EM_X86_64) {
    const what = MACHINES[machine] ?? `machine ${machine}`;
    throw new BootError('wrong-architecture', `${name}: e_machine: a kernel for ${what}, not for x86-64`);
  }
  if (head[EI_CLASS] !== ELFCLASS64) {
    throw new BootError('wrong-architecture', `${name}: e_ident[EI_CLASS]: not a 64-bit ELF file`);
  }
  const type = view.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) {
    throw new BootError('not-a-kernel', `${name}: e_type: ${type} is not an executable`);
  }
  const headers = programHeaders(file, view, name);
  if (headers.some(({ type }) => type === PT_INTERP)) {
    throw new BootError(
      'not-a-kernel',
      `${name}: a program that wants an interpreter (PT_INTERP), not a kernel`,
    );
  }
  const segments = loadSegments(headers, file.size, name);
  const entry = entryPoint(view.getBigUint64(24, true), headers, segments, name);
  return { segments, entry, ...notes(file, headers, segments, name) };
}

/** The program headers as a view of whole PHDR_SIZE entries. */
function programHeaders(file: FileReader, header: DataView, name: string): ProgramHeader[] {
  const offset = toNumber(header.getBigUint64(32, true));
  const entrySize = header.getUint16(54, true);
  const count = header.getUint16(56, true);
  if (count === 0) throw new BootError('malformed', `${name}: e_phnum: no program headers`);
  if (count === PN_XNUM) throw new BootError('unsupported', `${name}: e_phnum: too many program headers`);
  if (entrySize !== PHDR_SIZE) {
    throw new BootError('malformed', `${name}: e_phentsize: ${entrySize}, expected ${PHDR_SIZE}`);
  }
  if (offset + count * PHDR_SIZE > file.size) {
    throw new BootError('truncated', `${name}: the program headers lie beyond the end of the file`);
  }
  const bytes = file.read(offset, count * PHDR_SIZE);
  if (bytes.length < count * PHDR_SIZE) {
    throw new BootError('truncated', `${name}: the program headers are truncated`);
  }
  const view = viewOf(bytes);
  return Array.from({ length: count }, (_, index) => {
    const at = index * PHDR_SIZE;
    return {
      index,
      type: view.getUint32(at, true),
      offset: toNumber(view.getBigUint64(at + 8, true)),
      virtualAddress: view.getBigUint64(at + 16, true),
      physicalAddress: toNumber(view.getBigUint64(at + 24, true)),
      fileSize: toNumber(view.getBigUint64(at + 32, true)),
      memorySize: toNumber(view.getBigUint64(at + 40, true)),
    };
  });
}

interface ProgramHeader {
  readonly index: number;
  readonly type: number;
  readonly offset: number;
  readonly virtualAddress: bigint;
  readonly physicalAddress: number;
  readonly fileSize: number;
  readonly memorySize: number;
}

function loadSegments(headers: readonly ProgramHeader[], fileEnd: number, name: string): ElfSegment[] {
  const loads = headers.filter((header) => header.type === PT_LOAD && header.memorySize > 0);
  if (loads.length === 0) throw new BootError('malformed', `${name}: no PT_LOAD segment: nothing to load`);
  for (const load of loads) {
    const segment = `${name}: segment ${load.index}`;
    if (load.fileSize > load.memorySize) {
      throw new BootError(
        'malformed',
        `${segment}: p_filesz ${load.fileSize} exceeds p_memsz ${load.memorySize}`,
      );
    }
    if (load.offset + load.fileSize > fileEnd) {
      throw new BootError('truncated', `${segment}: its bytes end beyond the end of the file (truncated?)`);
    }
    if (load.physicalAddress + load.memorySize > PHYSICAL_END) {
      throw new BootError(
        'malformed',
        `${segment}: p_paddr ${hex(load.physicalAddress)} is no physical address`,
      );
    }
  }
  loads.sort((a, b) => a.physicalAddress - b.physicalAddress);
  loads.forEach((load, index) => {
    const before = loads[index - 1];
    if (before !== undefined && before.physicalAddress + before.memorySize > load.physicalAddress) {
      throw new BootError(
        'malformed',
        `${name}: segments ${before.index} and ${load.index} overlap at ${hex(load.physicalAddress)}`,
      );
    }
  });
  return loads.map((load) => ({
    fileOffset: load.offset,
    fileSize: load.fileSize,
    memorySize: load.memorySize,
    physicalAddress: load.physicalAddress,
  }));
}

/** Linux gives e_entry as a physical address; others give a virtual one, which the segment that holds it translates. */
function entryPoint(
  entry: bigint,
  headers: readonly ProgramHeader[],
  segments: readonly ElfSegment[],
  name: string,
): number {
  const asPhysical = toNumber(entry);
  if (inSegment(asPhysical, segments)) return asPhysical;
  for (const header of headers) {
    const delta = entry - header.virtualAddress;
    if (header.type === PT_LOAD && delta >= 0n && delta < BigInt(Math.trunc(header.memorySize))) {
      return header.physicalAddress + Number(delta);
    }
  }
  throw new BootError('malformed', `${name}: e_entry: 0x${entry.toString(16)} lies in no segment`);
}

function inSegment(address: number, segments: readonly ElfSegment[]): boolean {
  return segments.some((s) => address >= s.physicalAddress && address < s.physicalAddress + s.memorySize);
}

/** The Xen notes (xen/include/public/elfnote.h) that say where the PVH entry is and which kernel this is. */
function notes(
  file: FileReader,
  headers: readonly ProgramHeader[],
  segments: readonly ElfSegment[],
  name: string,
): { pvhEntry?: number; guestOs?: string } {
  const found: { pvhEntry?: number; guestOs?: string } = {};
  let budget = NOTES_MAX;
  for (const header of headers) {
    if (header.type !== PT_NOTE) continue;
    if (header.offset + header.fileSize > file.size || header.fileSize > budget) {
      throw new BootError(
        'malformed',
        `${name}: segment ${header.index}: its notes lie beyond the file or are huge`,
      );
    }
    budget -= header.fileSize;
    const bytes = file.read(header.offset, header.fileSize);
    const view = viewOf(bytes);
    for (let at = 0; at + 12 <= bytes.length; ) {
      const nameSize = view.getUint32(at, true);
      const size = view.getUint32(at + 4, true);
      const type = view.getUint32(at + 8, true);
      const start = at + 12 + align4(nameSize);
      if (start + size > bytes.length) break;
      if (nameSize === 4 && view.getUint32(at + 12, true) === 0x006e6558 /* "Xen" */) {
        if (type === XEN_ELFNOTE_PHYS32_ENTRY && size >= 4) found.pvhEntry = view.getUint32(start, true);
        if (type === XEN_ELFNOTE_GUEST_OS && size <= 64) {
          found.guestOs = String.fromCharCode(...bytes.subarray(start, start + size)).replace(/\0.*$/s, '');
        }
      }
      at = start + align4(size);
    }
  }
  if (found.pvhEntry !== undefined && !inSegment(found.pvhEntry, segments)) {
    throw new BootError('malformed', `${name}: its PVH entry ${hex(found.pvhEntry)} lies in no segment`);
  }
  return found;
}

function align4(value: number): number {
  return Math.ceil(value / 4) * 4;
}

/** A 64-bit field as a number; what a number cannot hold exactly fails every range check that follows. */
function toNumber(value: bigint): number {
  return value < BigInt(PHYSICAL_END) ? Number(value) : Number.POSITIVE_INFINITY;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function hex(value: number): string {
  return Number.isFinite(value) ? `0x${value.toString(16)}` : '(out of range)';
}
