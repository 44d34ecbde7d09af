/** What kind of failure a {@link BootError} is; its message says where and why. */
export type BootErrorCode =
  | 'not-a-kernel'
  | 'wrong-architecture'
  | 'unsupported'
  | 'truncated'
  | 'malformed'
  | 'decompression-failed'
  | 'command-line'
  | 'too-little-memory'
  | 'initrd-too-large'
  | 'bad-archive'
  | 'module-missing'
  | 'file';

/** A boot cannot be prepared. The message is for a person: it names the file and the field. */
export class BootError extends Error {
  override readonly name = 'BootError';

  constructor(
    readonly code: BootErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The words of whatever was thrown, on one line. */
export function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n', 1)[0] ?? '';
}
