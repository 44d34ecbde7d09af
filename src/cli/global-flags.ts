/** Flags before the command, as runc has them (and crun: cgroup-manager). */
const FLAGS: Readonly<Record<string, 'flag' | 'value' | 'optional'>> = {
  root: 'value',
  log: 'value',
  'log-format': 'value',
  debug: 'flag',
  'systemd-cgroup': 'flag',
  'cgroup-manager': 'value',
  rootless: 'optional',
  criu: 'value',
  version: 'flag',
  help: 'flag',
};

const SHORT: Readonly<Record<string, string>> = { v: 'version', V: 'version', h: 'help', '?': 'help' };

const ROOTLESS = ['auto', 'true', 'false'];

export interface GlobalFlags {
  /** By name without dashes; a flag without a value is `true`. The last of two counts. */
  readonly values: ReadonlyMap<string, string>;
  /** Where the command is in `argv`; its length where there is none. */
  readonly command: number;
  /** The flag that there is not, as written. */
  readonly unknown: string | undefined;
  /** The flag whose value is missing, as written. */
  readonly incomplete: string | undefined;
}

/** Splits a command line at its command. Knows no errors, since src/cli/launch.ts, too, only wants to know the command. */
export function scanGlobalFlags(argv: readonly string[]): GlobalFlags {
  const values = new Map<string, string>();
  let unknown: string | undefined;
  let incomplete: string | undefined;
  let i = 0;
  for (; i < argv.length; i++) {
    const arg = argv[i] ?? '';
    if (!arg.startsWith('-') || arg === '-') break;
    const equals = arg.indexOf('=');
    const written = equals < 0 ? arg : arg.slice(0, equals);
    const dashless = written.slice(written.startsWith('--') ? 2 : 1);
    const name = written.startsWith('--') ? dashless : (SHORT[dashless] ?? dashless);
    const kind = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    if (kind === undefined) unknown ??= written;
    else if (equals >= 0) values.set(name, arg.slice(equals + 1));
    else if (kind === 'flag') values.set(name, 'true');
    else if (kind === 'optional' && !ROOTLESS.includes(argv[i + 1] ?? '')) values.set(name, 'true');
    else if (i + 1 < argv.length) values.set(name, argv[++i] ?? '');
    else incomplete ??= written;
  }
  return { values, command: i, unknown, incomplete };
}

/** For suggestions. */
export function globalFlagNames(): string[] {
  return Object.keys(FLAGS).map((name) => `--${name}`);
}
