import t from 'tap';
import { axis, type Bar, barChart } from '../../../bench/chart.js';

const bar: Bar = { label: 'one', parts: [10, 30], range: [35, 50], note: '40' };
const chart = (bars: readonly Bar[], title = 'A chart'): string =>
  barChart({ title, subtitle: 'of bars', unit: 'ms', legend: ['first', 'rest'], bars });

/** The numbers of an attribute, in the order of the elements of a class. */
function values(svg: string, name: string, attribute: string): number[] {
  return [...svg.matchAll(new RegExp(`<\\w+ class="${name}"[^>]* ${attribute}="([\\d.]+)"`, 'g'))].map(
    ([, value]) => Number(value),
  );
}

t.test('lengths are to scale, and a part begins where the one before it ends', async (t) => {
  const svg = chart([bar]);
  const [first = 0] = values(svg, 'part0', 'width').slice(1); // the first one is the legend's
  const [rest = 0] = values(svg, 'part1', 'width').slice(1);
  t.ok(Math.abs(rest / first - 3) < 0.01, `${first}, ${rest}`);
  const [from = 0] = values(svg, 'part0', 'x').slice(1);
  const [then = 0] = values(svg, 'part1', 'x').slice(1);
  t.ok(Math.abs(from + first - then) < 0.2);
});

t.test('whiskers only where the values differ', async (t) => {
  t.match(chart([bar]), /<path class="whisker" d="M[\d.]+ \d+H[\d.]+/);
  t.notMatch(chart([{ ...bar, range: [40, 40] }]), /class="whisker" d/);
  t.notMatch(chart([{ label: 'one', parts: [1], note: '1' }]), /class="whisker" d/);
});

t.test('everything is inside the picture', async (t) => {
  const svg = chart([bar, { label: 'far', offset: 1000, parts: [234.5], range: [1000, 2000], note: '' }]);
  const width = Number(/viewBox="0 0 (\d+) /.exec(svg)?.[1]);
  for (const x of [...svg.matchAll(/ x\d?="([\d.]+)"/g)].map(([, value]) => Number(value))) {
    t.ok(x >= 0 && x <= width, String(x));
  }
});

t.test('text is escaped, and the markup well-formed', async (t) => {
  const svg = chart([{ label: 'a < b & "c"', parts: [1], note: '<1>' }], '<script>alert(1)</script>');
  t.notMatch(svg, '<script');
  t.match(svg, 'a &lt; b &amp; &quot;c&quot;');
  const open: string[] = [];
  for (const [, end, name = '', alone] of svg.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
    if (end === '/') t.equal(open.pop(), name);
    else if (alone !== '/') open.push(name);
  }
  t.strictSame(open, []);
});

t.test('light and dark', async (t) => {
  t.match(chart([bar]), 'prefers-color-scheme: dark');
});

t.test('values that are no lengths are refused', async (t) => {
  for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => chart([{ label: 'bad', parts: [bad], note: '' }]), RangeError);
    t.throws(() => chart([{ ...bar, range: [0, bad] }]), RangeError);
    t.throws(() => chart([{ ...bar, offset: bad }]), RangeError);
  }
});

t.test('axes are round, and reach far enough', async (t) => {
  t.strictSame(axis(50), [0, 10, 20, 30, 40, 50]);
  t.strictSame(axis(0.24), [0, 0.05, 0.1, 0.15, 0.2, 0.25]);
  t.strictSame(axis(0), [0, 1]);
  for (const largest of [1e-9, 0.003, 0.7, 1, 3, 99, 101, 123_456, 7e12]) {
    const ticks = axis(largest);
    t.ok((ticks.at(-1) ?? 0) >= largest, `${largest}: ${ticks}`);
    t.ok(ticks.length >= 3 && ticks.length <= 7, `${largest}: ${ticks}`);
  }
});

t.test('a chart of nothing', async (t) => {
  t.match(chart([]), /<svg[\s\S]*<\/svg>/);
});
