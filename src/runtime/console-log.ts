import { closeSync, ftruncateSync, read, readSync, writeSync } from 'node:fs';
import { addon } from '../addon/index.js';
import { printable } from './agent-results.js';
import { UserError } from './errors.js';

/** What is kept of a guest's console, in bytes: its end. */
const KEPT = 32 << 10;
const CHUNK = 16 << 10;
/** The most that its file has, in bytes. */
const MAX_FILE = 1 << 20;
// asm-generic/ioctls.h
const FIONREAD = 0x541b;

/**
 * The end of what a guest has written to its console, for the message when its machine fails. It lies in a pipe and in
 * this process's memory, so nothing is left behind, and it is bounded however much the guest writes.
 */
export class ConsoleLog {
  readonly #read: number;
  readonly #write: number;
  #kept: Buffer[] = [];
  #size = 0;
  #ending = false;
  #draining: Promise<void> | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #file: number | undefined;
  #fileSize = 0;

  /** @param file a descriptor of a file for it all (its newer part, where it is long): the log's from now on */
  constructor(file?: number) {
    this.#file = file;
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

  /** Adds a line of the host's to the file. */
  line(text: string): void {
    this.#store(Buffer.from(`tsvmm: ${text}\n`));
  }

  /** The last lines, at most `count`, of what has been written by now. Called once. */
  async lastLines(count: number): Promise<string[]> {
    clearTimeout(this.#timer);
    if (this.#draining !== undefined) {
      // A byte of our own, behind the guest's last, ends the wait of the read that is under way.
      this.#ending = true;
      writeSync(this.#write, '\0');
      await this.#draining;
    }
    for (let left = this.#waiting(); left > 0; left = this.#waiting()) {
      const chunk = Buffer.allocUnsafe(Math.min(left, CHUNK));
      this.#keep(chunk.subarray(0, readSync(this.#read, chunk)));
    }
    closeSync(this.#write);
    closeSync(this.#read);
    return Buffer.concat(this.#kept)
      .toString('utf8')
      .split('\n')
      .map((line) => printable(line.trimEnd()))
      .filter((line) => line !== '')
      .slice(-count);
  }

  /** Bytes in the pipe. Its end of file is no sign: the machine may hold the other end for longer. */
  #waiting(): number {
    const bytes = new DataView(new ArrayBuffer(4));
    return addon().ioctl(this.#read, FIONREAD, bytes) < 0 ? 0 : bytes.getInt32(0, true);
  }

  #drain(): Promise<void> {
    return new Promise((resolve) => {
      const next = (): void => {
        const chunk = Buffer.allocUnsafe(CHUNK);
        read(this.#read, chunk, 0, CHUNK, null, (error, length) => {
          if (error || length === 0) return resolve();
          this.#keep(chunk.subarray(0, length));
          if (this.#ending) return resolve();
          next();
        });
      };
      next();
    });
  }

  #store(chunk: Buffer): void {
    if (this.#file === undefined) return;
    if (this.#fileSize + chunk.length > MAX_FILE) {
      // Begins anew, with what is kept in memory.
      const kept = Buffer.concat(this.#kept);
      ftruncateSync(this.#file, 0);
      writeSync(this.#file, kept, 0, kept.length, 0);
      this.#fileSize = kept.length;
    }
    writeSync(this.#file, chunk, 0, chunk.length, this.#fileSize);
    this.#fileSize += chunk.length;
  }

  #keep(chunk: Buffer): void {
    this.#store(chunk);
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
