import type { DeviceMetrics, NativeEnd, NativeMachine } from '../addon/index.js';
import type { Vcpu } from '../kvm/vcpu.js';
import type { Vm } from '../kvm/vm.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { Balloon } from '../virtio/balloon/index.js';
import type { Disk } from '../virtio/blk/index.js';
import type { ConsolePort } from '../virtio/console/index.js';
import type { VirtioDescription } from '../virtio/description.js';
import type { Nic } from '../virtio/net/index.js';
import type { Vsock } from '../virtio/vsock/index.js';
import { buildMachine } from './builder.js';
import type { MachineConfig } from './config.js';
import { type DeviceState, MachineDevice } from './device.js';
import { MachineError } from './error.js';
import { exitOf } from './exit.js';
import type { Timeline } from './timeline.js';

/** How a machine has ended. */
export type MachineExit =
  | { readonly reason: 'power-off' }
  | { readonly reason: 'reset' }
  /** By {@link Machine.stop}. */
  | { readonly reason: 'stopped' }
  /** The guest's kernel panicked; `message` is the line with which it did, where it was seen. */
  | { readonly reason: 'panic'; readonly message: string }
  | { readonly reason: 'triple-fault'; readonly message: string }
  /** KVM cannot run a vCPU any more; `message` has the reason and the registers. */
  | { readonly reason: 'kvm-error'; readonly message: string };

/** What the builder hands over. */
export interface MachineParts {
  readonly native: NativeMachine;
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  readonly memory: GuestMemory;
  readonly virtio: readonly VirtioDescription[];
  readonly nics: readonly Nic[];
  readonly vsock: Vsock | undefined;
  readonly disks: ReadonlyMap<string, Disk>;
  readonly balloon: Balloon | undefined;
  readonly ports: ReadonlyMap<string, ConsolePort>;
  readonly timeline: Timeline | undefined;
  /** Frees what the builder opened, in its order. */
  readonly release: readonly (() => void)[];
}

/** Events of a machine on their way from the native side; the builder makes it before the machine. */
export class MachineEvents {
  readonly ended: Promise<NativeEnd>;
  #resolve: (end: NativeEnd) => void = () => {};

  constructor(private readonly log: (line: string) => void) {
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  readonly listener = (
    type: 'ended' | 'activated' | 'reset' | 'failed' | 'log' | 'error',
    what: NativeEnd | string | Error,
    message?: string,
  ): void => {
    if (typeof what === 'string') {
      if (type === 'failed' || type === 'log') this.log(`${what}: ${message}`);
    } else if (what instanceof Error) {
      this.log(what.message);
    } else {
      this.#resolve(what);
    }
  };

  /** For a machine that is closed before it has ended. */
  abandon(): void {
    this.#resolve({
      reason: 'stopped',
      panicked: false,
      vcpu: 0,
      exitReason: 0,
      suberror: 0,
      hardwareReason: 0n,
      errno: 0,
    });
  }
}

/**
 * One microVM. It holds threads, memory and descriptors until {@link close}; a process can have many.
 * ```ts
 * const machine = await Machine.create({ memory: 128 << 20, cpus: 1, kernel: { path: 'bzImage' }, serial: { output: 1 } });
 * machine.start();
 * console.log((await machine.wait()).reason);
 * machine.close();
 * ```
 */
export class Machine {
  #state: 'created' | 'running' | 'closed' = 'created';
  #pausing: Promise<void> | undefined;
  #paused = false;
  #restored = false;
  #abandonPause: () => void = () => {};
  readonly #exit: Promise<MachineExit>;
  /** The virtio devices, in the order in which the guest finds them. */
  readonly devices: readonly MachineDevice[];

  private constructor(
    private readonly parts: MachineParts,
    private readonly events: MachineEvents,
  ) {
    this.devices = parts.virtio.map(
      ({ name, deviceId }) =>
        new MachineDevice(parts.native, name, deviceId, () => this.#paused || this.#state === 'created'),
    );
    this.#exit = events.ended.then((end) => {
      parts.timeline?.mark('end');
      return exitOf(end, parts.vcpus);
    });
  }

  /** Builds the machine; nothing of the guest runs yet. @throws MachineError, BootError, KvmError, or what a device says */
  static async create(config: MachineConfig): Promise<Machine> {
    const events = new MachineEvents(config.log ?? (() => {}));
    return new Machine(await buildMachine(config, events), events);
  }

  /** Lets the vCPUs run. */
  start(): void {
    if (this.#state !== 'created') throw new MachineError('the machine has been started already');
    this.#state = 'running';
    this.parts.native.start();
    if (this.#restored) this.parts.native.resume();
  }

  /** Resolves when the guest has powered off, reset, failed, or was stopped. */
  wait(): Promise<MachineExit> {
    return this.#exit;
  }

  /** Ends the machine at once, as by pulling the plug. wait() then resolves with `stopped`, or with what was quicker. */
  stop(): void {
    if (this.#state === 'running') this.parts.native.stop();
    else this.events.abandon();
  }

  /** Takes all vCPUs out of the guest, then suspends all devices, which finish what was asked of them. Idempotent. */
  pause(): Promise<void> {
    this.#pausing ??= new Promise((resolve, reject) => {
      this.#abandonPause = () => reject(new MachineError('the machine was closed while it was being paused'));
      this.parts.native.pause(() => {
        this.#paused = true;
        resolve();
      });
    });
    this.#pausing.catch(() => {}); // a machine may be closed without anybody waiting
    return this.#pausing;
  }

  /** Ends {@link pause}, once that is done. */
  async resume(): Promise<void> {
    if (this.#pausing === undefined) return;
    await this.#pausing;
    if (!this.#paused) return;
    this.#paused = false;
    this.#pausing = undefined;
    this.parts.native.resume();
  }

  /** The virtio device of that name. @throws MachineError that names those that there are */
  device(name: string): MachineDevice {
    const device = this.devices.find((candidate) => candidate.name === name);
    if (device !== undefined) return device;
    const names = this.devices.map((candidate) => candidate.name).join(', ');
    throw new MachineError(`the machine has no device ${JSON.stringify(name)}; it has ${names || 'none'}`);
  }

  /** The state of all virtio devices. While the machine is paused, or before its start. */
  async save(): Promise<MachineState> {
    const states = await Promise.all(
      this.devices.map(async (device): Promise<[string, DeviceState]> => [device.name, await device.save()]),
    );
    return { version: STATE_VERSION, devices: Object.fromEntries(states) };
  }

  /**
   * Gives each virtio device the state of its namesake; all of them are paused then. While the machine is paused, or before its
   * start. @throws MachineError that names the device and the field
   */
  async restore(state: MachineState): Promise<void> {
    if (state.version !== STATE_VERSION) {
      throw new MachineError(`version: this build reads version ${STATE_VERSION}, got ${state.version}`);
    }
    this.#restored = true;
    const names = Object.keys(state.devices);
    for (const name of names) this.device(name);
    for (const device of this.devices) {
      const saved = state.devices[device.name];
      if (saved === undefined) throw new MachineError(`devices: ${device.name}: is missing`);
      await device.restore(saved);
    }
  }

  /** The machine's network cards, in the order of the configuration. */
  get networks(): readonly Nic[] {
    return this.parts.nics;
  }

  /** The machine's vsock device: connections to and from the guest. */
  get vsock(): Vsock {
    if (this.parts.vsock === undefined) throw new MachineError('the machine has no vsock device');
    return this.parts.vsock;
  }

  /** The virtio console's ports by name; `console` is that of the configuration's `console`. */
  get ports(): ReadonlyMap<string, ConsolePort> {
    return this.parts.ports;
  }

  /** The machine's memory balloon. */
  get balloon(): Balloon {
    if (this.parts.balloon === undefined) throw new MachineError('the machine has no balloon');
    return this.parts.balloon;
  }

  /** A disk by its name (`blk0` is the first of the configuration): its size, another image for it. @throws MachineError */
  disk(name: string): Disk {
    const disk = this.parts.disks.get(name);
    if (disk === undefined) {
      const known = [...this.parts.disks.keys()].join(', ') || 'none';
      throw new MachineError(`${name}: no such disk; there are: ${known}`);
    }
    return disk;
  }

  /** Guest physical memory, every access checked. */
  get memory(): GuestMemory {
    return this.parts.memory;
  }

  get timeline(): Timeline | undefined {
    return this.parts.timeline;
  }

  /** Counters by device name, and the exits of each vCPU. */
  metrics(): { readonly vcpus: readonly { readonly exits: number }[] } & Record<string, DeviceMetrics> {
    return this.parts.native.metrics();
  }

  /** Adds the guest's moments to the timeline; for a machine that has ended. */
  collectTimeline(): void {
    const { timeline, native } = this.parts;
    if (timeline === undefined) return;
    const { firstInstruction, marks } = native.timeline();
    if (firstInstruction > 0) timeline.mark('first-instruction', firstInstruction);
    for (const { value, at } of marks) timeline.mark(GUEST_MARKS[value] ?? `guest-${value}`, at);
  }

  /** Ends what runs and frees everything. Idempotent. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#abandonPause();
    this.parts.native.close();
    for (const release of this.parts.release) release();
    this.events.abandon();
  }
}

/** What {@link Machine.save} returns. Guest memory and the vCPUs are not part of it. */
export interface MachineState {
  readonly version: number;
  readonly devices: Readonly<Record<string, DeviceState>>;
}

const STATE_VERSION = 1;

/** What a guest means by the byte that it writes to the timeline port. */
const GUEST_MARKS: Readonly<Record<number, string>> = { 1: 'init', 2: 'agent', 3: 'process' };
