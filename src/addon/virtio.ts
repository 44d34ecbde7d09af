/** The native virtio devices: what each factory of native/addon/virtio_NAME.cc reads and returns. */

/** A native virtio device, as its factory returns it. `device` is an external value only the machine can open. */
export interface NativeDevice {
  readonly device: object;
}

export interface NativeBalloonOptions {
  /** Pages of 4 KiB. */
  readonly target: number;
  /** Hears that actual() has changed, or that takeStatistics() has some; several changes may be one call. */
  readonly onChange: () => void;
}

export interface NativeBalloon extends NativeDevice {
  /** In pages of 4 KiB. */
  setTarget(pages: number): void;
  target(): number;
  /** Pages of 4 KiB that are in the balloon, as the driver says. */
  actual(): number;
  requestStatistics(): void;
  /** As the driver wrote them, once. */
  takeStatistics(): Buffer | undefined;
}

export interface NativeBlkOptions {
  readonly path: string;
  readonly readOnly: boolean;
  /** Past the host's page cache (O_DIRECT). */
  readonly direct: boolean;
  readonly engine: 'auto' | 'uring' | 'threads';
  readonly id: string;
  readonly queues: number;
  readonly maxDiscardSectors: number;
  readonly maxDiscardSegments: number;
  readonly maxWriteZeroesSectors: number;
  readonly maxWriteZeroesSegments: number;
  /** A second; 0: no limit. A burst of 0 is a second's worth. */
  readonly bytesPerSecond: number;
  readonly bytesBurst: number;
  readonly operationsPerSecond: number;
  readonly operationsBurst: number;
}

export interface NativeBlk extends NativeDevice {
  /** Capacity in sectors of 512 bytes. */
  readonly sectors: number;
  /** The logical block size of a block device or of direct I/O; 512 for a file through the page cache. */
  readonly blockSize: number;
  readonly blockDevice: boolean;
  /** False where the file system has no locks. */
  readonly locked: boolean;
  /** Throws where the disk cannot be opened; `done` hears when it is in place, or why it cannot be. */
  replace(path: string, done: (error?: Error) => void): void;
  refresh(done: (error?: Error) => void): void;
  /** `sectors` as of now. */
  currentSectors(): number;
  /** Throws while a machine uses it. */
  close(): void;
}

export interface NativePortOptions {
  /** The driver is told it, where it is not empty. */
  readonly name: string;
  readonly console: boolean;
  readonly columns: number;
  readonly rows: number;
  /** A descriptor, or a function that hears that there is room again: then write() and end() give the input. */
  readonly input?: number | (() => void) | undefined;
  /** A descriptor, or a function that gets the output; when it returns false, no more comes until resumeOutput(). */
  readonly output?: number | ((chunk: Buffer) => unknown) | undefined;
}

export interface NativeConsoleOptions {
  readonly ports: readonly NativePortOptions[];
  /** Hears that opens() of a port has changed; several changes may be one call. */
  readonly onChange: () => void;
}

/** A port is its index. */
export interface NativeConsole extends NativeDevice {
  resize(port: number, columns: number, rows: number): void;
  /** How many of the bytes were taken. */
  write(port: number, bytes: Uint8Array): number;
  end(port: number): void;
  resumeOutput(port: number): void;
  /** Ends the input, throws output away from now on, and closes the port once the guest has the input. */
  hangUp(port: number): void;
  /** How often the guest has opened and closed it, together: odd while it is open. */
  opens(port: number): number;
}

export interface NativeFsOptions {
  /** Either this or `exports`. */
  readonly directory: string | undefined;
  readonly exports: readonly NativeFsExport[] | undefined;
  readonly readOnly: boolean;
  readonly cache: 'none' | 'auto' | 'always';
  readonly writeback: boolean;
  readonly hostLocks: boolean;
  readonly posixAcl: boolean;
  /** Undefined: every id is itself. 1 to 340, of whole numbers, that don't meet. */
  readonly uids: readonly NativeIdRange[] | undefined;
  readonly gids: readonly NativeIdRange[] | undefined;
}

export interface NativeIdRange {
  readonly guest: number;
  readonly host: number;
  readonly count: number;
}

export interface NativeFsExport {
  readonly name: string;
  readonly path: string;
  readonly readOnly: boolean;
}

export interface NativeNetLimits {
  /** 0: no limit; for a burst, a second's worth. */
  readonly bytesPerSecond: number;
  readonly bytesBurst: number;
  readonly packetsPerSecond: number;
  readonly packetsBurst: number;
}

/** `tap` (with `up` and `pairs`), `tapFds`, `streamFd`, or none: one end of a socket pair, whose other end is `peer`. */
export interface NativeNetOptions {
  readonly tap?: string;
  readonly up?: boolean;
  readonly pairs?: number;
  readonly tapFds?: readonly number[];
  readonly streamFd?: number;
  /** Six bytes. */
  readonly mac: Uint8Array;
  /** 0: the TAP device's own. */
  readonly mtu: number;
  readonly link: boolean;
  readonly toGuest: NativeNetLimits;
  readonly fromGuest: NativeNetLimits;
}

export interface NativeNet extends NativeDevice {
  /** Name of the TAP device. */
  readonly tap?: string;
  /** As asked for, or the TAP device's; 0: not known. */
  readonly mtu: number;
  /** The caller's to close; -1: there is none. */
  readonly peer: number;
  setLink(up: boolean): void;
  /** Throws while a machine uses it. */
  close(): void;
}

/** 0: no limit. */
export interface NativeRngOptions {
  readonly bytesPerSecond: number;
  readonly bytesBurst: number;
}

export interface NativeVsockOptions {
  readonly cid: number;
  /**
   * Hears of what was asked for under `id`. Kinds: `ended` (value: bytes from the guest that were lost; text: why, if it was
   * cut off), `connected` (value: 0 or an errno), `accepted` (value: a descriptor that is the listener's now; text: the guest's
   * port; connection: an id for it), `reset` of what was connected or accepted, `open` and `line` (text) of a channel.
   */
  readonly onEvent: (kind: string, id: number, value: number, text: string, connection: number) => void;
}

/** An `id` is the caller's choice and names what is asked for, in later calls and in events. */
export interface NativeVsock extends NativeDevice {
  /** -1: no such direction. Throws for a descriptor that is not open that way. */
  bind(id: number, port: number, readFd: number, writeFd: number, closeFds: boolean): void;
  unbind(id: number): void;
  channel(id: number, port: number, maxLine: number): void;
  send(id: number, line: string): void;
  finish(id: number): void;
  /** The descriptor of this end of a socket pair. */
  connect(id: number, port: number): number;
  listen(id: number, port: number): void;
  listenUnix(port: number, path: string): void;
  listenAll(prefix: string | undefined): void;
  unlisten(port: number): void;
  /** Throws when the socket cannot be made there. */
  hostSocket(id: number, path: string): void;
  closeHostSocket(id: number): void;
  resetTransport(): void;
  connections(): number;
  /** Nothing is heard after this; socket files are removed. */
  close(): void;
}

/** One factory a device. */
export interface VirtioAddon {
  createVirtioBalloon(options: NativeBalloonOptions): NativeBalloon;
  createVirtioBlk(options: NativeBlkOptions): NativeBlk;
  createVirtioConsole(options: NativeConsoleOptions): NativeConsole;
  createVirtioFs(options: NativeFsOptions): NativeDevice;
  createVirtioNet(options: NativeNetOptions): NativeNet;
  createVirtioRng(options: NativeRngOptions): NativeDevice;
  createVirtioVsock(options: NativeVsockOptions): NativeVsock;
}
