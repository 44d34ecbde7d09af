import { getSystemErrorName } from 'node:util';
import { addon, type NativeMemory, type NativeRegion } from '../addon/index.js';

/** An access to guest memory that is not possible; the message names address and length. */
export class MemoryError extends Error {
  override readonly name = 'MemoryError';
  readonly address: number;
  readonly length: number;

  constructor(
    what: string,
    address: number,
    length: number,
    reason = 'is not wholly inside one region of RAM',
  ) {
    super(
      `${what}: guest memory [0x${address.toString(16)}, 0x${(address + length).toString(16)}) ${reason}`,
    );
    this.address = address;
    this.length = length;
  }
}

/** A piece of RAM: guest physical address and size in bytes, both multiples of 4096. */
export interface MemoryRegion {
  readonly address: number;
  readonly size: number;
}

export interface GuestMemoryOptions {
  /** Ascending and not overlapping. */
  readonly regions: readonly MemoryRegion[];
  /** 'memfd': other processes can map it (vhost-user, snapshots). Default 'anonymous', which is quicker to touch. */
  readonly backing?: 'anonymous' | 'memfd';
  /** Ask the host for transparent huge pages. Default true. */
  readonly hugePages?: boolean;
}

/**
 * Guest physical memory, mapped in this process but not touched. Every access is checked: a range that is not wholly
 * inside one region throws a MemoryError and has no effect. Addresses are guest physical, in bytes, below 2^53;
 * numbers in memory are little endian.
 */
export class GuestMemory {
  /** What native code takes (the machine, devices). */
  readonly native: NativeMemory;
  /** The regions with the addresses at which they are mapped. */
  readonly regions: readonly NativeRegion[];
  // Room for one number on its way.
  readonly #word = new DataView(new ArrayBuffer(8));

  /** Throws an Error where the regions are not as they must be, or the host has no room. */
  constructor(options: GuestMemoryOptions) {
    const { regions, backing = 'anonymous', hugePages = true } = options;
    this.native = new (addon().NativeMemory)(regions, { backing, hugePages });
    this.regions = this.native.regions();
  }

  /** Whether [address, address + length) is wholly inside one region of RAM. */
  contains(address: number, length: number): boolean {
    return this.regions.some(
      (region) =>
        address >= region.address &&
        address < region.address + region.size &&
        length <= region.address + region.size - address,
    );
  }

  /** Bytes of RAM, all regions together. */
  get size(): number {
    return this.regions.reduce((sum, region) => sum + region.size, 0);
  }

  /** The memfd behind it, which stays the memory's own; undefined where the backing is anonymous. */
  get memfd(): number | undefined {
    const fd = this.native.memfd;
    return fd < 0 ? undefined : fd;
  }

  /** Fills `into` from `address` on. */
  readInto(address: number, into: Uint8Array): void {
    if (!this.native.read(address, into)) {
      throw new MemoryError('read', address, into.length);
    }
  }

  /** A copy of `length` bytes. */
  read(address: number, length: number): Uint8Array {
    // A range that cannot be inside RAM must not size an allocation.
    if (length > this.size) {
      throw new MemoryError('read', address, length);
    }
    const bytes = new Uint8Array(length);
    this.readInto(address, bytes);
    return bytes;
  }

  write(address: number, bytes: Uint8Array): void {
    if (!this.native.write(address, bytes)) {
      throw new MemoryError('write', address, bytes.length);
    }
  }

  readU8(address: number): number {
    return this.#load(address, 1).getUint8(0);
  }

  readU16(address: number): number {
    return this.#load(address, 2).getUint16(0, true);
  }

  readU32(address: number): number {
    return this.#load(address, 4).getUint32(0, true);
  }

  readU64(address: number): bigint {
    return this.#load(address, 8).getBigUint64(0, true);
  }

  writeU8(address: number, value: number): void {
    this.#word.setUint8(0, value);
    this.#store(address, 1);
  }

  writeU16(address: number, value: number): void {
    this.#word.setUint16(0, value, true);
    this.#store(address, 2);
  }

  writeU32(address: number, value: number): void {
    this.#word.setUint32(0, value, true);
    this.#store(address, 4);
  }

  writeU64(address: number, value: bigint): void {
    this.#word.setBigUint64(0, value, true);
    this.#store(address, 8);
  }

  /** Reads `length` bytes of the file `fd` from `fileOffset` on straight into RAM. */
  load(fd: number, fileOffset: number, address: number, length: number): void {
    const errno = this.native.load(fd, fileOffset, address, length);
    if (errno !== 0) {
      const code = getSystemErrorName(-errno);
      const reasons: Record<string, string> = {
        EFAULT: 'is not wholly inside one region of RAM',
        ENODATA: `cannot be filled: the file ends before ${fileOffset + length} bytes`,
      };
      throw new MemoryError(
        'load',
        address,
        length,
        reasons[code] ?? `cannot be filled from the file: ${code}`,
      );
    }
  }

  fill(address: number, length: number, value = 0): void {
    if (!this.native.fill(address, length, value)) {
      throw new MemoryError('fill', address, length);
    }
  }

  /** Copies within guest memory; the ranges may overlap. */
  copy(from: number, to: number, length: number): void {
    if (!this.native.copy(from, to, length)) {
      throw new MemoryError(`copy to 0x${to.toString(16)}`, from, length);
    }
  }

  /**
   * The memory itself, not a copy: the guest changes it at any time, between any two reads, and a write through it is
   * seen by the guest at once. At most 4 GiB (a RangeError above). It stays valid after close().
   */
  unsafeView(address: number, length: number): Uint8Array {
    const buffer = this.native.unsafeView(address, length);
    if (buffer === undefined) {
      throw new MemoryError('view', address, length);
    }
    return new Uint8Array(buffer);
  }

  /** Lets go of the memory; it is unmapped when the machine, its devices and all views have let go too. */
  close(): void {
    this.native.close();
  }

  #load(address: number, length: number): DataView {
    this.readInto(address, new Uint8Array(this.#word.buffer, 0, length));
    return this.#word;
  }

  #store(address: number, length: number): void {
    this.write(address, new Uint8Array(this.#word.buffer, 0, length));
  }
}
