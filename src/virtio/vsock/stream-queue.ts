import type { Duplex } from 'node:stream';

/** How many connections may wait to be taken; one more is cut off. */
const BACKLOG = 1024;

const ignore = (): void => {};

/** Connections for `for await`, in the order of their arrival. Those that fail before they are taken are left out. */
export class StreamQueue implements AsyncIterator<Duplex> {
  readonly #waiting: Duplex[] = [];
  readonly #takers: ((result: IteratorResult<Duplex>) => void)[] = [];
  #closed = false;

  push(stream: Duplex): void {
    const taker = this.#takers.shift();
    if (taker !== undefined) taker({ value: stream, done: false });
    else if (this.#closed || this.#waiting.length >= BACKLOG) stream.destroy();
    else this.#waiting.push(stream.on('error', ignore));
  }

  next(): Promise<IteratorResult<Duplex>> {
    for (let stream = this.#waiting.shift(); stream !== undefined; stream = this.#waiting.shift()) {
      if (stream.destroyed) continue;
      stream.off('error', ignore);
      return Promise.resolve({ value: stream, done: false });
    }
    if (this.#closed) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  /** Nobody takes the rest. */
  return(): Promise<IteratorResult<Duplex>> {
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  close(): void {
    this.#closed = true;
    for (const stream of this.#waiting.splice(0)) stream.destroy();
    for (const taker of this.#takers.splice(0)) taker({ value: undefined, done: true });
  }
}
