import { closeSync, openSync } from 'node:fs';
import type { KernelPlan } from '../boot/kernel.js';
import type { GuestMemory } from '../memory/guest-memory.js';

/**
 * Reads a kernel's segments to their places. What a segment has beyond its bytes (bss) is zero already: the memory is new.
 * Reading beats mapping the file there: with huge pages behind the guest's memory, one page fault serves 2 MiB, and the
 * kernel writes to much of what it reads.
 */
export function loadKernel(plan: KernelPlan, memory: GuestMemory): void {
  if ('bytes' in plan.source) {
    for (const { fileOffset, length, address } of plan.segments) {
      memory.write(address, plan.source.bytes.subarray(fileOffset, fileOffset + length));
    }
    return;
  }
  const fd = openSync(plan.source.path, 'r');
  try {
    for (const { fileOffset, length, address } of plan.segments) memory.load(fd, fileOffset, address, length);
  } finally {
    closeSync(fd);
  }
}
