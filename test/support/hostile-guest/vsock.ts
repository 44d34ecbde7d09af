/** Packets of the socket device (virtio 1.2, 5.10.6). */
export const VSOCK = {
  receive: 0,
  transmit: 1,
  event: 2,
  REQUEST: 1,
  RESPONSE: 2,
  RST: 3,
  SHUTDOWN: 4,
  RW: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
  /** Bytes of a header. */
  header: 44,
  host: 2n,
  guest: 3n,
} as const;

export interface VsockHeader {
  readonly sourceCid?: bigint;
  readonly destinationCid?: bigint;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly length?: number;
  readonly type?: number;
  readonly op?: number;
  readonly flags?: number;
  readonly bufferSize?: number;
  readonly forwarded?: number;
}

/** A packet from the guest, honest but for what is given. */
export function vsockPacket(header: VsockHeader, payload: Uint8Array = new Uint8Array()): Buffer {
  const bytes = Buffer.alloc(VSOCK.header + payload.length);
  bytes.writeBigUInt64LE(header.sourceCid ?? VSOCK.guest, 0);
  bytes.writeBigUInt64LE(header.destinationCid ?? VSOCK.host, 8);
  bytes.writeUInt32LE(header.sourcePort ?? 1234, 16);
  bytes.writeUInt32LE(header.destinationPort ?? 1024, 20);
  bytes.writeUInt32LE(header.length ?? payload.length, 24);
  bytes.writeUInt16LE(header.type ?? 1, 28);
  bytes.writeUInt16LE(header.op ?? VSOCK.RW, 30);
  bytes.writeUInt32LE(header.flags ?? 0, 32);
  bytes.writeUInt32LE(header.bufferSize ?? 65536, 36);
  bytes.writeUInt32LE(header.forwarded ?? 0, 40);
  bytes.set(payload, VSOCK.header);
  return bytes;
}

/** A packet to the guest, as it stands in a receive buffer. */
export function vsockHeader(bytes: Buffer): Required<VsockHeader> {
  return {
    sourceCid: bytes.readBigUInt64LE(0),
    destinationCid: bytes.readBigUInt64LE(8),
    sourcePort: bytes.readUInt32LE(16),
    destinationPort: bytes.readUInt32LE(20),
    length: bytes.readUInt32LE(24),
    type: bytes.readUInt16LE(28),
    op: bytes.readUInt16LE(30),
    flags: bytes.readUInt32LE(32),
    bufferSize: bytes.readUInt32LE(36),
    forwarded: bytes.readUInt32LE(40),
  };
}
