/**
 * Measures starts: `node out/js/bench/start.js SAMPLES UNIT PART...`, parts boot and run. Runs where the guests run;
 * progress is on standard error, the results (StartResults) are the last line of standard output, as JSON.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Timeline } from '../src/machine/timeline.js';
import { footprintOf, type Timing, timeCommand } from './command.js';
import { bootContenders, tsvmmBoot, tsvmmRun } from './contenders.js';
import { findInputs, HELLO, type Inputs, MEMORY_MIB } from './inputs.js';
import type { Footprint, Phases, Series, StartResults, Unit } from './results.js';

const GUEST_BYTES = MEMORY_MIB << 20;
/** The first runs wait for files, unpack the kernel and compile. */
const WARM_UP = 3;

class Measurement {
  readonly series: Series[] = [];
  readonly footprints: Footprint[] = [];
  readonly phases: Phases[] = [];

  constructor(
    private readonly samples: number,
    private readonly scratch: string,
  ) {}

  async all(parts: readonly string[]): Promise<void> {
    const inputs = await findInputs();
    await this.time('node -e 1, for scale', [process.execPath, '-e', '1']);
    if (parts.includes('boot')) await this.boot(inputs);
    if (parts.includes('run')) await this.run(inputs);
  }

  private async boot(inputs: Inputs): Promise<void> {
    for (const { name, ending, command } of bootContenders(inputs, this.scratch)) {
      await this.time(name, command(ending), HELLO);
      await this.footprint(name, command('stay'));
    }
    await this.further(inputs);
    const traced = tsvmmBoot(inputs.bzImage, inputs.initrd, ['--timeline', this.timelineFile]);
    await this.phasesOf('tsvmm boot', traced('poweroff'));
  }

  private async run(inputs: Inputs): Promise<void> {
    await this.time('tsvmm run, hello bundle', tsvmmRun(inputs.bundle), HELLO);
    await this.footprint('tsvmm run', tsvmmRun(inputs.stayingBundle));
    await this.phasesOf('tsvmm run', tsvmmRun(inputs.bundle, ['--timeline', this.timelineFile]));
  }

  /** Runs to warm up, then `samples` times. */
  private async time(name: string, command: readonly string[], mark?: string): Promise<void> {
    progress(name);
    const timings = await this.repeat(() => timeCommand(command, mark));
    const end = timings.map((timing) => timing.end);
    this.series.push(
      mark === undefined
        ? { name, end }
        : { name, firstLine: timings.map(({ firstLine }) => firstLine), end },
    );
  }

  private async repeat<T>(work: () => Promise<T>): Promise<T[]> {
    for (let count = 0; count < WARM_UP; count++) await work();
    const results: T[] = [];
    while (results.length < this.samples) results.push(await work());
    return results;
  }

  private async footprint(name: string, command: readonly string[]): Promise<void> {
    progress(`${name}: memory`);
    this.footprints.push({ name, ...(await footprintOf(command, HELLO, GUEST_BYTES)) });
  }

  /** Machines of one process, after its first (bench/further.ts). */
  private async further({ bzImage, initrd }: Inputs): Promise<void> {
    progress('a further machine');
    const file = join(this.scratch, 'further.json');
    const program = fileURLToPath(new URL('further.js', import.meta.url));
    await timeCommand([process.execPath, program, bzImage, initrd, String(this.samples), file]);
    const { end, phases } = JSON.parse(readFileSync(file, 'utf8')) as Pick<Series, 'end'> &
      Pick<Phases, 'phases'>;
    this.series.push({ name: 'tsvmm, a further machine', end });
    this.phases.push({ name: 'tsvmm, a further machine', phases });
  }

  private get timelineFile(): string {
    return join(this.scratch, 'timeline.json');
  }

  /** The phases of the start that took least, and what was before and after them. */
  private async phasesOf(name: string, command: readonly string[]): Promise<void> {
    progress(`${name}: phases`);
    let best: { readonly end: number; readonly phases: Phases['phases'] } | undefined;
    await this.repeat(async (): Promise<Timing> => {
      const timing = await timeCommand(command, HELLO);
      if (best !== undefined && best.end <= timing.end) return timing;
      const timeline = JSON.parse(readFileSync(this.timelineFile, 'utf8')) as ReturnType<Timeline['toJSON']>;
      const before = timeline.start - timing.start;
      const after = timing.end - before - (timeline.phases.at(-1)?.at ?? 0) * 1e6;
      const phases = timeline.phases.slice(1).map(({ name, since }) => ({ name, since: since * 1e6 }));
      best = {
        end: timing.end,
        phases: [{ name: 'fork and exec', since: before }, ...phases, { name: 'process end', since: after }],
      };
      return timing;
    });
    this.phases.push({ name, phases: best?.phases ?? [] });
  }
}

function progress(what: string): void {
  process.stderr.write(`bench: ${what}\n`);
}

const [samples, unit, ...parts] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), 'tsvmm-bench-'));
try {
  const measurement = new Measurement(Number(samples), scratch);
  await measurement.all(parts);
  const { series, footprints, phases } = measurement;
  const results: StartResults = { unit: unit as Unit, series, footprints, phases };
  process.stdout.write(`${JSON.stringify(results)}\n`);
} finally {
  rmSync(scratch, { recursive: true });
}
