/** System calls of native/addon/system.cc that Node lacks. A negative result is -errno. */
export interface SystemAddon {
  /** pipe2(2) with O_CLOEXEC: the end to read from, the end to write to. */
  pipe(): readonly [number, number] | number;
  /**
   * fcntl(2) F_OFD_SETLK: a write lock on a range of the file, held by the open file description until it is closed
   * or the process ends, however it does. Never waits: -EAGAIN (-11) where another holds it.
   */
  lockRange(fd: number, start: bigint, length: bigint): number;
}
