/** What is left of a series of measurements. All but `n` are in the series' own unit. */
export interface Summary {
  readonly n: number;
  readonly min: number;
  readonly median: number;
  readonly p95: number;
  readonly max: number;
}

/**
 * The smallest of `sorted` (ascending, not empty) that at least `fraction` of them do not exceed: the nearest rank, so
 * that it is a value that was measured.
 */
export function percentile(sorted: readonly number[], fraction: number): number {
  if (!(fraction >= 0 && fraction <= 1)) throw new RangeError(`a fraction is from 0 to 1, not ${fraction}`);
  const rank = Math.max(1, Math.ceil(fraction * sorted.length));
  const value = sorted[rank - 1];
  if (value === undefined) throw new RangeError('no percentile of nothing');
  return value;
}

/** @throws RangeError where there are no values, or one that is no finite number. */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) throw new RangeError('no summary of nothing');
  if (!values.every(Number.isFinite)) throw new RangeError('a measurement is not a finite number');
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  const low = sorted[Math.ceil(half) - 1] ?? 0;
  const high = sorted[Math.floor(half)] ?? low;
  return {
    n: sorted.length,
    min: percentile(sorted, 0),
    median: (low + high) / 2,
    p95: percentile(sorted, 0.95),
    max: percentile(sorted, 1),
  };
}
