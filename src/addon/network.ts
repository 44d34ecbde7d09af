/** System calls of native/addon/network.cc, all on the calling thread. A negative result is -errno. */
export interface NetworkAddon {
  /**
   * Makes a TAP device with one queue (IFF_NO_PI, IFF_VNET_HDR) in the thread's network namespace; it is down, and vanishes with its descriptor.
   * -EBUSY (-16): there is an interface of that name.
   */
  openTap(name: string): { readonly fd: number; readonly index: number } | number;
  /** flock(2): waits for the exclusive lock of an open file, which goes with its descriptor, or gives it back. */
  lockFile(fd: number, locked: boolean): number;
}
