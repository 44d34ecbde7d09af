import { type MemoryRange, PAGE_SIZE } from '../memory/layout.js';
import { BootError } from './error.js';

const MIB = 1 << 20;

/** What of a kernel's plan says where it takes memory. */
export interface KernelFootprint {
  /** How messages call the kernel. */
  readonly name: string;
  /** The first address behind all memory that the kernel takes before it manages memory itself. */
  readonly memoryEnd: number;
}

/**
 * Checks that a kernel fits into low RAM.
 * @param lowRam bytes of RAM from address 0.
 * @throws BootError (`too-little-memory`) with what it needs and what there is.
 */
export function checkKernelFits(kernel: KernelFootprint, lowRam: number): void {
  if (kernel.memoryEnd > lowRam) {
    const needs = Math.ceil(kernel.memoryEnd / MIB);
    throw new BootError(
      'too-little-memory',
      `too little memory for ${kernel.name}: it needs ${needs} MiB, the machine has ${Math.floor(lowRam / MIB)} MiB`,
    );
  }
}

/**
 * Where to put an initrd: page-aligned and as high as possible in low RAM, so that it stands in nobody's way.
 * @param size of the initrd, in bytes.
 * @param lowRam bytes of RAM from address 0.
 * @param addressMax the highest address that a byte of it may have (the kernel's initrd_addr_max).
 * @param name how messages call the initrd.
 * @throws BootError where kernel and initrd do not both fit.
 */
export function placeInitrd(
  size: number,
  lowRam: number,
  addressMax: number,
  kernel: KernelFootprint,
  name: string,
): MemoryRange {
  checkKernelFits(kernel, lowRam);
  const end = Math.min(lowRam, addressMax + 1);
  const address = Math.floor((end - size) / PAGE_SIZE) * PAGE_SIZE;
  const kernelEnd = Math.ceil(kernel.memoryEnd / PAGE_SIZE) * PAGE_SIZE;
  if (address < kernelEnd) {
    const have = Math.floor(lowRam / MIB);
    const needs = Math.ceil((kernelEnd + size) / MIB);
    throw new BootError(
      'initrd-too-large',
      end < lowRam && needs <= have
        ? `${name}: ${size} bytes do not fit below 0x${end.toString(16)}, the highest address that the kernel takes`
        : `${name}: initrd too large for the memory: with the kernel it needs ${needs} MiB, the machine has ${have} MiB`,
    );
  }
  return { address, size };
}
