import { addon } from '../../addon/index.js';
import type { VirtioDescription } from '../description.js';
import { checkName } from '../options.js';

/** An entropy source (virtio 1.2, 5.4): the host's getrandom(2). */
export interface RngOptions {
  /** For messages and metrics. */
  readonly name: string;
}

/** @throws TypeError for a bad name */
export function describeRng(options: RngOptions): VirtioDescription {
  checkName('entropy source', options.name);
  return {
    name: options.name,
    deviceId: 4,
    features: 0n,
    queueSizes: [64],
    config: new Uint8Array(0),
    backend: addon().createVirtioRng(),
  };
}
