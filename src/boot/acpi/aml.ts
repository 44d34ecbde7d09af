/**
 * A small encoder of ACPI Machine Language (ACPI 6.5, chapter 20): enough for the objects of a machine without PCI.
 * Every function returns the bytes of one term; terms nest by being passed on.
 */

const ZERO_OP = 0x00;
const ONE_OP = 0x01;
const NAME_OP = 0x08;
const BYTE_PREFIX = 0x0a;
const WORD_PREFIX = 0x0b;
const DWORD_PREFIX = 0x0c;
const STRING_PREFIX = 0x0d;
const QWORD_PREFIX = 0x0e;
const SCOPE_OP = 0x10;
const BUFFER_OP = 0x11;
const PACKAGE_OP = 0x12;
const METHOD_OP = 0x14;
const DUAL_NAME_PREFIX = 0x2e;
const MULTI_NAME_PREFIX = 0x2f;
const ROOT_CHAR = 0x5c;
const UNDERSCORE = 0x5f;
const EXT_OP_PREFIX = 0x5b;
const DEVICE_OP = 0x82;
const RETURN_OP = 0xa4;

/** Largest PkgLength: 28 bits. */
const PKG_LENGTH_MAX = 2 ** 28 - 1;

/**
 * One encoded term: bytes. Plain arrays, because a machine's start builds some hundred terms of a few bytes each, which
 * costs a fraction of what as many typed arrays do.
 */
export type Term = readonly number[];

/** The concatenation of terms: a TermList. Cheaper than spreading them into one array, which goes element by element. */
export function terms(...parts: readonly Term[]): Term {
  return ([] as number[]).concat(...parts);
}

/**
 * A name or a path of names (20.2.2): segments of up to four of A-Z, 0-9 and _, divided by dots, from the root if it
 * begins with a backslash.
 */
export function name(path: string): Term {
  const absolute = path.startsWith('\\');
  const segments = (absolute ? path.slice(1) : path).split('.');
  const bytes = absolute ? [ROOT_CHAR] : [];
  if (segments.length === 2) bytes.push(DUAL_NAME_PREFIX);
  if (segments.length > 2) bytes.push(MULTI_NAME_PREFIX, segments.length);
  for (const segment of segments) {
    for (let index = 0; index < 4; index++) {
      const code = index < segment.length ? segment.charCodeAt(index) : UNDERSCORE;
      const letter = (code >= 0x41 && code <= 0x5a) || code === UNDERSCORE;
      bytes.push(letter || (index > 0 && code >= 0x30 && code <= 0x39) ? code : -1);
    }
    if (segment === '' || segment.length > 4 || bytes.includes(-1)) {
      throw new RangeError(`AML: ${JSON.stringify(path)} is no name`);
    }
  }
  return bytes;
}

/** An integer (20.2.3) in its shortest form. @param value 0 to 2^53 - 1. */
export function integer(value: number): Term {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`AML: ${value} is no unsigned integer`);
  if (value === 0) return [ZERO_OP];
  if (value === 1) return [ONE_OP];
  if (value < 2 ** 8) return [BYTE_PREFIX, value];
  if (value < 2 ** 16) return terms([WORD_PREFIX], little(value, 2));
  if (value < 2 ** 32) return terms([DWORD_PREFIX], little(value, 4));
  return terms([QWORD_PREFIX], little(value, 8));
}

/** A string of printable ASCII characters (20.2.3). */
export function string(text: string): Term {
  const bytes = [STRING_PREFIX];
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 0x20 || code > 0x7e) throw new RangeError(`AML: ${JSON.stringify(text)} is not ASCII`);
    bytes.push(code);
  }
  bytes.push(0);
  return bytes;
}

/** A buffer initialised with bytes. */
export function buffer(bytes: Term): Term {
  return withLength([BUFFER_OP], integer(bytes.length), bytes);
}

/** A package: a list of at most 255 terms. */
export function packageOf(...elements: readonly Term[]): Term {
  if (elements.length > 255) throw new RangeError('AML: a package has at most 255 elements');
  return withLength([PACKAGE_OP], [elements.length], ...elements);
}

/** `Name (path, value)`. */
export function define(path: string, value: Term): Term {
  return terms([NAME_OP], name(path), value);
}

/** `Scope (path) { ... }`. */
export function scope(path: string, ...body: readonly Term[]): Term {
  return withLength([SCOPE_OP], name(path), ...body);
}

/** `Device (path) { ... }`. */
export function device(path: string, ...body: readonly Term[]): Term {
  return withLength([EXT_OP_PREFIX, DEVICE_OP], name(path), ...body);
}

/** `Method (path, argumentCount, NotSerialized) { ... }`. */
export function method(path: string, argumentCount: number, ...body: readonly Term[]): Term {
  if (argumentCount < 0 || argumentCount > 7) throw new RangeError('AML: a method has at most 7 arguments');
  return withLength([METHOD_OP], name(path), [argumentCount], ...body);
}

/** `Return (value)`. */
export function returns(value: Term): Term {
  return terms([RETURN_OP], value);
}

/**
 * A compressed EISA identifier (6.1.5), as `PNP0501`: three letters in five bits each, four hexadecimal digits.
 */
export function eisaId(id: string): Term {
  const product = Number.parseInt(id.slice(3), 16);
  const letters = [0, 1, 2].map((index) => id.charCodeAt(index) - 0x40);
  if (id.length !== 7 || !(product >= 0) || !letters.every((letter) => letter >= 1 && letter <= 26)) {
    throw new RangeError(`AML: ${JSON.stringify(id)} is no EISA identifier`);
  }
  const vendor = letters.reduce((bits, letter) => (bits << 5) | letter);
  // The identifier is big-endian inside its little-endian number.
  return [DWORD_PREFIX, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

/** A number's lowest `size` bytes, the lowest first. */
export function little(value: number, size: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (let index = 0; index < size; index++) {
    bytes.push(rest % 256);
    rest = Math.floor(rest / 256);
  }
  return bytes;
}

/** An operator, a PkgLength (20.2.4) over everything behind it, and the parts. */
function withLength(operator: Term, ...parts: readonly Term[]): Term {
  let size = 0;
  for (const part of parts) size += part.length;
  return terms(operator, pkgLength(size), ...parts);
}

/** The length counts its own bytes too: six bits in one, or four and eight for each of up to three more. */
function pkgLength(bodySize: number): Term {
  if (bodySize + 1 < 64) return [bodySize + 1];
  const size = bodySize + 2 < 2 ** 12 ? 2 : bodySize + 3 < 2 ** 20 ? 3 : 4;
  const total = bodySize + size;
  if (total > PKG_LENGTH_MAX) throw new RangeError(`AML: a term of ${total} bytes is too long`);
  return terms([((size - 1) << 6) | (total & 0xf)], little(Math.floor(total / 16), size - 1));
}
