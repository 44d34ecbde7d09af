import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkInteger, checkName } from '../options.js';

/** An entropy source (virtio 1.2, 5.4): the host's getrandom(2). */
export interface RngOptions {
  /** For messages and metrics. */
  readonly name: string;
  /** What the guest may take in a second, in bytes, 1 to 2^40; 0, the default: as much as it likes. */
  readonly bytesPerSecond?: number | undefined;
  /** What it may take at once after a pause; a second's worth by default. */
  readonly bytesBurst?: number | undefined;
}

const MAX_RATE = 2 ** 40;

/** @throws TypeError or RangeError for a bad option */
export function describeRng(options: RngOptions): VirtioDescription {
  const { name, bytesPerSecond = 0, bytesBurst = 0 } = options;
  checkName('entropy source', name);
  checkInteger(`entropy source ${name}: bytesPerSecond`, bytesPerSecond, 0, MAX_RATE);
  checkInteger(`entropy source ${name}: bytesBurst`, bytesBurst, 0, MAX_RATE);
  if (bytesBurst !== 0 && bytesPerSecond === 0) {
    throw new RangeError(`entropy source ${name}: bytesBurst: only with bytesPerSecond`);
  }
  return {
    name,
    deviceId: 4,
    features: 0n,
    queueSizes: [64],
    config: new Uint8Array(0),
    backend: addon().createVirtioRng({ bytesPerSecond, bytesBurst }),
  };
}
