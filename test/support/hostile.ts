import { BootError } from '../../src/boot/error.js';

/**
 * Feeds every input to a parser that may either succeed or throw a BootError.
 * @returns how often each happened, and what else was thrown.
 */
export async function survive(
  inputs: Iterable<Uint8Array>,
  parse: (bytes: Uint8Array) => unknown,
): Promise<{ taken: number; refused: number; escaped: string[] }> {
  const result = { taken: 0, refused: 0, escaped: [] as string[] };
  for (const bytes of inputs) {
    try {
      await parse(bytes);
      result.taken++;
    } catch (error) {
      if (error instanceof BootError && error.message !== '') result.refused++;
      else result.escaped.push(String(error instanceof Error ? error.stack : error));
    }
  }
  return result;
}
