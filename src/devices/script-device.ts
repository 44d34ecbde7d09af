/** A device on the bus that is written in TypeScript: what the guest reads and writes in a range of addresses or ports. */
export interface ScriptDevice {
  readonly name: string;
  /** `memory`: guest physical addresses (MMIO); `port`: I/O ports. */
  readonly space: 'memory' | 'port';
  /** First address or port. It must be outside RAM and free on the bus. */
  readonly base: number;
  /** In bytes. */
  readonly length: number;
  /**
   * The guest reads `size` bytes (1, 2, 4 or 8) at `offset` from the base. The vCPU waits for the answer.
   * Without it the range reads as all ones.
   */
  read?(offset: number, size: number): number | bigint;
  /** The guest writes. `value` is a bigint where `size` is 8. */
  write?(offset: number, size: number, value: number | bigint): void;
}
