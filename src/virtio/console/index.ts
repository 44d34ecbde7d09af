import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName } from '../options.js';

/** A console (virtio 1.2, 5.3) with one port: hvc0 in a Linux guest. */
export interface ConsoleOptions {
  /** For messages and metrics. */
  readonly name: string;
  /**
   * Where the guest's input comes from: a descriptor (never made non-blocking: whoever shares it is not disturbed; it stays the
   * caller's), or `'push'` for {@link Console.write}. No input by default. It is read only as the guest takes it.
   */
  readonly input?: number | 'push' | undefined;
  /** Called when write() has taken less than it was given and there is room again. */
  readonly onRoom?: (() => void) | undefined;
  /**
   * Where the guest's output goes: a descriptor, or a function that gets each chunk (bytes as the guest wrote them, cut
   * anywhere). When the function returns false, no more comes until {@link Console.resumeOutput}. Whoever does not take the
   * output slows the guest down; nothing is lost. Without `output` it is thrown away.
   */
  readonly output?: number | ((chunk: Buffer) => unknown) | undefined;
  /** The terminal's first size in characters, 0 to 65535; 0: unknown. */
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

/** A console and what can be done with it while the machine runs. */
export interface Console extends VirtioDescription {
  /** Tells the guest the terminal's new size, 0 to 65535 each. */
  resize(columns: number, rows: number): void;
  /** Gives the guest input; returns how many of the bytes were taken (at most 64 KiB wait). For `input: 'push'`. */
  write(bytes: Uint8Array): number;
  /** No more input will come. */
  end(): void;
  /** After `output` has returned false. */
  resumeOutput(): void;
}

const DEVICE_ID = 3;
const F_SIZE = 1n << 0n;
const QUEUE_SIZE = 64;

/** @throws TypeError or RangeError for a bad option; Error for a descriptor that is not open, or not in that direction */
export function describeConsole(options: ConsoleOptions): Console {
  const { name, input, onRoom, output, columns = 0, rows = 0 } = options;
  checkName('console', name);
  const where = `console ${name}`;
  if (input !== undefined && input !== 'push') checkInteger(`${where}: input`, input, 0, 0x7fffffff);
  if (output !== undefined && typeof output !== 'function') {
    checkInteger(`${where}: output`, output, 0, 0x7fffffff);
  }
  checkSize(where, columns, rows);

  const backend = addon().createVirtioConsole({
    input: input === 'push' ? (onRoom ?? ((): void => {})) : input,
    output,
  });

  // Virtio 1.2, 5.3.4: cols, rows, max_nr_ports (with F_MULTIPORT), emerg_wr (with F_EMERG_WRITE).
  const config = new Uint8Array(12);
  const view = new DataView(config.buffer);
  view.setUint16(0, columns, true);
  view.setUint16(2, rows, true);
  view.setUint32(4, 1, true);

  return {
    name,
    deviceId: DEVICE_ID,
    features: F_SIZE,
    queueSizes: [QUEUE_SIZE, QUEUE_SIZE],
    config,
    backend,
    resize(newColumns, newRows) {
      checkSize(where, newColumns, newRows);
      backend.resize(newColumns, newRows);
    },
    write: (bytes) => backend.write(bytes),
    end: () => backend.end(),
    resumeOutput: () => backend.resumeOutput(),
  };
}

function checkSize(where: string, columns: number, rows: number): void {
  checkInteger(`${where}: columns`, columns, 0, 65535);
  checkInteger(`${where}: rows`, rows, 0, 65535);
}
