import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { NativeConsole } from '../../addon/index.js';
import { checkInteger } from '../options.js';

/** Where a port's bytes come from and go to, in the words of the addon. */
export interface PortEnds {
  readonly input: number | (() => void) | undefined;
  readonly output: number | ((chunk: Buffer) => unknown) | undefined;
}

/**
 * One port of a virtio console, as the host sees it. Events: `open` when a program of the guest has opened it (of a terminal:
 * when the guest's driver is ready), `close` when it has closed it.
 */
export class ConsolePort extends EventEmitter<{ open: []; close: [] }> {
  /** For the description. */
  readonly ends: PortEnds;
  #native: NativeConsole | undefined;
  #index = 0;
  #opens = 0;
  #stream: Duplex | undefined;
  #taken = false;
  #closed = false;
  /** What the guest has written before there was a stream: one chunk, of at most 256 KiB. */
  #early: Buffer[] = [];
  #onChunk: ((chunk: Buffer) => boolean) | undefined;
  #onRoom: (() => void) | undefined;

  /** @param ends descriptors; without any, {@link stream} is the other end */
  constructor(
    /** As in the configuration. */
    readonly name: string,
    /** A terminal: hvcN in a Linux guest. Else `/dev/virtio-ports/NAME`. */
    readonly isConsole: boolean,
    ends: { readonly input?: number | undefined; readonly output?: number | undefined } | 'stream',
  ) {
    super();
    this.ends =
      ends === 'stream'
        ? { input: () => this.#onRoom?.(), output: (chunk) => this.#receive(chunk) }
        : { input: ends.input, output: ends.output };
  }

  /** For the description: the device has been made. */
  attach(native: NativeConsole, index: number): void {
    this.#native = native;
    this.#index = index;
  }

  /** Whether the guest has it open. Of a console with one port: never, since that has no way to tell. */
  get isOpen(): boolean {
    return this.#native !== undefined && this.#native.opens(this.#index) % 2 === 1;
  }

  /** Tells the guest the terminal's new size in characters, 0 to 65535 each. @throws RangeError */
  resize(columns: number, rows: number): void {
    checkSize(`port ${this.name}`, columns, rows);
    this.#native?.resize(this.#index, columns, rows);
  }

  /**
   * The port as a stream, for a port without descriptors; once. What the guest does not read makes `write()` wait, and who
   * does not read makes the guest wait. Destroying the stream closes the port for good, once the guest has taken what was written.
   * @throws Error (as a rejection) for a port with descriptors, or for the second time
   */
  async stream(): Promise<Duplex> {
    if (typeof this.ends.output !== 'function') {
      throw new Error(`port ${this.name}: it is on descriptors, and no stream`);
    }
    if (this.#taken) throw new Error(`port ${this.name}: its stream has been taken already`);
    this.#taken = true;
    const { Duplex } = await import('node:stream');
    if (this.#closed) throw new Error(`port ${this.name}: the machine was closed`);
    const native = this.#native;
    const index = this.#index;
    const stream = new Duplex({
      read: () => native?.resumeOutput(index),
      write: (chunk: Buffer, _encoding, done) => this.#push(chunk, done),
      final: (done) => {
        native?.end(index);
        done();
      },
      destroy: (error, done) => {
        this.#onChunk = (): boolean => true;
        if (!this.#closed) native?.hangUp(index);
        done(error);
      },
    });
    this.#stream = stream;
    this.#onChunk = (chunk): boolean => stream.push(chunk);
    for (const chunk of this.#early.splice(0)) stream.push(chunk);
    return stream;
  }

  /** For the machine, which is no more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#early = [];
    this.#stream?.destroy();
  }

  /** For the description: the guest may have opened or closed it, several times. */
  update(): void {
    const opens = this.#native?.opens(this.#index) ?? 0;
    if (opens === this.#opens) return;
    const was = this.#opens % 2 === 1;
    const is = opens % 2 === 1;
    this.#opens = opens;
    if (was) this.emit('close');
    if (is) this.emit('open');
    else if (!was) {
      this.emit('open');
      this.emit('close');
    }
  }

  /** A chunk, as far as there is room; the rest when there is more. */
  #push(rest: Buffer, done: () => void): void {
    this.#onRoom = undefined;
    const taken = this.#native?.write(this.#index, rest) ?? 0;
    if (taken === rest.length) done();
    else this.#onRoom = (): void => this.#push(rest.subarray(taken), done);
  }

  #receive(chunk: Buffer): boolean {
    if (this.#closed) return true;
    if (this.#onChunk !== undefined) return this.#onChunk(chunk);
    this.#early.push(chunk);
    return false;
  }
}

/** @throws RangeError */
export function checkSize(where: string, columns: number, rows: number): void {
  checkInteger(`${where}: columns`, columns, 0, 65535);
  checkInteger(`${where}: rows`, rows, 0, 65535);
}
