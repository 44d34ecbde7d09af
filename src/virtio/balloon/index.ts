import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName } from '../options.js';
import { Balloon, pagesOf } from './balloon.js';

export type { Balloon, BalloonStatistics } from './balloon.js';
export { BalloonError } from './balloon.js';

/** A memory balloon (virtio 1.2, 5.5): takes memory from a running guest and gives it back. */
export interface BalloonOptions {
  /** For messages and metrics. */
  readonly name: string;
  /** The guest's RAM in bytes. */
  readonly memory: number;
  /** How much of it the guest is to give up at first, in bytes, a multiple of 4096; 0 by default. */
  readonly target?: number | undefined;
  /** The guest takes memory out of the balloon before it kills a process for want of memory. True by default. */
  readonly deflateOnOom?: boolean | undefined;
  /** The guest can be asked for its memory statistics; each so many milliseconds with `interval` (100 to 3600000). True by default. */
  readonly statistics?: boolean | { readonly interval: number } | undefined;
  /** What the guest frees (in blocks of 2 or 4 MiB, after some seconds) goes back to the host by itself. True by default. */
  readonly reporting?: boolean | undefined;
}

const DEVICE_ID = 5;
const STATS_VQ = 1n << 1n;
const DEFLATE_ON_OOM = 1n << 2n;
const PAGE_POISON = 1n << 4n;
const PAGE_REPORTING = 1n << 5n;
// Inflate, deflate, statistics, free page hints (not offered: the queue has its number by the text), reporting. Linux does not count
// queues that it does not use, so that reporting is the fourth or third to it, and it insists on 32 for that.
const QUEUE_SIZES = [128, 128, 32, 32, 32];
const CONFIG_SIZE = 16;

/** @throws TypeError or RangeError for a bad option */
export function describeBalloon(options: BalloonOptions): {
  readonly description: VirtioDescription;
  readonly balloon: Balloon;
} {
  const { name, memory, target = 0, deflateOnOom = true, statistics = true, reporting = true } = options;
  checkName('balloon', name);
  const where = `balloon ${name}`;
  const interval = typeof statistics === 'object' ? statistics.interval : undefined;
  if (interval !== undefined) checkInteger(`${where}: statistics.interval`, interval, 100, 3_600_000);
  const pages = pagesOf(where, target, memory);
  const balloon = new Balloon(where, memory, statistics !== false, (onChange) =>
    addon().createVirtioBalloon({ target: pages, onChange }),
  );
  if (interval !== undefined) balloon.poll(interval);

  // Virtio 1.2, 5.5.4: num_pages, actual, free_page_hint_cmd_id, poison_val; the last three are the driver's.
  const config = new Uint8Array(CONFIG_SIZE);
  new DataView(config.buffer).setUint32(0, pages, true);
  return {
    description: {
      name,
      deviceId: DEVICE_ID,
      features:
        (statistics !== false ? STATS_VQ : 0n) |
        (deflateOnOom ? DEFLATE_ON_OOM : 0n) |
        // A guest that poisons free pages says so, and is not given zeros instead; without, it would not report.
        (reporting ? PAGE_REPORTING | PAGE_POISON : 0n),
      queueSizes: QUEUE_SIZES,
      config,
      writableConfig: { offset: 4, length: CONFIG_SIZE - 4 },
      backend: balloon.native,
    },
    balloon,
  };
}
