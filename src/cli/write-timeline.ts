import { writeFileSync } from 'node:fs';
import type { Machine } from '../machine/machine.js';
import type { Timeline } from '../machine/timeline.js';
import { reasonOf, UserError } from '../runtime/errors.js';

/** Writes the phases of a machine's start, for `--timeline`. */
export function writeTimeline(machine: Machine, timeline: Timeline, path: string): void {
  machine.collectTimeline();
  try {
    writeFileSync(path, `${JSON.stringify(timeline, undefined, 2)}\n`);
  } catch (error) {
    throw new UserError(`--timeline: ${path}: ${reasonOf(error)}`);
  }
}
