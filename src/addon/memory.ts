/** The class NativeMemory of native/addon/memory.cc; src/memory/guest-memory.ts wraps it and throws the errors. */
export interface NativeMemory {
  regions(): NativeRegion[];
  /** False: not wholly inside one region of RAM, nothing was read. */
  read(address: number, to: Uint8Array): boolean;
  write(address: number, from: Uint8Array): boolean;
  /** 0 or a positive errno; EFAULT: outside RAM, ENODATA: the file is shorter. */
  load(fd: number, fileOffset: number, address: number, length: number): number;
  fill(address: number, length: number, value: number): boolean;
  copy(from: number, to: number, length: number): boolean;
  /** Undefined: outside RAM. Throws a RangeError for more than 4 GiB. */
  unsafeView(address: number, length: number): ArrayBuffer | undefined;
  /** Lets go of the mapping; it is unmapped when no device and no view holds it any more. */
  close(): void;
  /** The descriptor behind the memory, -1 where it is anonymous. It belongs to the memory. */
  readonly memfd: number;
}

export interface NativeRegion {
  /** Guest physical address. */
  readonly address: number;
  /** In bytes. */
  readonly size: number;
  /** Where it is mapped in this process. */
  readonly host: bigint;
  /** Its place in the memfd. */
  readonly fileOffset: number;
}

export interface NativeMemoryOptions {
  readonly backing: 'anonymous' | 'memfd';
  /** Ask for transparent huge pages. */
  readonly hugePages: boolean;
}

export interface MemoryAddon {
  readonly NativeMemory: new (
    regions: readonly { readonly address: number; readonly size: number }[],
    options: NativeMemoryOptions,
  ) => NativeMemory;
}
