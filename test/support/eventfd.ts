import { closeSync, readSync, writeSync } from 'node:fs';
import { addon } from '../../src/addon/index.js';

/** An eventfd of a test, closed when it ends. */
export class EventFd {
  readonly fd: number;

  constructor(test: { teardown(end: () => void): unknown }) {
    this.fd = addon().eventfd(0);
    if (this.fd < 0) {
      throw new Error(`eventfd: errno ${-this.fd}`);
    }
    test.teardown(() => closeSync(this.fd));
  }

  signal(): void {
    const one = Buffer.alloc(8);
    one.writeBigUInt64LE(1n);
    writeSync(this.fd, one);
  }

  /** How often it was signalled since the last call. */
  take(): number {
    const count = Buffer.alloc(8);
    try {
      readSync(this.fd, count);
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') {
        return 0;
      }
      throw error;
    }
    return Number(count.readBigUInt64LE());
  }
}
