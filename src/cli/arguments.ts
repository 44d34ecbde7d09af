import { UserError } from '../runtime/errors.js';

/** A command line that cannot be followed. */
export class UsageError extends UserError {}

/**
 * A command's options: `flag` takes no value, `value` one, `list` one at each of several times, `optional` one after `=` only
 * (without, it is the empty string).
 */
export type OptionTable = Readonly<Record<string, 'flag' | 'value' | 'list' | 'optional'>>;

export type Parsed<T extends OptionTable> = {
  readonly options: {
    readonly [K in keyof T]?: T[K] extends 'flag'
      ? boolean
      : T[K] extends 'list'
        ? readonly string[]
        : string;
  };
  readonly positionals: readonly string[];
};

/**
 * Parses `--name value`, `--name=value`, `-x value` and positionals; `--` ends the options. node:util's parseArgs would
 * do, but costs a millisecond of each start and cannot say which option was meant.
 * @param short letters for options: `{ b: 'bundle' }`
 * @throws UsageError
 */
export function parseArguments<T extends OptionTable>(
  args: readonly string[],
  table: T,
  short: Readonly<Record<string, keyof T & string>> = {},
): Parsed<T> {
  const options: Record<string, boolean | string | string[]> = {};
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? '';
    if (arg === '--') {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!arg.startsWith('-') || arg === '-') {
      positionals.push(arg);
      continue;
    }
    const equals = arg.indexOf('=');
    const written = equals < 0 ? arg : arg.slice(0, equals);
    const name = written.startsWith('--') ? written.slice(2) : short[written.slice(1)];
    const kind = name !== undefined && Object.hasOwn(table, name) ? table[name] : undefined;
    if (name === undefined || kind === undefined) {
      throw new UsageError(`unknown option ${written}${suggestion(written, optionNames(table, short))}`);
    }
    if (kind === 'flag') {
      if (equals >= 0) throw new UsageError(`${written} takes no value`);
      options[name] = true;
      continue;
    }
    const value = equals >= 0 ? arg.slice(equals + 1) : kind === 'optional' ? '' : args[++i];
    if (value === undefined) throw new UsageError(`${written}: its value is missing`);
    if (kind === 'list') {
      const list = options[name];
      if (Array.isArray(list)) list.push(value);
      else options[name] = [value];
    } else if (Object.hasOwn(options, name)) {
      throw new UsageError(`${written} is given twice`);
    } else {
      options[name] = value;
    }
  }
  return { options: options as Parsed<T>['options'], positionals };
}

function optionNames(table: OptionTable, short: Readonly<Record<string, string>>): string[] {
  return [
    ...Object.keys(table).map((name) => `--${name}`),
    ...Object.keys(short).map((letter) => `-${letter}`),
  ];
}

/** `: did you mean --memory?`, or nothing where no name is near. */
export function suggestion(written: string, names: readonly string[]): string {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(written.length / 3)) + 1;
  for (const name of names) {
    const distance = name.startsWith(written) && written.length > 3 ? 1 : editDistance(written, name);
    if (distance < least) {
      least = distance;
      best = name;
    }
  }
  return best === undefined ? '' : `: did you mean ${best}?`;
}

/** Levenshtein's. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** A size: plain bytes, or with K, M, G or T, optionally followed by B or iB (all are powers of 1024). */
export function parseSize(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const unit = match === null ? undefined : UNITS[(match[2] ?? '').toUpperCase()];
  const bytes = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (!Number.isSafeInteger(bytes)) {
    throw new UsageError(
      `${option}: expected a size like 128M, 1G, 512MiB or a number of bytes, got ${JSON.stringify(text)}`,
    );
  }
  return bytes;
}

/** The size of a machine's RAM, a multiple of 4096 bytes; its bounds are the machine's to know. */
export function parseMemory(text: string): number {
  const bytes = parseSize(text, '--memory');
  if (bytes % 4096 !== 0) throw new UsageError(`--memory: ${bytes} bytes are no multiple of 4096`);
  return bytes;
}

/** A whole number from `min` to `max`. */
export function parseInteger(text: string, option: string, min: number, max: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) {
    throw new UsageError(
      `${option}: expected a whole number from ${min} to ${max}, got ${JSON.stringify(text)}`,
    );
  }
  return value;
}

/** Seconds, with or without a fraction, above 0. */
export function parseSeconds(text: string, option: string): number {
  const value = /^\d{1,8}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value > 0 && value <= 1e6)) {
    throw new UsageError(
      `${option}: expected seconds, above 0 and at most 1000000, got ${JSON.stringify(text)}`,
    );
  }
  return value;
}
