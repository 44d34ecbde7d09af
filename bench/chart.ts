/** Charts as SVG: horizontal bars of one or more parts, with whiskers. Legible on a light and on a dark page. */

export interface Bar {
  readonly label: string;
  /** Where the first part begins; 0 unless given. */
  readonly offset?: number;
  /** Lengths, in the order of the chart's legend. */
  readonly parts: readonly number[];
  /** From the smallest to the largest value of the whole bar. */
  readonly range?: readonly [min: number, max: number];
  /** What stands behind the bar. */
  readonly note: string;
}

export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  /** What the axis says. */
  readonly unit: string;
  /** The names of the parts; none for bars of one part. */
  readonly legend: readonly string[];
  readonly bars: readonly Bar[];
}

const WIDTH = 860;
const LABELS = 220;
const NOTES = 140;
const TOP = 78;
const ROW = 30;
const BAR = 16;
const PLOT = WIDTH - LABELS - NOTES;

const STYLE = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; }
  .page { fill: #ffffff; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .whisker { stroke: #1f2328; stroke-width: 1.5; fill: none; }
  .part0 { fill: #1b6ac9; } .part1 { fill: #8fbdf0; } .part2 { fill: #c8cfd6; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9aa4ae; } .page { fill: #0d1117; } .grid { stroke: #30363d; }
    .whisker { stroke: #e6edf3; } .part0 { fill: #539bf5; } .part1 { fill: #22497c; } .part2 { fill: #444c56; }
  }`;

/** @throws RangeError where a number is negative or not finite. */
export function barChart(chart: Chart): string {
  const { bars } = chart;
  const numbers = bars.flatMap(({ offset = 0, parts, range = [] }) => [offset, ...parts, ...range]);
  if (!numbers.every((value) => Number.isFinite(value) && value >= 0)) {
    throw new RangeError(`${chart.title}: a value is not a number from 0 on`);
  }
  const ticks = axis(Math.max(0, ...bars.map((bar) => Math.max(lengthOf(bar), bar.range?.[1] ?? 0))));
  const largest = ticks.at(-1) ?? 1;
  const x = (value: number): number => round(LABELS + (value / largest) * PLOT);
  const bottom = TOP + bars.length * ROW;
  const height = bottom + 48;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escapeXml(chart.title)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="page" width="${WIDTH}" height="${height}" rx="8"/>`,
    `<text class="title" x="20" y="30">${escapeXml(chart.title)}</text>`,
    `<text class="quiet" x="20" y="50">${escapeXml(chart.subtitle)}</text>`,
    ...legend(chart.legend),
    ...ticks.flatMap((tick) => [
      `<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="${TOP}" y2="${bottom}"/>`,
      `<text class="quiet" x="${x(tick)}" y="${bottom + 18}" text-anchor="middle">${tick}</text>`,
    ]),
    `<text class="quiet" x="${LABELS + PLOT / 2}" y="${bottom + 36}" text-anchor="middle">${escapeXml(chart.unit)}</text>`,
    ...bars.flatMap((bar, index) => row(bar, TOP + index * ROW + ROW / 2, x)),
    '</svg>\n',
  ].join('\n');
}

function lengthOf({ offset = 0, parts }: Bar): number {
  return parts.reduce((sum, part) => sum + part, offset);
}

function row(bar: Bar, middle: number, x: (value: number) => number): string[] {
  const top = middle - BAR / 2;
  let at = bar.offset ?? 0;
  const parts = bar.parts.map((part, index) => {
    const from = x(at);
    at += part;
    const width = Math.max(round(x(at) - from), part > 0 ? 1 : 0);
    return `<rect class="part${Math.min(index, 2)}" x="${from}" y="${top}" width="${width}" height="${BAR}" rx="2"/>`;
  });
  const [min, max] = bar.range ?? [at, at];
  const caps = `M${x(min)} ${middle - 4}v8M${x(max)} ${middle - 4}v8`;
  const whisker = min === max ? [] : [`<path class="whisker" d="M${x(min)} ${middle}H${x(max)}${caps}"/>`];
  return [
    `<text x="${LABELS - 12}" y="${middle + 4}" text-anchor="end">${escapeXml(bar.label)}</text>`,
    ...parts,
    ...whisker,
    `<text class="quiet" x="${round(x(Math.max(at, max)) + 8)}" y="${middle + 4}">${escapeXml(bar.note)}</text>`,
  ];
}

function legend(names: readonly string[]): string[] {
  let right = WIDTH - 20;
  return [...names.entries()].reverse().flatMap(([index, name]) => {
    const from = right - 20 - name.length * 7;
    right = from - 16;
    return [
      `<rect class="part${index}" x="${from}" y="20" width="12" height="12" rx="2"/>`,
      `<text class="quiet" x="${from + 18}" y="30">${escapeXml(name)}</text>`,
    ];
  });
}

/** Round values from 0 to the first that is not below `largest`, at most seven. */
export function axis(largest: number): number[] {
  if (largest <= 0) return [0, 1];
  const rough = largest / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const count = Math.ceil(largest / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escapeXml(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (character) => names[character] ?? character);
}
