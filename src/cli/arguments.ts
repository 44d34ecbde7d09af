import { UserError } from '../runtime/errors.js';
import { suggestion } from '../runtime/values.js';

export { parseInteger, parseMemory, parseSeconds, parseSize, suggestion } from '../runtime/values.js';

/** A command line that cannot be followed. */
export class UsageError extends UserError {}

/**
 * A command's options: `flag` takes no value (but `=true` or `=false`), `value` one, `list` one at each of several times, `optional` one after `=` only
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
 * Parses `--name value`, `--name=value`, `--flag=false`, `-x value`, `-xvalue`, `-xyz` and positionals; `--` ends the options.
 * node:util's parseArgs would do, but costs a millisecond of each start and cannot say which option was meant.
 * @param short letters for options: `{ b: 'bundle' }`
 * @param stopAfter as many positionals end the options, so that what follows may look like anything (a command line of its own)
 * @throws UsageError
 */
export function parseArguments<T extends OptionTable>(
  args: readonly string[],
  table: T,
  short: Readonly<Record<string, keyof T & string>> = {},
  stopAfter = Number.POSITIVE_INFINITY,
): Parsed<T> {
  const options: Record<string, boolean | string | string[]> = {};
  const positionals: string[] = [];
  let i = 0;
  const take = (name: string, written: string, attached: string | undefined): void => {
    const kind = table[name];
    if (kind === 'flag') {
      options[name] = attached === undefined || flagValue(attached, written);
      return;
    }
    const value = attached ?? (kind === 'optional' ? '' : args[++i]);
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
  };
  for (; i < args.length; i++) {
    const arg = args[i] ?? '';
    if (arg === '--' || positionals.length >= stopAfter) {
      positionals.push(...args.slice(arg === '--' ? i + 1 : i));
      break;
    }
    if (!arg.startsWith('-') || arg === '-') {
      positionals.push(arg);
      continue;
    }
    const equals = arg.indexOf('=');
    const written = equals < 0 ? arg : arg.slice(0, equals);
    const attached = equals < 0 ? undefined : arg.slice(equals + 1);
    const name = written.startsWith('--') ? written.slice(2) : short[written.slice(1)];
    if (name !== undefined && Object.hasOwn(table, name)) take(name, written, attached);
    else if (!takeLetters(arg, table, short, take)) {
      throw new UsageError(`unknown option ${written}${suggestion(written, optionNames(table, short))}`);
    }
  }
  return { options: options as Parsed<T>['options'], positionals };
}

/** Letters in one argument, `-dt` or `-ePATH=/bin`: flags, of which the last may be an option with its value. */
function takeLetters<T extends OptionTable>(
  arg: string,
  table: T,
  short: Readonly<Record<string, keyof T & string>>,
  take: (name: string, written: string, attached: string | undefined) => void,
): boolean {
  if (!/^-[A-Za-z]./.test(arg)) return false;
  const found: [name: string, letter: string, attached: string | undefined][] = [];
  for (let at = 1; at < arg.length; at++) {
    const letter = arg[at] ?? '';
    const name = Object.hasOwn(short, letter) ? short[letter] : undefined;
    if (name === undefined) return false;
    if (table[name] === 'flag') {
      found.push([name, letter, undefined]);
      continue;
    }
    found.push([name, letter, at + 1 < arg.length ? arg.slice(at + 1) : undefined]);
    break;
  }
  for (const [name, letter, attached] of found) take(name, `-${letter}`, attached);
  return true;
}

/** `--flag=false`, as Go's flags have it. */
function flagValue(text: string, option: string): boolean {
  if (text === 'true' || text === '1') return true;
  if (text === 'false' || text === '0') return false;
  throw new UsageError(`${option}: expected true or false, got ${JSON.stringify(text)}`);
}

function optionNames(table: OptionTable, short: Readonly<Record<string, string>>): string[] {
  return [
    ...Object.keys(table).map((name) => `--${name}`),
    ...Object.keys(short).map((letter) => `-${letter}`),
  ];
}

/**
 * A command's positionals: exactly those that are named.
 * @throws UsageError that names what is missing or too much
 */
export function positional(command: string, names: readonly string[], given: readonly string[]): string[] {
  const missing = names[given.length];
  if (missing !== undefined) {
    throw new UsageError(`${command}: the ${missing} is missing; see tsvmm ${command} --help`);
  }
  const surplus = given[names.length];
  if (surplus !== undefined) throw new UsageError(`${command}: unexpected argument ${surplus}`);
  return [...given];
}
