import { closeSync, read, readSync } from 'node:fs';
import { addon } from '../addon/index.js';
import { printable } from './agent-client.js';
import { UserError } from './errors.js';

/** What is kept of a guest's console, in bytes: its end. */
const KEPT = 32 << 10;
const CHUNK = 16 << 10;

/**
 * The end of what a guest has written to its console, for the message when its machine fails. It lies in a pipe and in
 * this process's memory, so nothing is left behind, and it is bounded however much the guest writes.
 */
export class ConsoleLog {
  readonly #read: number;
  #write: number;
  #kept: Buffer[] = [];
  #size = 0;
  #draining: Promise<void> | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor() {
    const ends = addon().pipe();
    if (typeof ends === 'number') throw new UserError(`no pipe for the guest's console (errno ${-ends})`);
    [this.#read, this.#write] = ends;
    // The pipe holds the first 64 KiB by itself, more than a quiet guest ever writes: a run that ends sooner pays for
    // no thread that reads.
    this.#timer = setTimeout(() => {
      this.#draining = this.#drain();
    }, 1000);
    this.#timer.unref();
  }

  /** Where the guest's console writes to. */
  get fd(): number {
    return this.#write;
  }

  /** The last lines, at most `count`. Called once, after the machine has been closed. */
  async lastLines(count: number): Promise<string[]> {
    clearTimeout(this.#timer);
    closeSync(this.#write);
    this.#write = -1;
    if (this.#draining !== undefined) {
      await this.#draining;
    } else {
      const chunk = Buffer.allocUnsafe(CHUNK);
      for (;;) {
        const length = readSync(this.#read, chunk);
        if (length === 0) break;
        this.#keep(Buffer.from(chunk.subarray(0, length)));
      }
    }
    closeSync(this.#read);
    const text = Buffer.concat(this.#kept).toString('utf8');
    return text
      .split('\n')
      .map((line) => printable(line.trimEnd()))
      .filter((line) => line !== '')
      .slice(-count);
  }

  #drain(): Promise<void> {
    return new Promise((resolve) => {
      const next = (): void => {
        const chunk = Buffer.allocUnsafe(CHUNK);
        read(this.#read, chunk, 0, CHUNK, null, (error, length) => {
          if (error || length === 0) return resolve();
          this.#keep(chunk.subarray(0, length));
          next();
        });
      };
      next();
    });
  }

  #keep(chunk: Buffer): void {
    this.#kept.push(chunk);
    this.#size += chunk.length;
    for (
      let first = this.#kept[0];
      first !== undefined && this.#size - first.length >= KEPT;
      first = this.#kept[0]
    ) {
      this.#kept.shift();
      this.#size -= first.length;
    }
  }
}
