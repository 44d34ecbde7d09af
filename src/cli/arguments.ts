import { UserError } from '../runtime/errors.js';
import { suggestion } from '../runtime/values.js';

export { parseInteger, parseMemory, parseSeconds, parseSize, suggestion } from '../runtime/values.js';

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
