/** One moment of a start. */
export interface TimelineMark {
  readonly name: string;
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly at: number;
}

/**
 * The phases of a start, ours and the guest's, so that a regression has a name. Marking costs a clock reading.
 * A mark is the end of what it names. In the order of a boot: `exec` (the process's start), `node` (Node.js is up), `command` (the
 * command's code is loaded), `addon`, `kernel`, `memory`, `vm`, `devices`, `vcpus`, `first-instruction`, then what the guest says:
 * `init`, `agent`, `process`, and `end`.
 */
export class Timeline {
  readonly #marks: TimelineMark[] = [];

  constructor() {
    const now = Number(process.hrtime.bigint());
    const start = now - Math.round(performance.now() * 1e6);
    this.mark('exec', start);
    this.mark('node', start + Math.round(performance.nodeTiming.bootstrapComplete * 1e6));
    this.mark('command', now);
  }

  mark(name: string, at = Number(process.hrtime.bigint())): void {
    this.#marks.push({ name, at });
  }

  /** All marks in the order of time. */
  marks(): TimelineMark[] {
    return [...this.#marks].sort((a, b) => a.at - b.at);
  }

  /**
   * JSON of `{start, phases: [{name, at, since}]}`: the process's start in nanoseconds of CLOCK_MONOTONIC; milliseconds from
   * then on, and since the mark before.
   */
  toJSON(): {
    readonly start: number;
    readonly phases: { readonly name: string; readonly at: number; readonly since: number }[];
  } {
    const marks = this.marks();
    const first = marks[0]?.at ?? 0;
    let before = first;
    const phases = marks.map(({ name, at }) => {
      const phase = { name, at: (at - first) / 1e6, since: (at - before) / 1e6 };
      before = at;
      return phase;
    });
    return { start: first, phases };
  }
}
