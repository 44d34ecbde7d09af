/** System calls of native/addon/network.cc, all on the calling thread. A negative result is -errno. */
export interface NetworkAddon {
  /**
   * One netlink request (a whole message; its length, sequence number and the flags REQUEST and ACK are filled in) of a protocol (0: NETLINK_ROUTE).
   * @returns the messages of the answer, without the acknowledgement
   */
  netlink(protocol: number, request: Uint8Array): Uint8Array[] | number;
  /**
   * Makes a TAP device with one queue (IFF_NO_PI, IFF_VNET_HDR) in the thread's network namespace; it is down, and vanishes with its descriptor.
   * -EBUSY (-16): there is an interface of that name.
   */
  openTap(name: string): { readonly fd: number; readonly index: number } | number;
  /** setns(2). `type` is a CLONE_NEW* flag, or 0 for any. */
  setns(fd: number, type: number): number;
  /** unshare(2). */
  unshare(flags: number): number;
  /** flock(2) with LOCK_EX: waits; the lock goes with the descriptor. */
  lockFile(fd: number): number;
}
