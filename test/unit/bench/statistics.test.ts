import t from 'tap';
import { percentile, summarize } from '../../../bench/statistics.js';

t.test('a summary of what was measured', async (t) => {
  t.strictSame(summarize([5, 1, 4, 2, 3]), { n: 5, min: 1, median: 3, p95: 5, max: 5 });
  t.strictSame(summarize([4, 1, 3, 2]), { n: 4, min: 1, median: 2.5, p95: 4, max: 4 });
  t.strictSame(summarize([7]), { n: 1, min: 7, median: 7, p95: 7, max: 7 });
});

t.test('the series itself stays as it was', async (t) => {
  const values = [3, 1, 2];
  summarize(values);
  t.strictSame(values, [3, 1, 2]);
});

t.test('numbers are sorted as numbers', async (t) => {
  t.strictSame(summarize([100, 9, 20]), { n: 3, min: 9, median: 20, p95: 100, max: 100 });
});

t.test('percentiles by nearest rank', async (t) => {
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  t.equal(percentile(hundred, 0.95), 95);
  t.equal(percentile(hundred, 0.951), 96);
  t.equal(percentile(hundred, 0), 1);
  t.equal(percentile(hundred, 1), 100);
  t.equal(percentile([1, 2, 3], 0.5), 2);
});

t.test('what cannot be summarized is refused', async (t) => {
  t.throws(() => summarize([]), RangeError);
  t.throws(() => summarize([1, Number.NaN]), RangeError);
  t.throws(() => summarize([1, Number.POSITIVE_INFINITY]), RangeError);
  t.throws(() => percentile([], 0.5), RangeError);
  t.throws(() => percentile([1], 1.5), RangeError);
  t.throws(() => percentile([1], Number.NaN), RangeError);
});
