import { describe } from './errors.js';

/** A process of a container, as the guest's kernel tells it. */
export interface GuestProcess {
  /** In the guest. */
  readonly pid: number;
  /** As the process itself sees it: in the innermost PID namespace. */
  readonly nsPid: number;
  /** In the guest. */
  readonly ppid: number;
  readonly uid: number;
  /** `pts/0`, or `?` where it has none. */
  readonly tty: string;
  /** A letter of proc(5): `R` runs, `S` sleeps, ... */
  readonly state: string;
  /** Seconds from the guest's boot to its start. */
  readonly startTime: number;
  /** Seconds. */
  readonly cpuTime: number;
  readonly threads: number;
  /** Its arguments, or its name in brackets where it has none. Cut where they are long. */
  readonly command: readonly string[];
}

/** What a container has used, from its control group in the guest. A limit that is absent is none. */
export interface GuestStats {
  readonly cpu: {
    readonly usageNs: number;
    readonly userNs: number;
    readonly systemNs: number;
    readonly periods: number;
    readonly throttledPeriods: number;
    readonly throttledNs: number;
  };
  /** Bytes. */
  readonly memory: {
    readonly usage: number;
    readonly limit?: number;
    /** The most that was in use at once. */
    readonly max?: number;
    /** How often the limit was reached. */
    readonly failcnt: number;
    readonly swapUsage?: number;
    readonly swapLimit?: number;
    /** The lines of `memory.stat`. */
    readonly stat: Readonly<Record<string, number>>;
    /** Processes that the kernel has killed for want of memory. */
    readonly oomKills: number;
  };
  readonly pids: { readonly current: number; readonly limit?: number };
  /** One of each block device. */
  readonly io: readonly GuestIo[];
  /** One of each size of huge pages, where the guest has some. */
  readonly hugetlb?: readonly GuestHugePages[];
}

export interface GuestIo {
  readonly major: number;
  readonly minor: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly readOps: number;
  readonly writeOps: number;
}

export interface GuestHugePages {
  /** As in the file's name: `2MB`. */
  readonly size: string;
  /** Bytes. */
  readonly usage: number;
  readonly max?: number;
  readonly failcnt: number;
}

/** How much of a text from the guest is ever shown. */
const MAX_TEXT = 2000;
const MAX_PROCESSES = 4096;
const MAX_ARGUMENTS = 4096;
/** Of the lines of a control group's file, and of devices. */
const MAX_ENTRIES = 1024;

/** What a message has that it should not; the text begins with the field's name. */
export class ResultError extends Error {}

/** An own member of whatever `value` is. */
export function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return Reflect.get(value, name);
}

/** A text from the guest, fit for a terminal: bounded, without control characters other than newline and tab. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  const clean = text.slice(0, MAX_TEXT).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
  return text.length > MAX_TEXT ? `${clean}…` : clean;
}

/** `{pid}`. Throws a ResultError. */
export function readPid(result: unknown): { pid: number } {
  const pid = field(result, 'pid');
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid < 1) {
    throw new ResultError(`pid: expected a process ID, got ${describe(pid)}`);
  }
  return { pid };
}

/** `{processes: [...]}`. Throws a ResultError. */
export function readProcesses(result: unknown): GuestProcess[] {
  return list(field(result, 'processes'), 'processes', MAX_PROCESSES).map((entry, index) => {
    const name = `processes[${index}]`;
    const number = (key: string) => count(entry, key, name);
    return {
      pid: number('pid'),
      nsPid: number('nsPid'),
      ppid: number('ppid'),
      uid: number('uid'),
      tty: text(field(entry, 'tty'), `${name}.tty`),
      state: text(field(entry, 'state'), `${name}.state`),
      startTime: amount(entry, 'startTime', name),
      cpuTime: amount(entry, 'cpuTime', name),
      threads: number('threads'),
      command: list(field(entry, 'command'), `${name}.command`, MAX_ARGUMENTS).map((word) =>
        text(word, `${name}.command`),
      ),
    };
  });
}

/** The answer of container.stats. Throws a ResultError. */
export function readStats(result: unknown): GuestStats {
  const cpu = field(result, 'cpu');
  const memory = field(result, 'memory');
  const pids = field(result, 'pids');
  const hugetlb = field(result, 'hugetlb');
  return {
    cpu: {
      usageNs: count(cpu, 'usageNs', 'cpu'),
      userNs: count(cpu, 'userNs', 'cpu'),
      systemNs: count(cpu, 'systemNs', 'cpu'),
      periods: count(cpu, 'periods', 'cpu'),
      throttledPeriods: count(cpu, 'throttledPeriods', 'cpu'),
      throttledNs: count(cpu, 'throttledNs', 'cpu'),
    },
    memory: {
      usage: count(memory, 'usage', 'memory'),
      ...optional(memory, 'limit', 'memory'),
      ...optional(memory, 'max', 'memory'),
      failcnt: count(memory, 'failcnt', 'memory'),
      ...optional(memory, 'swapUsage', 'memory'),
      ...optional(memory, 'swapLimit', 'memory'),
      stat: numbers(field(memory, 'stat'), 'memory.stat'),
      oomKills: count(memory, 'oomKills', 'memory'),
    },
    pids: { current: count(pids, 'current', 'pids'), ...optional(pids, 'limit', 'pids') },
    io: list(field(result, 'io'), 'io', MAX_ENTRIES).map((entry, index) => readIo(entry, `io[${index}]`)),
    ...(hugetlb === undefined
      ? {}
      : {
          hugetlb: list(hugetlb, 'hugetlb', MAX_ENTRIES).map((entry, index) =>
            readHugePages(entry, `hugetlb[${index}]`),
          ),
        }),
  };
}

function readIo(entry: unknown, name: string): GuestIo {
  return {
    major: count(entry, 'major', name),
    minor: count(entry, 'minor', name),
    readBytes: count(entry, 'readBytes', name),
    writeBytes: count(entry, 'writeBytes', name),
    readOps: count(entry, 'readOps', name),
    writeOps: count(entry, 'writeOps', name),
  };
}

function readHugePages(entry: unknown, name: string): GuestHugePages {
  const size = field(entry, 'size');
  if (typeof size !== 'string' || !/^[0-9]{1,9}[KMG]B$/.test(size)) {
    throw new ResultError(`${name}.size: expected a size such as "2MB", got ${describe(size)}`);
  }
  return {
    size,
    usage: count(entry, 'usage', name),
    ...optional(entry, 'max', name),
    failcnt: count(entry, 'failcnt', name),
  };
}

function list(value: unknown, name: string, most: number): unknown[] {
  if (!Array.isArray(value) || value.length > most) {
    throw new ResultError(`${name}: expected an array of at most ${most}, got ${describe(value)}`);
  }
  return value;
}

function text(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new ResultError(`${name}: expected a string, got ${describe(value)}`);
  return printable(value);
}

function amount(object: unknown, key: string, name: string): number {
  const value = field(object, key);
  if (typeof value !== 'number' || !(value >= 0) || !Number.isFinite(value)) {
    throw new ResultError(`${name}.${key}: expected a number from 0 on, got ${describe(value)}`);
  }
  return value;
}

/** A whole number. Beyond 2^53 it is not exact, which a statistic need not be. */
function count(object: unknown, key: string, name: string): number {
  const value = amount(object, key, name);
  if (!Number.isInteger(value)) {
    throw new ResultError(`${name}.${key}: expected a whole number, got ${describe(value)}`);
  }
  return value;
}

function optional<Key extends string>(object: unknown, key: Key, name: string): { [_ in Key]?: number } {
  const found: { [_ in Key]?: number } = {};
  if (field(object, key) !== undefined) Object.assign(found, { [key]: count(object, key, name) });
  return found;
}

function numbers(value: unknown, name: string): Record<string, number> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ResultError(`${name}: expected an object, got ${describe(value)}`);
  }
  const keys = Object.keys(value);
  if (keys.length > MAX_ENTRIES) throw new ResultError(`${name}: expected at most ${MAX_ENTRIES} entries`);
  const read: Record<string, number> = {};
  for (const key of keys) {
    if (!/^[a-z0-9_]{1,64}$/.test(key) || key === '__proto__') {
      throw new ResultError(`${name}: expected names of statistics, got ${describe(key)}`);
    }
    read[key] = count(value, key, name);
  }
  return read;
}
