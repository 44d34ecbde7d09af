import { EventEmitter } from 'node:events';
import type { NativeBalloon } from '../../addon/index.js';
import { checkInteger } from '../options.js';

/** What a guest says of its memory (virtio 1.2, 5.5.6.3): what it does not know is absent. Sizes are in bytes. */
export interface BalloonStatistics {
  readonly swapIn?: number;
  readonly swapOut?: number;
  readonly majorFaults?: number;
  readonly minorFaults?: number;
  /** Not used for anything. */
  readonly freeMemory?: number;
  /** Without the balloon's. */
  readonly totalMemory?: number;
  /** What new programs could have without swapping. */
  readonly availableMemory?: number;
  readonly diskCaches?: number;
  readonly hugePageAllocations?: number;
  readonly hugePageFailures?: number;
}

/** A guest that gives no statistics. */
export class BalloonError extends Error {}

const PAGE = 4096;
const NAMES: readonly (keyof BalloonStatistics)[] = [
  'swapIn',
  'swapOut',
  'majorFaults',
  'minorFaults',
  'freeMemory',
  'totalMemory',
  'availableMemory',
  'diskCaches',
  'hugePageAllocations',
  'hugePageFailures',
];

/** A list of `le16 tag, le64 value` in named values. Tags that are not known, and a rest, are passed over. */
export function parseStatistics(bytes: Uint8Array): BalloonStatistics {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const statistics: { -readonly [K in keyof BalloonStatistics]: number } = {};
  for (let at = 0; at + 10 <= bytes.byteLength; at += 10) {
    const name = NAMES[view.getUint16(at, true)];
    if (name !== undefined) statistics[name] = Number(view.getBigUint64(at + 2, true));
  }
  return statistics;
}

/** A target in pages. @throws RangeError unless `bytes` is within the guest's RAM and a multiple of 4096 */
export function pagesOf(where: string, bytes: number, memory: number): number {
  checkInteger(`${where}: target`, bytes, 0, memory);
  if (bytes % PAGE !== 0) {
    throw new RangeError(`${where}: target: ${bytes} bytes are no multiple of ${PAGE}`);
  }
  return bytes / PAGE;
}

interface Waiting {
  readonly resolve: (statistics: BalloonStatistics) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * A machine's memory balloon. Events: `actual` (bytes) when the guest has put memory into it or taken some out, `statistics`
 * ({@link BalloonStatistics}) whenever some have come.
 */
export class Balloon extends EventEmitter<{ actual: [number]; statistics: [BalloonStatistics] }> {
  /** For the machine. */
  readonly native: NativeBalloon;
  #actual = 0;
  readonly #waiting = new Set<Waiting>();
  #poll: NodeJS.Timeout | undefined;

  /** @param where what errors begin with */
  constructor(
    private readonly where: string,
    private readonly memory: number,
    private readonly hasStatistics: boolean,
    create: (onChange: () => void) => NativeBalloon,
  ) {
    super();
    this.native = create(() => this.#changed());
  }

  /** What the guest has been asked to give up, in bytes. */
  get target(): number {
    return this.native.target() * PAGE;
  }

  /**
   * Asks the guest to have this much of its memory in the balloon; it follows as it can. What is in it the host has back.
   * @param bytes 0 to the guest's RAM, a multiple of 4096
   * @throws RangeError
   */
  setTarget(bytes: number): void {
    this.native.setTarget(pagesOf(this.where, bytes, this.memory));
  }

  /** How much is in the balloon, in bytes, as the guest says. */
  get actual(): number {
    return Math.min(this.native.actual() * PAGE, this.memory);
  }

  /**
   * Asks the guest for its statistics.
   * @param timeout milliseconds, 1 to 3600000
   * @throws BalloonError (as a rejection) where the guest does not answer in time, or the machine is closed
   */
  statistics(timeout = 5000): Promise<BalloonStatistics> {
    return new Promise((resolve, reject) => {
      if (!this.hasStatistics) throw new BalloonError(`${this.where}: was made without statistics`);
      checkInteger(`${this.where}: statistics: timeout`, timeout, 1, 3_600_000);
      const waiting: Waiting = {
        resolve,
        reject,
        timer: setTimeout(() => {
          this.#waiting.delete(waiting);
          reject(new BalloonError(`${this.where}: the guest has given no statistics within ${timeout} ms`));
        }, timeout),
      };
      this.#waiting.add(waiting);
      this.native.requestStatistics();
    });
  }

  /** Asks for statistics every so many milliseconds; the event has them. For the description. */
  poll(interval: number): void {
    this.#poll = setInterval(() => this.native.requestStatistics(), interval);
    this.#poll.unref();
  }

  /** The machine is no more. */
  close(): void {
    clearInterval(this.#poll);
    for (const { reject, timer } of this.#waiting) {
      clearTimeout(timer);
      reject(new BalloonError(`${this.where}: the machine was closed`));
    }
    this.#waiting.clear();
  }

  #changed(): void {
    const { actual } = this;
    if (actual !== this.#actual) {
      this.#actual = actual;
      this.emit('actual', actual);
    }
    const bytes = this.native.takeStatistics();
    if (bytes === undefined) return;
    const statistics = parseStatistics(bytes);
    for (const { resolve, timer } of this.#waiting) {
      clearTimeout(timer);
      resolve(statistics);
    }
    this.#waiting.clear();
    this.emit('statistics', statistics);
  }
}
