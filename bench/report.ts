/** Results as tables for the terminal and as charts. */
import { barChart } from './chart.js';
import type { MicroResult, Phases, StartResults, Unit } from './results.js';
import { type Summary, summarize } from './statistics.js';

/** How a unit's numbers are written: what they are divided by, and what they then are called. */
const WRITTEN: Readonly<Record<Unit, { divisor: number; digits: number; name: string }>> = {
  nanoseconds: { divisor: 1e6, digits: 1, name: 'ms' },
  instructions: { divisor: 1e9, digits: 3, name: 'G instructions' },
};

/** Columns as wide as they have to be; the first to the left, the others to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    widths
      .map((width, column) =>
        column === 0 ? (row[0] ?? '').padEnd(width) : (row[column] ?? '').padStart(width),
      )
      .join('  ')
      .trimEnd();
  return [line(header), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

export function startTables(results: StartResults): string {
  const { divisor, digits, name } = WRITTEN[results.unit];
  const write = (value: number): string => (value / divisor).toFixed(digits);
  const cells = ({ min, median, p95, max }: Summary): string[] => [median, p95, min, max].map(write);
  const samples = results.series[0]?.end.length ?? 0;
  const starts = results.series.map(({ name, firstLine, end }) => [
    name,
    ...(firstLine === undefined ? ['', '', '', ''] : cells(summarize(firstLine))),
    ...cells(summarize(end)),
  ]);
  const heads = (what: string): string[] => [`${what} median`, 'p95', 'min', 'max'];
  const tables = [
    `Starts, ${name}, of ${samples}, from the command to the first line of the guest's first program, and to the end`,
    table(['', ...heads('line'), ...heads('end')], starts),
  ];
  if (results.footprints.length > 0) {
    const rows = results.footprints.map(({ name, resident, proportional }) => [
      name,
      resident.toLocaleString('en'),
      proportional.toLocaleString('en'),
    ]);
    tables.push('', "Memory beyond the guest's, KiB", table(['', 'resident', 'Pss'], rows));
  }
  for (const { name: command, phases } of results.phases) {
    const rows = phases.map(({ name, since }) => [name, (since / divisor).toFixed(digits + 1)]);
    tables.push('', `Phases of ${command}, the quickest of ${samples}`, table(['', name], rows));
  }
  return tables.join('\n');
}

export function microTable(results: readonly MicroResult[]): string {
  const rows = results.map(({ name, median, mean, margin, samples }) => [
    name,
    median.toFixed(0),
    mean.toFixed(0),
    `${((100 * margin) / mean).toFixed(1)} %`,
    Math.round(1e9 / median).toLocaleString('en'),
    String(samples),
  ]);
  return ['Micro-benchmarks', table(['', 'ns, median', 'mean', '+-', 'a second', 'samples'], rows)].join(
    '\n',
  );
}

export function startChart(results: StartResults, title = 'Starting a machine'): string {
  const { divisor, digits, name } = WRITTEN[results.unit];
  const bars = results.series.map(({ name, firstLine, end }) => {
    const whole = summarize(end);
    const total = whole.median / divisor;
    const line = firstLine === undefined ? 0 : Math.min(summarize(firstLine).median / divisor, total);
    return {
      label: name,
      parts: [line, total - line],
      range: [whole.min / divisor, whole.max / divisor] as const,
      note:
        firstLine === undefined
          ? total.toFixed(digits)
          : `${line.toFixed(digits)} / ${total.toFixed(digits)}`,
    };
  });
  return barChart({
    title,
    subtitle: `128 MiB, 1 vCPU, the same kernel and initramfs; medians of ${results.series[0]?.end.length ?? 0}, whiskers from least to most`,
    unit: name,
    legend: ['to the first line', 'to the end'],
    bars,
  });
}

/** Each phase begins where the one before it ends. */
export function phasesChart({ name, phases }: Phases, unit: Unit): string {
  const written = WRITTEN[unit];
  let at = 0;
  const bars = phases.map(({ name, since }) => {
    const offset = at;
    const length = Math.max(0, since / written.divisor);
    at += length;
    return { label: name, offset, parts: [length], note: length.toFixed(written.digits + 1) };
  });
  return barChart({
    title: `${name}, by phase`,
    subtitle: 'each phase from the end of the one before it to its own',
    unit: written.name,
    legend: [],
    bars,
  });
}

export function microChart(results: readonly MicroResult[]): string {
  return barChart({
    title: 'Micro-benchmarks',
    subtitle:
      'time an operation: the median of the samples; whiskers: the 95 % confidence interval of the mean',
    unit: 'ns',
    legend: [],
    bars: results.map(({ name, median, mean, margin }) => ({
      label: name,
      parts: [median],
      range: [Math.max(0, mean - margin), mean + margin] as const,
      note: median.toFixed(0),
    })),
  });
}
