/** The six bytes of `52:54:00:12:34:56`. @throws TypeError unless it is the address of one interface */
export function parseMac(where: string, text: string): Uint8Array {
  const bytes = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)
    ? Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16))
    : undefined;
  if (bytes === undefined || ((bytes[0] ?? 1) & 1) !== 0 || bytes.every((byte) => byte === 0)) {
    throw new TypeError(
      `${where}: expected a unicast address like 52:54:00:12:34:56, got ${JSON.stringify(text)}`,
    );
  }
  return bytes;
}

/** A locally administered address that is always the same for the same seed: 40 bits of its FNV-1a hash. */
export function macFrom(seed: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(seed)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  const bytes = [0x02n, ...[0n, 8n, 16n, 24n, 32n].map((shift) => (hash >> shift) & 0xffn)];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
