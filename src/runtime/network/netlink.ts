/**
 * Netlink messages as bytes (RFC 3549, netlink(7)): a header of 16 bytes, a fixed part that depends on the type, and attributes
 * (length, type, value, padding to 4 bytes) that can hold attributes themselves. Numbers have the host's byte order, which is little-endian.
 */

/** Flags of a request (linux/netlink.h). */
export const NLM_F = { REPLACE: 0x100, EXCL: 0x200, CREATE: 0x400, APPEND: 0x800, DUMP: 0x300 } as const;

const HEADER = 16;
const ATTRIBUTE_HEADER = 4;
/** NLA_TYPE_MASK: without the flags "nested" and "network byte order". */
const ATTRIBUTE_TYPE = 0x3fff;
const FIRST_SIZE = 256;

/** A message that is being written. Attributes follow the fixed part, in the order of the calls. */
export class MessageWriter {
  #bytes = new Uint8Array(FIRST_SIZE);
  #view = new DataView(this.#bytes.buffer);
  #length = HEADER;

  /** @param fixed what comes before the attributes, a multiple of 4 bytes */
  constructor(type: number, flags: number, fixed: Uint8Array) {
    this.#view.setUint16(4, type, true);
    this.#view.setUint16(6, flags, true);
    this.#append(fixed);
  }

  bytes(type: number, value: Uint8Array): this {
    const start = this.#open(type);
    this.#append(value);
    return this.#close(start);
  }

  /** A text with its terminating NUL. */
  string(type: number, value: string): this {
    return this.bytes(type, Buffer.from(`${value}\0`));
  }

  u8(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  u32(type: number, value: number): this {
    return this.bytes(type, words(value));
  }

  /** 16 bits in network byte order. */
  be16(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value >> 8, value & 0xff));
  }

  /** An attribute that holds what `write` writes. */
  nested(type: number, write: () => void): this {
    const start = this.#open(type);
    write();
    return this.#close(start);
  }

  finish(): Uint8Array {
    this.#view.setUint32(0, this.#length, true);
    return this.#bytes.subarray(0, this.#length);
  }

  #open(type: number): number {
    const start = this.#length;
    this.#reserve(ATTRIBUTE_HEADER);
    this.#view.setUint16(start + 2, type, true);
    this.#length += ATTRIBUTE_HEADER;
    return start;
  }

  #close(start: number): this {
    this.#view.setUint16(start, this.#length - start, true);
    const padding = -this.#length & 3;
    this.#reserve(padding);
    this.#length += padding;
    return this;
  }

  #append(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = new Uint8Array(2 * (this.#length + count));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/** 32-bit numbers (also negative ones), one after the other. */
export function words(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

/** The attributes of a message or of an attribute, by type. Of several of one type, the last. */
export class Attributes {
  readonly #values = new Map<number, Uint8Array>();

  /** @throws RangeError for what is cut off in the middle */
  constructor(bytes: Uint8Array) {
    const view = viewOf(bytes);
    for (let at = 0; at + ATTRIBUTE_HEADER <= bytes.length; ) {
      const length = view.getUint16(at, true);
      if (length < ATTRIBUTE_HEADER || at + length > bytes.length) {
        throw new RangeError(`netlink: an attribute of ${length} bytes at ${at} of ${bytes.length}`);
      }
      const type = view.getUint16(at + 2, true) & ATTRIBUTE_TYPE;
      this.#values.set(type, bytes.subarray(at + ATTRIBUTE_HEADER, at + length));
      at += (length + 3) & ~3;
    }
  }

  bytes(type: number): Uint8Array | undefined {
    return this.#values.get(type);
  }

  u32(type: number): number | undefined {
    const value = this.#values.get(type);
    return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, true);
  }

  /** A text up to its NUL. */
  string(type: number): string | undefined {
    const value = this.#values.get(type);
    if (value === undefined) return undefined;
    const end = value.indexOf(0);
    return Buffer.from(end < 0 ? value : value.subarray(0, end)).toString();
  }

  nested(type: number): Attributes | undefined {
    const value = this.#values.get(type);
    return value === undefined ? undefined : new Attributes(value);
  }
}

/** A message that was received. */
export class MessageReader {
  readonly type: number;
  /** The fixed part. */
  readonly fixed: DataView;
  readonly attributes: Attributes;

  /** @throws RangeError where it is shorter than it has to be */
  constructor(message: Uint8Array, fixedLength: number) {
    if (message.length < HEADER + fixedLength) {
      throw new RangeError(`netlink: a message of ${message.length} bytes, not of ${HEADER + fixedLength}`);
    }
    this.type = viewOf(message).getUint16(4, true);
    this.fixed = new DataView(message.buffer, message.byteOffset + HEADER, fixedLength);
    this.attributes = new Attributes(message.subarray(HEADER + fixedLength));
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
