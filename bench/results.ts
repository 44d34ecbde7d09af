/** What a time was read as: nanoseconds, or, in the testbed with `-i`, instructions, one a nanosecond. */
export type Unit = 'nanoseconds' | 'instructions';

/** The measurements of one command, each from its start. */
export interface Series {
  readonly name: string;
  /** Until the first line of the guest's first program was here; undefined where there is no such line. */
  readonly firstLine?: readonly number[];
  /** Until its end. */
  readonly end: readonly number[];
}

/** Memory of a process beyond what its guest has touched, in KiB. */
export interface Footprint {
  readonly name: string;
  readonly resident: number;
  /** Pages that several processes share counted in part. */
  readonly proportional: number;
}

/** The quickest start of several, by phase. */
export interface Phases {
  readonly name: string;
  readonly phases: readonly { readonly name: string; readonly since: number }[];
}

/** What a run of bench/start.ts has measured. */
export interface StartResults {
  readonly unit: Unit;
  readonly series: readonly Series[];
  readonly footprints: readonly Footprint[];
  readonly phases: readonly Phases[];
}

/** A micro-benchmark. Times are nanoseconds an operation. */
export interface MicroResult {
  readonly name: string;
  readonly median: number;
  readonly mean: number;
  /** Half the width of the 95 % confidence interval of the mean. */
  readonly margin: number;
  readonly samples: number;
}
