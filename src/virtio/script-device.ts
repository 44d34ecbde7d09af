import { addon } from '../addon/index.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { VirtioDescription } from './description.js';
import { type Chain, SplitQueue } from './queue.js';

/** A virtio device written in TypeScript: what it is, and what it does with a buffer. */
export interface ScriptVirtioDevice {
  readonly name: string;
  /** Device type (virtio 1.2, section 5). */
  readonly deviceId: number;
  readonly features?: bigint;
  /** Maximum size of each queue; one queue of 64 by default. */
  readonly queueSizes?: readonly number[];
  readonly config?: Uint8Array;
  /**
   * Serves one buffer of queue `queue`: reads what the driver sent with `chain.read()`, answers with `chain.write()`. The
   * buffer goes back to the driver when it returns, or when the promise does. Throwing marks the device as failed.
   */
  serve(chain: Chain, queue: number): void | Promise<void>;
  /** The driver has reset the device. */
  reset?(): void;
}

/**
 * Describes a device written in TypeScript for the machine's bus. Every buffer costs two thread hops (about 30 µs), which the
 * built-in devices do not: for prototypes, tests and slow devices.
 */
export function describeScriptDevice(
  device: ScriptVirtioDevice,
  memory: () => GuestMemory,
): VirtioDescription {
  const queueSizes = device.queueSizes ?? [64];
  let queues: (SplitQueue | undefined)[] = [];
  // A buffer that was taken before a reset must not be returned after it.
  let generation = 0;

  const fail = (error: unknown): void => {
    queues = [];
    generation++;
    backend.fail(error instanceof Error ? error.message : String(error));
  };
  const finish = (queue: SplitQueue, chain: Chain): void => {
    queue.push(chain);
    if (queue.needsInterrupt()) backend.interrupt();
  };
  const notify = (index: number): void => {
    const queue = queues[index];
    if (queue === undefined) return;
    const born = generation;
    try {
      do {
        queue.disableNotifications();
        for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
          const taken = chain;
          const result = device.serve(taken, index);
          if (result === undefined) {
            finish(queue, taken);
          } else {
            result.then(
              () => {
                if (born === generation) finish(queue, taken);
              },
              (error) => {
                if (born === generation) fail(error);
              },
            );
          }
        }
      } while (queue.enableNotifications());
    } catch (error) {
      fail(error);
    }
  };
  const backend = addon().createScriptVirtio(
    {
      activate(configs, features) {
        generation++;
        try {
          queues = configs.map((config, i) =>
            config.ready ? new SplitQueue(memory(), config, queueSizes[i] ?? 0, features) : undefined,
          );
        } catch (error) {
          fail(error);
        }
        for (let i = 0; i < queues.length; i++) notify(i);
      },
      notify,
      reset() {
        generation++;
        queues = [];
        device.reset?.();
      },
      configWritten() {},
      failed: fail,
    },
    queueSizes.length,
  );
  return {
    name: device.name,
    deviceId: device.deviceId,
    features: device.features ?? 0n,
    queueSizes,
    config: device.config ?? new Uint8Array(),
    backend,
  };
}
