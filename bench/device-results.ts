import type { Unit } from './results.js';

/** One test under one monitor: nanoseconds (in the testbed with -i: instructions) an operation, or a MiB. */
export interface DeviceFigure {
  /** The name that the guest's program gives it. */
  readonly test: string;
  readonly contender: string;
  /** Of the quickest batch of all boots. */
  readonly least: number;
  /** The median of the boots' median batches. */
  readonly median: number;
}

export interface DeviceResults {
  readonly unit: Unit;
  readonly boots: number;
  readonly figures: readonly DeviceFigure[];
  readonly footprints: readonly DeviceFootprint[];
  /** What could not be measured, and why. */
  readonly failures: readonly { readonly contender: string; readonly device: string; readonly why: string }[];
}

/** Memory beyond the guest's, in KiB, of machines whose guest does nothing: the medians of several. */
export interface DeviceFootprint {
  /** The device; `none` is the machine without. */
  readonly name: string;
  /** How many of it the machine has. */
  readonly copies: number;
  readonly resident: number;
  readonly proportional: number;
}

/** A test's line of the guest's output. */
export interface GuestLine {
  readonly test: string;
  readonly least: number;
  readonly median: number;
}

/**
 * The lines of the guest's program (guest/main.cc) among whatever else is on the console.
 * @throws Error where the program failed, or did not come to its end.
 */
export function parseGuest(output: string): GuestLine[] {
  const lines: GuestLine[] = [];
  for (const line of output.split(/\r?\n/)) {
    const [, said] = /bench: (.*)$/.exec(line) ?? [];
    if (said === undefined) continue;
    if (said.startsWith('error: ')) throw new Error(`the guest's program: ${said.slice('error: '.length)}`);
    if (said === 'end') return lines;
    const [, test, least, median] = /^(\S+) (\d+) (\d+)$/.exec(said) ?? [];
    if (test === undefined) throw new Error(`the guest's program said "${said}"`);
    lines.push({ test, least: Number(least), median: Number(median) });
  }
  throw new Error("the guest's program did not come to its end");
}
