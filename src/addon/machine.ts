import type { NativeMemory } from './memory.js';
import type { NativeDevice } from './virtio.js';

/** Why a machine has ended, as the native side saw it. */
export interface NativeEnd {
  /** `exit`: a vCPU's KVM_RUN ended; exitReason or errno tell. */
  readonly reason: 'power-off' | 'reset' | 'stopped' | 'panic' | 'exit';
  /** The guest told the pvpanic device. */
  readonly panicked: boolean;
  /** The line with which the kernel panicked, where the serial port saw one. */
  readonly panicText?: string;
  readonly vcpu: number;
  readonly exitReason: number;
  readonly suberror: number;
  readonly hardwareReason: bigint;
  readonly errno: number;
}

/** A device as its transport wants it described; see src/virtio/description.ts. */
export interface NativeVirtioDescription {
  readonly name: string;
  readonly deviceId: number;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly config: Uint8Array;
  readonly writableConfig?: { readonly offset: number; readonly length: number };
  readonly backend: NativeDevice;
}

export type NativeMachineListener = (
  ...event:
    | ['ended', NativeEnd]
    | ['activated' | 'reset' | 'failed' | 'log', string, string]
    | ['error', Error]
) => void;

/** A plain value as native/io/value.h has it. Whole numbers of at least 0; bigints where a number is not exact. */
export type NativeValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly NativeValue[]
  | { readonly [name: string]: NativeValue };

/** Hears, later, that something has been done (no error, maybe a value) or why not. */
export type NativeAnswer = (error: string | undefined, value: NativeValue) => void;

/** Counters of a device. */
export interface DeviceMetrics {
  readonly requests: number;
  /** Bytes that the guest has read from the device. */
  readonly bytesRead: number;
  /** Bytes that the guest has written to it. */
  readonly bytesWritten: number;
  readonly errors: number;
  readonly interrupts: number;
  readonly notifications: number;
}

/** The class NativeMachine of native/addon/machine.cc; src/machine puts it together. */
export interface NativeMachine {
  addVcpu(fd: number, mmapSize: number): void;
  addSerial(
    base: number,
    interruptFd: number,
    options: { readonly input?: number | undefined; readonly output?: number | undefined },
  ): void;
  addPower(acpiBase: number, pvpanicBase: number): void;
  /** `gsi`: the interrupt's pin at the I/O APIC. */
  addVirtioMmio(base: number, gsi: number, description: NativeVirtioDescription): void;
  addScriptDevice(
    space: 'memory' | 'port',
    base: number,
    length: number,
    read: (offset: number, size: number) => number | bigint,
    write: (offset: number, size: number, value: number | bigint) => void,
  ): void;
  addTimelinePort(port: number): void;
  start(): void;
  stop(): void;
  pause(done: () => void): void;
  resume(): void;
  close(): void;
  // Of one device, by its name. Each throws where there is none.
  pauseDevice(name: string, done: NativeAnswer): void;
  resumeDevice(name: string, done: NativeAnswer): void;
  saveDevice(name: string, done: NativeAnswer): void;
  restoreDevice(name: string, state: NativeValue, done: NativeAnswer): void;
  removeDevice(name: string, done: NativeAnswer): void;
  metrics(): { readonly vcpus: readonly { readonly exits: number }[] } & Record<string, DeviceMetrics>;
  /** Times are CLOCK_MONOTONIC nanoseconds. */
  timeline(): {
    readonly firstInstruction: number;
    readonly marks: readonly { readonly value: number; readonly at: number }[];
  };
}

/** Handlers of a virtio device that JavaScript serves. */
export interface NativeScriptHandlers {
  activate(
    queues: readonly {
      readonly size: number;
      readonly ready: boolean;
      readonly descriptors: number;
      readonly available: number;
      readonly used: number;
      readonly nextAvailable: number;
      readonly nextUsed: number;
    }[],
    features: bigint,
    /** The device goes on from a saved one, and waits for resume(). */
    restored: boolean,
    /** What paused() was given when the device was saved; null where there is none. */
    state: NativeValue,
  ): void;
  /** Asks for paused(). */
  pause(): void;
  resume(): void;
  notify(queue: number): void;
  reset(): void;
  configWritten(offset: number, bytes: Uint8Array): void;
  failed(error: Error): void;
}

export interface NativeScriptVirtio extends NativeDevice {
  paused(
    queues: readonly { readonly nextAvailable: number; readonly nextUsed: number }[],
    state: NativeValue,
  ): void;
  interrupt(): void;
  updateConfig(offset: number, bytes: Uint8Array): void;
  fail(reason: string): void;
}

export interface MachineAddon {
  readonly NativeMachine: new (
    vmFd: number,
    memory: NativeMemory,
    listener: NativeMachineListener,
  ) => NativeMachine;
  createScriptVirtio(handlers: NativeScriptHandlers, queues: number): NativeScriptVirtio;
}
