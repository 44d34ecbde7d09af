/** FUSE requests (linux/fuse.h), byte by byte. */

/** Opcodes. */
export const fuse = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  SYNCFS: 50,
  TMPFILE: 51,
} as const;

/** Bytes of fuse_in_header. */
export const inHeader = 40;

export interface FuseHeader {
  /** The length that it claims; the true one by default. */
  readonly length?: number;
  readonly unique?: bigint;
  readonly uid?: number;
}

export function fuseRequest(
  opcode: number,
  node: number | bigint,
  body: Uint8Array,
  more: FuseHeader = {},
): Buffer {
  const bytes = Buffer.alloc(inHeader + body.length);
  bytes.writeUInt32LE(more.length ?? bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(more.unique ?? 1n, 8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(node)), 16);
  bytes.writeUInt32LE(more.uid ?? 0, 24);
  bytes.set(body, inHeader);
  return bytes;
}

/** FUSE_INIT of a Linux 6.1. */
export function fuseInit(major = 7, minor = 37): Buffer {
  return fuseRequest(26, 0, words(major, minor, 131072, 0xffff_ffff, ...new Array<number>(12).fill(0)));
}

/** 32-bit fields, one after the other. */
export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => {
    bytes.writeUInt32LE(value >>> 0, 4 * i);
  });
  return bytes;
}

/** 64-bit fields, one after the other. */
export function longs(...values: readonly (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  values.forEach((value, i) => {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * i);
  });
  return bytes;
}
