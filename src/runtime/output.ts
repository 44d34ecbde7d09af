import { writeSync } from 'node:fs';
import { sleep } from './sleep.js';

/** Writes all of `text` to a descriptor before it returns. False where its reader has gone, which is no error. */
export function writeAll(fd: number, text: string): boolean {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      // EAGAIN: the shell's other children may have made the pipe non-blocking.
      if (code === 'EAGAIN') sleep(5);
      else if (code === 'EPIPE' || code === 'EIO' || code === 'EBADF') return false;
      else throw error;
    }
  }
  return true;
}

export function printLine(text: string): void {
  writeAll(1, `${text}\n`);
}

export function printError(text: string): void {
  writeAll(2, `${text}\n`);
}

/** Text of a guest for a terminal: its control characters, but for the ends of lines and tabs, shown as \xNN. */
export function visible(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return text.replace(/\r\n/g, '\n').replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
