/**
 * Unpacks `data`. At most `limit` bytes come out: more is an error, and neither memory nor time grows beyond it.
 * @throws whatever the library throws, with words that say what is wrong.
 */
export type Unpacker = (data: Uint8Array, limit: number) => Promise<Uint8Array>;

/** What an unpacker throws when more would come out than was announced. */
export function tooMuch(limit: number): Error {
  return new Error(`more than the expected ${limit} bytes come out`);
}
