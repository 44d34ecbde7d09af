import { describe, UserError } from '../errors.js';
import { parseInteger, parseSeconds, parseSize } from '../values.js';
import { KEYS, type Key, type KeyName, type Layer } from './keys.js';

/**
 * Reads one setting, as text (of a variable or an annotation) or as a value of TOML, into `layer`.
 * @param place what a message begins with: where the setting stands, and its name there
 * @throws UserError
 */
export function readValue(layer: Layer, name: KeyName, written: unknown, place: string): void {
  // The table's type says what each value is.
  (layer as Record<KeyName, unknown>)[name] = checked(KEYS[name], written, place);
}

function checked(key: Key, written: unknown, place: string): unknown {
  const expected = (what: string): never => {
    throw new UserError(`${place}: expected ${what}, got ${describe(written)}`);
  };
  switch (key.type) {
    case 'path':
      return typeof written === 'string' && written.startsWith('/')
        ? written
        : expected('an absolute path, like "/usr/share/tsvmm/bzImage"');
    case 'word':
      return typeof written === 'string' && written !== '' ? written : expected('a name or a path');
    case 'words': {
      const words = typeof written === 'string' ? written.split(/\s+/).filter(Boolean) : written;
      const fine = Array.isArray(words) && words.every((word) => typeof word === 'string');
      return fine ? words : expected('an array of strings, or words with spaces between them');
    }
    case 'size': {
      const bytes = isText(written) ? parseSize(String(written), place) : expected('a size, like "512M"');
      const { min = 0 } = key;
      return bytes >= min ? bytes : expected(`at least ${min >> 20}M`);
    }
    case 'integer':
      return isText(written)
        ? parseInteger(String(written), place, key.min ?? 0, key.max ?? Number.MAX_SAFE_INTEGER)
        : expected('a whole number');
    case 'seconds':
      return isText(written) ? parseSeconds(String(written), place) : expected('seconds');
    case 'boolean':
      if (written === true || written === 'true' || written === '1') return true;
      if (written === false || written === 'false' || written === '0') return false;
      return expected('true or false');
    case 'choice': {
      const { choices = [] } = key;
      return typeof written === 'string' && choices.includes(written)
        ? written
        : expected(`${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`);
    }
  }
}

function isText(value: unknown): value is string | number | bigint {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint';
}
