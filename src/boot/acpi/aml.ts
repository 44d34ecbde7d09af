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
const EXT_OP_PREFIX = 0x5b;
const DEVICE_OP = 0x82;
const RETURN_OP = 0xa4;

/** Largest PkgLength: 28 bits. */
const PKG_LENGTH_MAX = 2 ** 28 - 1;

/** One encoded term. */
export type Term = Uint8Array;

/** The concatenation of terms: a TermList. */
export function terms(...parts: readonly Term[]): Term {
  return Buffer.concat(parts);
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
    if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment))
      throw new RangeError(`AML: ${JSON.stringify(path)} is no name`);
    for (const letter of segment.padEnd(4, '_')) bytes.push(letter.charCodeAt(0));
  }
  return Uint8Array.from(bytes);
}

/** An integer (20.2.3) in its shortest form. @param value 0 to 2^53 - 1. */
export function integer(value: number): Term {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`AML: ${value} is no unsigned integer`);
  if (value === 0) return Uint8Array.of(ZERO_OP);
  if (value === 1) return Uint8Array.of(ONE_OP);
  const [prefix, size] =
    value < 2 ** 8
      ? [BYTE_PREFIX, 1]
      : value < 2 ** 16
        ? [WORD_PREFIX, 2]
        : value < 2 ** 32
          ? [DWORD_PREFIX, 4]
          : [QWORD_PREFIX, 8];
  const bytes = new Uint8Array(9);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, prefix);
  view.setBigUint64(1, BigInt(value), true);
  return bytes.subarray(0, 1 + size);
}

/** A string of printable ASCII characters (20.2.3). */
export function string(text: string): Term {
  if (!/^[ -~]*$/.test(text)) throw new RangeError(`AML: ${JSON.stringify(text)} is not ASCII`);
  return Buffer.from(`${String.fromCharCode(STRING_PREFIX)}${text}\0`, 'latin1');
}

/** A buffer initialised with bytes. */
export function buffer(bytes: Uint8Array): Term {
  return withLength([BUFFER_OP], integer(bytes.length), bytes);
}

/** A package: a list of at most 255 terms. */
export function packageOf(...elements: readonly Term[]): Term {
  if (elements.length > 255) throw new RangeError('AML: a package has at most 255 elements');
  return withLength([PACKAGE_OP], Uint8Array.of(elements.length), ...elements);
}

/** `Name (path, value)`. */
export function define(path: string, value: Term): Term {
  return terms(Uint8Array.of(NAME_OP), name(path), value);
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
  return withLength([METHOD_OP], name(path), Uint8Array.of(argumentCount), ...body);
}

/** `Return (value)`. */
export function returns(value: Term): Term {
  return terms(Uint8Array.of(RETURN_OP), value);
}

/**
 * A compressed EISA identifier (6.1.5), as `PNP0501`: three letters in five bits each, four hexadecimal digits.
 */
export function eisaId(id: string): Term {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id))
    throw new RangeError(`AML: ${JSON.stringify(id)} is no EISA identifier`);
  const letter = (index: number) => id.charCodeAt(index) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const bytes = new Uint8Array(5);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, DWORD_PREFIX);
  // The identifier is big-endian inside its little-endian number.
  view.setUint16(1, vendor);
  view.setUint16(3, Number.parseInt(id.slice(3), 16));
  return bytes;
}

/** An operator, a PkgLength (20.2.4) over everything behind it, and the parts. */
function withLength(operator: readonly number[], ...parts: readonly Term[]): Term {
  const body = terms(...parts);
  return terms(Uint8Array.from(operator), pkgLength(body.length), body);
}

/** The length counts its own bytes too: six bits in one, or four and eight for each of up to three more. */
function pkgLength(bodySize: number): Term {
  if (bodySize + 1 < 64) return Uint8Array.of(bodySize + 1);
  const size = bodySize + 2 < 2 ** 12 ? 2 : bodySize + 3 < 2 ** 20 ? 3 : 4;
  const total = bodySize + size;
  if (total > PKG_LENGTH_MAX) throw new RangeError(`AML: a term of ${total} bytes is too long`);
  const bytes = new Uint8Array(size);
  bytes[0] = ((size - 1) << 6) | (total & 0xf);
  for (let index = 1; index < size; index++) bytes[index] = Math.floor(total / 2 ** (8 * index - 4)) & 0xff;
  return bytes;
}
