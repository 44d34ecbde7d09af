/** System calls of native/addon/kvm.cc. A negative result is -errno; src/kvm/errors.ts makes errors of them. */
export interface KvmAddon {
  /** open(2) with O_CLOEXEC. */
  open(path: string, flags: number): number;
  /** close(2). */
  close(fd: number): number;
  /**
   * ioctl(2). A struct is passed as its bytes, at least as many as `request` encodes (else a RangeError); what the
   * kernel writes is seen in them. Where the struct holds a pointer, the address of `pointee` is stored at
   * `pointerOffset` first; `pointee` must be as large as the kernel will write.
   */
  ioctl(
    fd: number,
    request: number,
    arg?: number | bigint | ArrayBufferView,
    pointee?: ArrayBufferView,
    pointerOffset?: number,
  ): number;
  /** eventfd(2) with EFD_CLOEXEC | EFD_NONBLOCK. */
  eventfd(initial: number): number;
  /**
   * mmap(2) of a vCPU's kvm_run page, shared with the kernel. Unsafe: other threads and the kernel write there while
   * the vCPU runs. `unmap` detaches `buffer` (views of it become empty); else the garbage collector unmaps it.
   */
  mmapVcpu(fd: number, size: number): MappedVcpu | number;
  /**
   * Begins to open the KVM device and to make a VM in a thread of its own: the kernel waits there for a grace period, in
   * which the caller has better things to do. A second call does nothing until the first's result was taken.
   */
  prepareKvm(path: string): void;
  /** Waits for what prepareKvm() has begun with the same path; descriptors or -errno. Undefined: nothing was begun. */
  takePreparedKvm(path: string): { readonly device: number; readonly vm: number } | undefined;
  /** _exit(2): ends the process at once, without Node's teardown, exit handlers or flushing of streams. */
  exitNow(status: number): never;
}

export interface MappedVcpu {
  readonly buffer: ArrayBuffer;
  unmap(): void;
}
