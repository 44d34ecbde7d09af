import type { ElfSegment } from './elf.js';

/** Bytes of a kernel's file and where they belong in guest physical memory. */
export interface KernelSegment {
  /** Offset in the file, in bytes. */
  readonly fileOffset: number;
  /** Bytes in the file. */
  readonly length: number;
  /** Bytes in memory, at least `length`; those behind the file's are zero. */
  readonly memoryLength: number;
  /** Guest physical address. */
  readonly address: number;
}

const PAGE = 4096;
/** Fewer zero pages than this are not worth a segment of their own. */
const ZERO_PAGES_MIN = 16;

/** The segments of an ELF file as they are loaded. */
export function kernelSegments(segments: readonly ElfSegment[]): KernelSegment[] {
  return segments.map(({ fileOffset, fileSize, memorySize, physicalAddress }) => ({
    fileOffset,
    length: fileSize,
    memoryLength: memorySize,
    address: physicalAddress,
  }));
}

/**
 * Leaves out what is zero anyway: a distribution's kernel has a third of its bytes in bss and in gaps between aligned
 * sections, and new memory is zero without being touched.
 * @param file the whole file.
 */
export function omitZeros(segments: readonly KernelSegment[], file: Uint8Array): KernelSegment[] {
  return segments.flatMap((segment) => {
    const bytes = file.subarray(segment.fileOffset, segment.fileOffset + segment.length);
    const runs = nonzeroRuns(bytes);
    if (runs.length === 0) return [{ ...segment, length: 0 }];
    return runs.map(({ start, end }, index) => {
      // What lies before the first run is zero, and nobody's; each run's zeros are those up to the next one.
      const next = runs[index + 1]?.start ?? segment.memoryLength;
      return {
        fileOffset: segment.fileOffset + start,
        length: end - start,
        memoryLength: next - start,
        address: segment.address + start,
      };
    });
  });
}

/** The ranges that are not zero, in pages, with shorter stretches of zeros inside. */
function nonzeroRuns(bytes: Uint8Array): { start: number; end: number }[] {
  const zeros = Buffer.alloc(PAGE);
  const runs: { start: number; end: number }[] = [];
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = bytes.subarray(at, at + PAGE);
    if (zeros.compare(page, 0, page.length, 0, page.length) === 0) continue;
    const last = runs.at(-1);
    const end = at + page.length;
    if (last !== undefined && at - last.end < ZERO_PAGES_MIN * PAGE) last.end = end;
    else runs.push({ start: at, end });
  }
  return runs;
}
