import { visible } from './output.js';

/** A process of the guest, as the agent tells of it (docs/agent-protocol.md, `container.processes`). */
interface GuestProcess {
  readonly pid: number;
  /** In the innermost PID namespace. */
  readonly nsPid: number;
  readonly ppid: number;
  readonly uid: number;
  readonly tty: string;
  /** As in proc(5): R, S, D, ... */
  readonly state: string;
  readonly started: Date;
  /** Seconds. */
  readonly cpuTime: number;
  readonly threads: number;
  readonly command: string;
}

/** Columns that `-o` knows, by the names of ps(1), with the heading of each. */
const COLUMNS: Readonly<Record<string, readonly [heading: string, value: (p: GuestProcess) => string]>> = {
  user: ['USER', (p) => userOf(p)],
  uid: ['UID', (p) => userOf(p)],
  pid: ['PID', ({ pid }) => String(pid)],
  ppid: ['PPID', ({ ppid }) => String(ppid)],
  c: ['C', () => '0'],
  stime: ['STIME', (p) => startOf(p)],
  tty: ['TTY', ({ tty }) => tty],
  stat: ['STAT', ({ state }) => state],
  time: ['TIME', ({ cpuTime }) => clock(cpuTime)],
  nlwp: ['NLWP', ({ threads }) => String(threads)],
  comm: ['COMMAND', ({ command }) => (command.split(' ')[0] ?? '').replace(/^.*\//, '')],
  cmd: ['CMD', ({ command }) => command],
  args: ['COMMAND', ({ command }) => command],
};

const ALIASES: Readonly<Record<string, string>> = {
  command: 'args',
  ucmd: 'comm',
  tt: 'tty',
  tname: 'tty',
  s: 'stat',
  state: 'stat',
  cputime: 'time',
  start: 'stime',
  euid: 'uid',
  euser: 'user',
  thcount: 'nlwp',
};

const FULL = ['uid', 'pid', 'ppid', 'c', 'stime', 'tty', 'time', 'cmd'];
const SHORT = ['pid', 'tty', 'time', 'comm'];
const BSD = ['pid', 'tty', 'stat', 'time', 'args'];
const BSD_USERS = ['user', 'pid', 'tty', 'stat', 'stime', 'time', 'args'];

/**
 * The columns that options of ps(1) ask for, as far as a machine can tell: `-ef`, `aux`, `-ex`, `-o pid,comm`. Others ask for what
 * is shown anyway, or for what only the host's ps could do.
 * @throws RangeError with a message for people
 */
export function columnsOf(options: readonly string[]): readonly string[] {
  if (options.length === 0) return FULL;
  let columns = SHORT;
  for (let i = 0; i < options.length; i++) {
    const option = options[i] ?? '';
    const list = /^(?:-o|o|-eo|--format=)(.*)$/s.exec(option)?.[1];
    if (list !== undefined) return named(list === '' ? (options[++i] ?? '') : list);
    if (/^-[eAaxdwyTL]*[fFl][eAaxdwyTLfFl]*$/.test(option)) columns = FULL;
    else if (/^-?[axw]*u[axwu]*$/.test(option)) columns = BSD_USERS;
    else if (/^-?[aew]*x[aewx]*$|^[aw]+$/.test(option)) columns = BSD;
    else if (!/^-?[eAaxwdyTL]+$/.test(option)) {
      throw new RangeError(`ps: option ${option}: expected -ef, aux or -o COLUMN,...`);
    }
  }
  return columns;
}

function named(list: string): string[] {
  const names = list.split(/[\s,]+/).filter(Boolean);
  return names.map((name) => {
    const column = ALIASES[name] ?? name;
    if (!Object.hasOwn(COLUMNS, column)) {
      throw new RangeError(`ps: column ${name}: expected one of ${Object.keys(COLUMNS).join(', ')}`);
    }
    return column;
  });
}

/**
 * The table of a container's processes, whatever the guest has answered: what is no process is left out.
 * @param booted when the guest began, from which it counts
 */
export function processTable(answer: unknown, columns: readonly string[], booted: Date): string {
  const list: unknown =
    typeof answer === 'object' && answer !== null ? Reflect.get(answer, 'processes') : undefined;
  const processes = processesOf(list, booted);
  const rows = [
    columns.map((column) => COLUMNS[column]?.[0] ?? ''),
    ...processes.map((process) => columns.map((column) => COLUMNS[column]?.[1](process) ?? '')),
  ];
  const widths = columns.map((column, i) =>
    Math.max(WIDTHS[column] ?? 0, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === row.length - 1 ? cell : pad(cell, columns[i] ?? '', widths[i] ?? 0)))
        .join(' '),
    )
    .join('\n');
}

/** As wide as ps(1) has them: the longest process ID that Linux gives. */
const WIDTHS: Readonly<Record<string, number>> = { pid: 7, ppid: 7 };
const LEFT = new Set(['user', 'uid', 'tty', 'stat', 'comm', 'cmd', 'args']);

function pad(cell: string, column: string, width: number): string {
  return LEFT.has(column) ? cell.padEnd(width) : cell.padStart(width);
}

/** With the IDs that they have for each other in the container, as far as it has a PID namespace of its own. */
function processesOf(list: unknown, booted: Date): GuestProcess[] {
  if (!Array.isArray(list)) return [];
  const processes = list.map((item) => processOf(item, booted)).filter((item) => item !== undefined);
  const inside = new Map(processes.map(({ pid, nsPid }) => [pid, nsPid]));
  return processes.map((process) => ({
    ...process,
    pid: process.nsPid,
    // One from outside, as the first one's, is 0 there.
    ppid: inside.get(process.ppid) ?? 0,
  }));
}

function processOf(value: unknown, booted: Date): GuestProcess | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const number = (name: string): number => {
    const item: unknown = Reflect.get(value, name);
    return typeof item === 'number' && Number.isFinite(item) && item >= 0 ? item : 0;
  };
  const { tty, state, command } = value as { tty?: unknown; state?: unknown; command?: unknown };
  const words = Array.isArray(command) ? command : [command];
  return {
    pid: number('pid'),
    nsPid: number('nsPid') || number('pid'),
    ppid: number('ppid'),
    uid: number('uid'),
    tty: typeof tty === 'string' && tty !== '' ? line(tty) : '?',
    state: typeof state === 'string' && /^[A-Za-z]$/.test(state) ? state : '?',
    started: new Date(booted.getTime() + number('startTime') * 1000),
    cpuTime: number('cpuTime'),
    threads: number('threads'),
    command: line(words.filter((word) => typeof word === 'string').join(' ')),
  };
}

function line(text: string): string {
  return visible(text.replaceAll('\n', ' '));
}

/** The container's names of users are in its own files; one is the same everywhere. */
function userOf({ uid }: GuestProcess): string {
  return uid === 0 ? 'root' : String(uid);
}

/** `00:01:05`, with days before it. */
function clock(seconds: number): string {
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  const days = Math.floor(seconds / 86_400);
  const time = `${two((seconds / 3600) % 24)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
  return days > 0 ? `${two(days)}-${time}` : time;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** As ps(1): the time of a process of today, the day of others. */
function startOf({ started }: GuestProcess): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  return started.toDateString() === new Date().toDateString()
    ? `${two(started.getHours())}:${two(started.getMinutes())}`
    : `${MONTHS[started.getMonth()]}${two(started.getDate())}`;
}
