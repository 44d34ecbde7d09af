import type { DeviceMetrics, NativeMachine, NativeValue } from '../addon/index.js';
import { MachineError } from './error.js';

/** What a device's `save()` returned: a plain value of records, lists, strings, numbers, bigints and bytes. */
export type DeviceState = NativeValue;

/** One virtio device of a machine, whatever serves it. */
export class MachineDevice {
  #paused = 0;

  constructor(
    private readonly native: NativeMachine,
    /** Its name in messages and metrics: `blk0`, `rootfs`. */
    readonly name: string,
    /** The device type (virtio 1.2, section 5): 2 for a block device. */
    readonly deviceId: number,
    private readonly machinePaused: () => boolean,
  ) {}

  /** Its counters since the machine was made. */
  metrics(): DeviceMetrics {
    const metrics = this.native.metrics()[this.name];
    if (metrics === undefined) throw new MachineError(`${this.name}: has no metrics`);
    return metrics;
  }

  /**
   * Suspends processing: resolves when the device neither serves its queues nor interrupts, and what it had begun has been
   * answered. The guest runs on and waits for its requests.
   */
  async pause(): Promise<void> {
    await this.#ask((done) => this.native.pauseDevice(this.name, done));
    this.#paused = 1;
  }

  /** Ends {@link pause}. What the guest has asked for meanwhile is served. */
  async resume(): Promise<void> {
    this.#paused = 0;
    await this.#ask((done) => this.native.resumeDevice(this.name, done));
  }

  /**
   * All of its state: registers, configuration space, queues, and what the device knows. The rings themselves are in guest
   * memory. Only while the device or the machine is paused, or before the machine's start. @throws MachineError
   */
  async save(): Promise<DeviceState> {
    this.#mustRest('save');
    return this.#ask((done) => this.native.saveDevice(this.name, done));
  }

  /**
   * Makes the device stand where another of its kind stood when it was saved, over the same guest memory; it is paused then.
   * Only while the device or the machine is paused, or before the machine's start.
   * @throws MachineError that names the field which is wrong; the device is then as after a reset
   */
  async restore(state: DeviceState): Promise<void> {
    this.#mustRest('restore');
    await this.#ask((done) => this.native.restoreDevice(this.name, state, done));
  }

  /**
   * Takes the device away: the driver sees DEVICE_NEEDS_RESET and then no device (device ID 0). What the guest has asked for
   * and not been answered stays so; a guest that shall not notice unbinds the driver first.
   */
  async remove(): Promise<void> {
    await this.#ask((done) => this.native.removeDevice(this.name, done));
  }

  #mustRest(what: string): void {
    if (this.#paused === 0 && !this.machinePaused()) {
      throw new MachineError(
        `${this.name}: cannot ${what} while it works: pause the machine or the device first`,
      );
    }
  }

  #ask(ask: (done: (error: string | undefined, value: NativeValue) => void) => void): Promise<NativeValue> {
    return new Promise((resolve, reject) => {
      ask((error, value) => {
        if (error === undefined) resolve(value);
        else reject(new MachineError(`${this.name}: ${error}`));
      });
    });
  }
}
