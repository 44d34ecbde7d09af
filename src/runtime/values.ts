import { UserError } from './errors.js';

/** `: did you mean --memory?`, or nothing where no name is near. `prefix`: what all of them begin with, left out of both. */
export function suggestion(written: string, names: readonly string[], prefix = ''): string {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(written.length / 3)) + 1;
  for (const name of names) {
    const distance = name.startsWith(written) && written.length > 3 ? 1 : editDistance(written, name);
    if (distance < least) {
      least = distance;
      best = name;
    }
  }
  return best === undefined ? '' : `: did you mean ${prefix}${best}?`;
}

/** Levenshtein's. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** A size: plain bytes, or with K, M, G or T, optionally followed by B or iB (all are powers of 1024). */
export function parseSize(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const unit = match === null ? undefined : UNITS[(match[2] ?? '').toUpperCase()];
  const bytes = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (!Number.isSafeInteger(bytes)) {
    throw new UserError(
      `${option}: expected a size like 128M, 1G, 512MiB or a number of bytes, got ${JSON.stringify(text)}`,
    );
  }
  return bytes;
}

/** The size of a machine's RAM, a multiple of 4096 bytes; its bounds are the machine's to know. */
export function parseMemory(text: string): number {
  const bytes = parseSize(text, '--memory');
  if (bytes % 4096 !== 0) throw new UserError(`--memory: ${bytes} bytes are no multiple of 4096`);
  return bytes;
}

/** A whole number from `min` to `max`. */
export function parseInteger(text: string, option: string, min: number, max: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) {
    throw new UserError(
      `${option}: expected a whole number from ${min} to ${max}, got ${JSON.stringify(text)}`,
    );
  }
  return value;
}

/** Seconds, with or without a fraction, above 0. */
export function parseSeconds(text: string, option: string): number {
  const value = /^\d{1,8}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value > 0 && value <= 1e6)) {
    throw new UserError(
      `${option}: expected seconds, above 0 and at most 1000000, got ${JSON.stringify(text)}`,
    );
  }
  return value;
}
