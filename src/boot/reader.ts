import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { BootError, reasonOf } from './error.js';

/** Bytes that can be read in pieces, so that a large file's headers cost no more than the headers. */
export interface FileReader {
  /** Length in bytes. */
  readonly size: number;
  /**
   * The bytes [offset, offset + length). Shorter where the file ends first, empty from its end on.
   * @param offset at least 0.
   */
  read(offset: number, length: number): Uint8Array;
}

/** A reader of bytes that are in memory already; what it returns shares their memory. */
export function bytesReader(bytes: Uint8Array): FileReader {
  return {
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/** A regular file, opened for reading. Close it. */
export class OpenFile implements FileReader {
  readonly size: number;
  /** The descriptor; it stays this object's own. */
  readonly fd: number;

  /** @throws BootError (`file`) where the path cannot be opened or is no regular file. */
  constructor(readonly path: string) {
    try {
      this.fd = openSync(path, 'r');
    } catch (error) {
      throw fileError(path, error);
    }
    const stat = fstatSync(this.fd);
    if (!stat.isFile()) {
      closeSync(this.fd);
      throw new BootError('file', `${path}: not a regular file`);
    }
    this.size = stat.size;
  }

  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.size - offset)));
    let done = 0;
    while (done < bytes.length) {
      const count = readSync(this.fd, bytes, done, bytes.length - done, offset + done);
      if (count === 0) return bytes.subarray(0, done);
      done += count;
    }
    return bytes;
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** A BootError that says in plain words why a path could not be used. */
export function fileError(path: string, error: unknown): BootError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const words =
    code === 'ENOENT'
      ? 'no such file'
      : code === 'EACCES' || code === 'EPERM'
        ? 'permission denied'
        : code === 'EISDIR'
          ? 'is a folder, not a file'
          : reasonOf(error);
  return new BootError('file', `${path}: ${words}`, { cause: error });
}
