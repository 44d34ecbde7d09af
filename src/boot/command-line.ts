import { BootError } from './error.js';

/**
 * Joins kernel parameters: the machine's own first, then the user's, which win because Linux takes the last value of a
 * parameter. What the user gives behind ` -- ` goes to init and stays last.
 * Empty pieces are left out.
 */
export function joinCommandLine(defaults: readonly string[], user = ''): string {
  return [...defaults, user]
    .map((piece) => piece.trim())
    .filter((piece) => piece !== '')
    .join(' ');
}

/**
 * The command line's bytes, ended by a NUL.
 * @param max the kernel's cmdline_size: the most bytes without the NUL.
 * @throws BootError (`command-line`) where it holds a NUL or is too long.
 */
export function encodeCommandLine(text: string, max: number): Uint8Array {
  if (text.includes('\0'))
    throw new BootError('command-line', 'the kernel command line contains a NUL character');
  const length = Buffer.byteLength(text);
  if (length > max) {
    throw new BootError(
      'command-line',
      `the kernel command line has ${length} bytes; this kernel takes ${max}`,
    );
  }
  const bytes = new Uint8Array(length + 1);
  new TextEncoder().encodeInto(text, bytes);
  return bytes;
}
