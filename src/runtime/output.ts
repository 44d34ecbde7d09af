import { writeSync } from 'node:fs';

/** Writes all of `text` to a descriptor before it returns; a reader that has gone is no error. */
export function writeAll(fd: number, text: string): void {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      // EAGAIN: the shell's other children may have made the pipe non-blocking.
      if (code === 'EAGAIN') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      else if (code === 'EPIPE' || code === 'EIO' || code === 'EBADF') return;
      else throw error;
    }
  }
}

export function printLine(text: string): void {
  writeAll(1, `${text}\n`);
}

export function printError(text: string): void {
  writeAll(2, `${text}\n`);
}
