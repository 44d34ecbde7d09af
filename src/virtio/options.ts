/** Checks that the options of several devices share. Each throws with the device's kind and the option in the message. */

/** @throws TypeError unless `name` is a non-empty string of at most 64 characters */
export function checkName(kind: string, name: string): void {
  if (typeof name !== 'string' || name.length === 0 || name.length > 64) {
    throw new TypeError(`${kind}: name: expected 1 to 64 characters, got ${JSON.stringify(name)}`);
  }
}

/** @throws RangeError unless `value` is a whole number from `min` to `max` */
export function checkInteger(where: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${where}: expected a whole number from ${min} to ${max}, got ${String(value)}`);
  }
}

/** @throws RangeError unless `value` is a power of two from `min` to `max` (virtio 1.2, 2.7: at most 32768) */
export function checkQueueSize(where: string, value: number, min = 2, max = 32768): void {
  checkInteger(where, value, min, max);
  if ((value & (value - 1)) !== 0) {
    throw new RangeError(`${where}: expected a power of two, got ${value}`);
  }
}
