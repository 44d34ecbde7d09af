import { UserError } from '../errors.js';

/**
 * JSON with whole numbers beyond 2^53 kept exactly. A config.json holds them (RLIM_INFINITY is 2^64 - 1, a memory
 * limit may be 2^63 - 1), and a JavaScript number rounds them to values that the runtime in the guest then refuses.
 * The parsed value holds the rounded number, good enough to decide on; `digits` remembers how it was written.
 */
export interface ExactJson {
  readonly value: unknown;
  /** From the rounded number to the digits in the text. Empty for nearly every file. */
  readonly digits: ReadonlyMap<number, string>;
}

/** A string, or a whole number of sixteen digits and more with nothing around it. */
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g;

/** Throws the SyntaxError of JSON.parse, or a RangeError for two numbers that round to the same one. */
export function parseExactJson(text: string): ExactJson {
  const value: unknown = JSON.parse(text);
  const digits = new Map<number, string>();
  if (/\d{16}/.test(text)) {
    for (const [token] of text.matchAll(TOKENS)) {
      const number = Number(token);
      if (token.startsWith('"') || Number.isSafeInteger(number)) continue;
      const known = digits.get(number);
      if (known !== undefined && known !== token) {
        throw new RangeError(`the numbers ${known} and ${token} are too close to be told apart`);
      }
      digits.set(number, token);
    }
  }
  return { value, digits };
}

/** parseExactJson() of what a person has written; `name` stands for the text in messages. @throws UserError */
export function readExactJson(text: string, name: string): ExactJson {
  try {
    return parseExactJson(text);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) {
      throw new UserError(`${name}: not JSON: ${error.message}`);
    }
    throw error;
  }
}

/** JSON.stringify, with the numbers in `digits` written as they were read. */
export function stringifyExactJson(value: unknown, digits: ReadonlyMap<number, string>): string {
  const text = JSON.stringify(value);
  if (digits.size === 0) return text;
  return text.replace(TOKENS, (token) =>
    token.startsWith('"') ? token : (digits.get(Number(token)) ?? token),
  );
}

/** Where a SyntaxError of JSON.parse is: `line 3, column 7`. Undefined where the error doesn't say. */
export function positionOf(error: SyntaxError, text: string): string | undefined {
  const match = /at position (\d+)/.exec(error.message);
  const offset = match ? Number(match[1]) : /end of JSON input/.test(error.message) ? text.length : undefined;
  if (offset === undefined) return undefined;
  const before = text.slice(0, offset);
  const line = before.split('\n').length;
  return `line ${line}, column ${offset - before.lastIndexOf('\n')}`;
}
