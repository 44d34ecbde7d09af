/** The devices' results as tables. */
import type { DeviceFootprint, DeviceResults } from './device-results.js';
import { table } from './report.js';

interface Test {
  readonly name: string;
  readonly title: string;
  /** Instructions at most, counted in the testbed with one processor. */
  readonly aim?: number;
}

const TESTS: readonly Test[] = [
  { name: 'blk-d1-read', title: 'blk: 4 KiB random read, depth 1', aim: 42_000 },
  { name: 'blk-d16-read', title: 'blk: 4 KiB random read, depth 16', aim: 14_000 },
  { name: 'blk-d1-write', title: 'blk: 4 KiB random write, depth 1', aim: 42_000 },
  { name: 'blk-mib-read', title: 'blk: sequential read, a MiB', aim: 700_000 },
  { name: 'blk-mib-write', title: 'blk: sequential write, a MiB' },
  { name: 'net-out', title: 'net: TCP guest to host, a MiB', aim: 1_300_000 },
  { name: 'net-in', title: 'net: TCP host to guest, a MiB', aim: 1_200_000 },
  { name: 'net-round-trip', title: 'net: TCP round trip of a byte', aim: 90_000 },
  { name: 'vsock-out', title: 'vsock: guest to host, a MiB', aim: 1_300_000 },
  { name: 'vsock-in', title: 'vsock: host to guest, a MiB', aim: 2_000_000 },
  { name: 'vsock-round-trip', title: 'vsock: round trip of a byte', aim: 85_000 },
  { name: 'fs-small-create-write', title: 'fs: create and write 4 KiB', aim: 250_000 },
  { name: 'fs-small-open-read', title: 'fs: open and read 4 KiB', aim: 180_000 },
  { name: 'fs-small-unlink', title: 'fs: unlink', aim: 120_000 },
  { name: 'fs-small-stat-known', title: 'fs: stat, known', aim: 5_000 },
  { name: 'fs-small-stat-old', title: 'fs: stat, known 1.5 s ago', aim: 5_000 },
  { name: 'fs-small-stat-absent', title: 'fs: stat, absent', aim: 60_000 },
  { name: 'fs-list-entry', title: 'fs: readdir, an entry', aim: 1_500 },
  { name: 'fs-mib-write', title: 'fs: write, a MiB', aim: 2_000_000 },
  { name: 'fs-mib-read', title: 'fs: read, a MiB', aim: 1_200_000 },
];

/**
 * A row a test: each monitor's figure (instructions: the least; nanoseconds: the median), tsvmm's share of the others',
 * and, where instructions were counted, the aim.
 */
export function deviceTables(results: DeviceResults): string {
  const { figures, footprints, failures } = results;
  return [
    ...(figures.length > 0 ? [figureTable(results)] : []),
    ...(footprints.length > 0 ? [footprintTable(footprints)] : []),
    ...failures.map(({ contender, device, why }) => `${device}, ${contender}: ${why}`),
  ].join('\n\n');
}

/** What a device costs: its share of the difference to the machine without. */
function footprintTable(footprints: readonly DeviceFootprint[]): string {
  const none = footprints.find(({ name }) => name === 'none');
  const write = (value: number): string => Math.round(value).toLocaleString('en');
  const rows = footprints.map(({ name, copies, resident, proportional }) => [
    copies > 1 ? `${copies} of ${name}` : name,
    write(resident),
    write(proportional),
    copies === 0 || none === undefined ? '' : write((proportional - none.proportional) / copies),
  ]);
  const header = ['', 'resident', 'Pss', 'each'];
  return `Memory of an idle machine of tsvmm beyond the guest's, by its devices, KiB\n${table(header, rows)}`;
}

function figureTable({ unit, boots, figures }: DeviceResults): string {
  const counted = unit === 'instructions';
  const names = [...new Set(figures.map(({ contender }) => contender))];
  const others = names.filter((name) => name !== 'tsvmm');
  const of = (test: string, contender: string): number | undefined => {
    const figure = figures.find((one) => one.test === test && one.contender === contender);
    return counted ? figure?.least : figure?.median;
  };
  const write = (value: number | undefined): string =>
    value === undefined ? '-' : Math.round(value).toLocaleString('en');
  const rows = TESTS.filter(({ name }) => figures.some(({ test }) => test === name)).map(
    ({ name, title, aim }) => {
      const own = of(name, 'tsvmm');
      const ratios = others.map((other) => {
        const theirs = of(name, other);
        return own === undefined || theirs === undefined ? '-' : (own / theirs).toFixed(2);
      });
      const verdict = own === undefined || aim === undefined ? '' : own <= aim ? 'met' : 'missed';
      return [
        title,
        ...names.map((contender) => write(of(name, contender))),
        ...ratios,
        ...(counted ? [aim === undefined ? '' : write(aim), verdict] : []),
      ];
    },
  );
  const header = ['', ...names, ...others.map((other) => `/ ${other}`), ...(counted ? ['aim', ''] : [])];
  const what = counted ? 'instructions, the least' : 'nanoseconds, the median';
  return `Devices: ${what} of ${boots} boots, an operation or a MiB\n${table(header, rows)}`;
}
