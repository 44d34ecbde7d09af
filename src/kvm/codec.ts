/**
 * C structs as tables. `struct('kvm_dtable', { base: u64, limit: u16, padding: reserved(6) })` knows its size by C's
 * rules of alignment (System V ABI, section 3.1.2) and turns bytes into a plain object and back.
 */

/** How one member lies in memory. `V` is its type in JavaScript; `undefined` for what is not shown. */
export interface Field<V> {
  /** Not shown and always 0. */
  readonly reserved?: true;
  readonly size: number;
  readonly align: number;
  get(view: DataView, at: number): V;
  set(view: DataView, at: number, value: V): void;
}

type Fields = Record<string, Field<unknown>>;
type ValueOf<F> = F extends Field<infer V> ? V : never;

/** The plain object of a table of fields; reserved members are left out. */
export type Decoded<F extends Fields> = {
  -readonly [K in keyof F as ValueOf<F[K]> extends undefined ? never : K]: ValueOf<F[K]>;
};

/** A struct's layout; also a field, so that structs nest. */
export interface Struct<T> extends Field<T> {
  readonly name: string;
  /** Where each member begins. */
  readonly offsets: Readonly<Record<string, number>>;
  /** The object in the bytes of `view` from `offset` on (default 0). */
  decode(view: DataView, offset?: number): T;
  /** New bytes of the struct; reserved members are 0. */
  encode(value: T): DataView;
}

export const u8: Field<number> = {
  size: 1,
  align: 1,
  get: (view, at) => view.getUint8(at),
  set: (view, at, value) => view.setUint8(at, value),
};

export const u16: Field<number> = {
  size: 2,
  align: 2,
  get: (view, at) => view.getUint16(at, true),
  set: (view, at, value) => view.setUint16(at, value, true),
};

export const u32: Field<number> = {
  size: 4,
  align: 4,
  get: (view, at) => view.getUint32(at, true),
  set: (view, at, value) => view.setUint32(at, value, true),
};

export const u64: Field<bigint> = {
  size: 8,
  align: 8,
  get: (view, at) => view.getBigUint64(at, true),
  set: (view, at, value) => view.setBigUint64(at, value, true),
};

export const s64: Field<bigint> = {
  size: 8,
  align: 8,
  get: (view, at) => view.getBigInt64(at, true),
  set: (view, at, value) => view.setBigInt64(at, value, true),
};

/** Bytes that the kernel wants to be 0 and that no one looks at. */
export function reserved(size: number): Field<undefined> {
  return { reserved: true, size, align: 1, get: () => undefined, set: () => undefined };
}

/** `length` raw bytes, copied. A shorter value leaves zeros behind it, a longer one is a RangeError. */
export function bytes(length: number): Field<Uint8Array> {
  return {
    size: length,
    align: 1,
    get: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, length).slice(),
    set: (view, at, value) => {
      if (value.length > length) {
        throw new RangeError(`${value.length} bytes given where ${length} fit`);
      }
      new Uint8Array(view.buffer, view.byteOffset + at, length).set(value);
    },
  };
}

/** `length` elements of one kind. */
export function array<V>(field: Field<V>, length: number): Field<V[]> {
  const { size } = field;
  return {
    size: size * length,
    align: field.align,
    get: (view, at) => Array.from({ length }, (_, i) => field.get(view, at + i * size)),
    set: (view, at, value) => {
      if (value.length !== length) {
        throw new RangeError(`${value.length} elements given, the array has ${length}`);
      }
      value.forEach((element, i) => {
        field.set(view, at + i * size, element);
      });
    },
  };
}

/** Lays the fields out in their order. */
export function struct<F extends Fields>(name: string, fields: F): Struct<Decoded<F>> {
  const members: { key: string; field: Field<unknown>; at: number }[] = [];
  let size = 0;
  let align = 1;
  for (const key of Object.keys(fields)) {
    const field = fields[key]!;
    size = alignUp(size, field.align);
    members.push({ key, field, at: size });
    size += field.size;
    align = Math.max(align, field.align);
  }
  size = alignUp(size, align);
  const shown = members.filter((member) => member.field.reserved !== true);
  const get = (view: DataView, at: number): Decoded<F> => {
    const value: Record<string, unknown> = {};
    for (const member of shown) {
      value[member.key] = member.field.get(view, at + member.at);
    }
    return value as Decoded<F>;
  };
  const set = (view: DataView, at: number, value: Decoded<F>): void => {
    const values = value as Record<string, unknown>;
    for (const member of shown) {
      member.field.set(view, at + member.at, values[member.key]);
    }
  };
  return {
    name,
    get offsets() {
      return Object.fromEntries(members.map(({ key, at }) => [key, at]));
    },
    size,
    align,
    get,
    set,
    decode: (view, offset = 0) => get(view, offset),
    encode: (value) => {
      const view = new DataView(new ArrayBuffer(size));
      set(view, 0, value);
      return view;
    },
  };
}

/** A table is built when it is first used: importing one costs nothing. */
export function lazy<T>(build: () => T): () => T {
  let built: T | undefined;
  return () => {
    built ??= build();
    return built;
  };
}

function alignUp(value: number, align: number): number {
  return Math.ceil(value / align) * align;
}
