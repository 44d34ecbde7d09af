/** Devices that every guest has: [type, major, minor or undefined for all of them]. */
const GUEST_DEVICES: readonly (readonly ['c', number, number | undefined])[] = [
  ['c', 1, undefined], // mem: null, zero, full, random, urandom, kmsg
  ['c', 5, undefined], // tty, console, ptmx
  ['c', 10, 200], // net/tun
  ['c', 10, 229], // fuse
  ['c', 136, undefined], // pts
];

/** Whether a machine has the device; `type` as in config.json: `u` is a character device too. */
export function isGuestDevice(type: string, major: number | undefined, minor: number | undefined): boolean {
  return GUEST_DEVICES.some(
    ([t, m, n]) => (t === type || type === 'u') && m === major && (n === undefined || n === minor),
  );
}
