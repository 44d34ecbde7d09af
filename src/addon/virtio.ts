/** The native virtio devices: what each factory of native/addon/virtio_NAME.cc reads and returns. */

/** A native virtio device, as its factory returns it. `device` is an external value only the machine can open. */
export interface NativeDevice {
  readonly device: object;
}

export interface NativeBlkOptions {
  readonly path: string;
  readonly readOnly: boolean;
  readonly id: string;
  readonly maxDiscardSectors: number;
  readonly maxDiscardSegments: number;
  readonly maxWriteZeroesSectors: number;
  readonly maxWriteZeroesSegments: number;
}

export interface NativeBlk extends NativeDevice {
  /** Capacity in sectors of 512 bytes. */
  readonly sectors: number;
  /** The logical block size of a block device; 512 for a file. */
  readonly blockSize: number;
  readonly blockDevice: boolean;
  /** False where the file system has no locks. */
  readonly locked: boolean;
  /** Throws while a machine uses it. */
  close(): void;
}

export interface NativeConsoleOptions {
  /** A descriptor, or a function that hears that there is room again: then write() and end() give the input. */
  readonly input?: number | (() => void) | undefined;
  /** A descriptor, or a function that gets the output; when it returns false, no more comes until resumeOutput(). */
  readonly output?: number | ((chunk: Buffer) => unknown) | undefined;
}

export interface NativeConsole extends NativeDevice {
  resize(columns: number, rows: number): void;
  /** How many of the bytes were taken. */
  write(bytes: Uint8Array): number;
  end(): void;
  resumeOutput(): void;
}

export interface NativeFsOptions {
  readonly directory: string;
  readonly readOnly: boolean;
  readonly cache: 'none' | 'auto' | 'always';
  readonly writeback: boolean;
  readonly hostLocks: boolean;
  readonly posixAcl: boolean;
}

/** One factory a device. */
export interface VirtioAddon {
  createVirtioBlk(options: NativeBlkOptions): NativeBlk;
  createVirtioConsole(options: NativeConsoleOptions): NativeConsole;
  createVirtioFs(options: NativeFsOptions): NativeDevice;
  createVirtioRng(): NativeDevice;
}
