/** An IPv4 (4 bytes) or IPv6 address (16 bytes) as text; IPv6 as RFC 5952 wants it. @throws RangeError for another length */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.length !== 16) throw new RangeError(`an address of ${bytes.length} bytes`);
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  const { start, length } = longestZeros(groups);
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (length < 2) return text(groups);
  return `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`;
}

function longestZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let end = start;
    while (groups[end] === 0) end++;
    if (end - start > best.length) best = { start, length: end - start };
  }
  return best;
}

/** Six bytes as `52:54:00:12:34:56`. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The network that an address is in, with `prefix` bits kept: `10.0.0.0`. */
export function networkOf(address: Uint8Array, prefix: number): Uint8Array {
  return address.map((byte, index) => byte & (0xff << (8 - Math.min(8, Math.max(0, prefix - 8 * index)))));
}

/** The link-local address that follows from a MAC (RFC 4291, appendix A). */
export function linkLocalOf(mac: Uint8Array): Uint8Array {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac;
  return Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f);
}
