import { addon, type NativeValue } from '../addon/index.js';
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
  /** What the device itself has to keep over a save and restore: a plain value. It is paused, nothing is being served. */
  save?(): NativeValue;
  /** Takes what {@link save} has returned, before the first buffer is served. Throwing marks the device as failed. */
  restore?(state: NativeValue): void;
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
  let rest: 'none' | 'asked' | 'paused' = 'none';
  let serving = 0;

  const fail = (error: unknown): void => {
    queues = [];
    generation++;
    serving = 0;
    backend.fail(error instanceof Error ? error.message : String(error));
  };
  /** Tells that nothing is being served any more, where that was asked for. */
  const considerRest = (): void => {
    if (rest !== 'asked' || serving > 0) return;
    rest = 'paused';
    backend.paused(
      queues.map((queue) => queue?.state ?? { nextAvailable: 0, nextUsed: 0 }),
      device.save?.() ?? null,
    );
  };
  const finish = (queue: SplitQueue, chain: Chain): void => {
    queue.push(chain);
    if (queue.needsInterrupt()) backend.interrupt();
  };
  const notify = (index: number): void => {
    const queue = queues[index];
    if (queue === undefined || rest !== 'none') return;
    const born = generation;
    // A driver that offers as fast as it is served must not keep the thread to itself.
    let budget = 2 * queue.size;
    try {
      do {
        queue.disableNotifications();
        for (;;) {
          if (budget-- === 0) {
            setImmediate(() => {
              if (born === generation) notify(index);
            });
            return;
          }
          const taken = queue.pop();
          if (taken === undefined) break;
          const result = device.serve(taken, index);
          if (result === undefined) {
            finish(queue, taken);
          } else {
            serving++;
            result
              .then(() => {
                if (born !== generation) return;
                serving--;
                finish(queue, taken);
              })
              .catch((error) => {
                if (born === generation) fail(error);
              })
              .finally(considerRest);
          }
        }
      } while (queue.enableNotifications());
    } catch (error) {
      fail(error);
    }
  };
  const backend = addon().createScriptVirtio(
    {
      activate(configs, features, restored, state) {
        generation++;
        serving = 0;
        try {
          queues = configs.map((config, i) => {
            if (!config.ready) return undefined;
            const queue = new SplitQueue(memory(), config, queueSizes[i] ?? 0, features);
            queue.state = config;
            return queue;
          });
          // A restored device is paused, and goes on with resume().
          if (restored) {
            rest = 'paused';
            device.restore?.(state);
          }
        } catch (error) {
          fail(error);
        }
        for (let i = 0; i < queues.length; i++) notify(i);
      },
      notify,
      pause() {
        rest = 'asked';
        considerRest();
      },
      resume() {
        rest = 'none';
        for (let i = 0; i < queues.length; i++) notify(i);
      },
      reset() {
        generation++;
        serving = 0;
        rest = 'none';
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
