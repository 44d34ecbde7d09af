import { type Driver, INDIRECT, reg, WRITE } from './driver.js';
import { add, type Operation, write } from './interpreter.js';

/** What a driver can do to all of a device's queues, again and again: nonsense, breakage, resets. */
export function storm(driver: Driver): Operation[] {
  const nonsense = driver.rings.flatMap(({ index, place }): Operation[] => [
    write(8, place.descriptors, SCRATCH),
    write(8, place.descriptors + 8, (BigInt(WRITE) << 32n) | 64n),
    add(2, place.available + 2, 1),
    driver.set(reg.queueNotify, index),
    write(2, place.descriptors + 12, INDIRECT),
    add(2, place.available + 2, 3),
    driver.set(reg.queueNotify, index),
  ]);
  const starts = driver.rings.map(({ place }) => write(2, place.available + 2, 0));
  return [...nonsense, driver.set(reg.status, 0), ...starts, ...driver.steps(), ...nonsense];
}

/** RAM that no driver uses. */
const SCRATCH = 0x3c0_0000;
