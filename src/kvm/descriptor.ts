import { addon } from '../addon/index.js';
import { KvmError } from './errors.js';

/** A file descriptor of KVM's with one owner: /dev/kvm, a VM or a vCPU. */
export class KvmDescriptor {
  readonly #what: string;
  #fd: number;

  protected constructor(what: string, fd: number) {
    this.#what = what;
    this.#fd = fd;
  }

  /** The descriptor, for calls of the addon; it stays this object's own. Throws a KvmError once closed. */
  get fd(): number {
    if (this.#fd < 0) {
      throw new KvmError('fd', 0, `the ${this.#what} is closed`);
    }
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Closes the descriptor; a second call does nothing. */
  close(): void {
    if (this.#fd >= 0) {
      const fd = this.#fd;
      this.#fd = -1;
      addon().close(fd);
    }
  }

  /** Makes the call `name` and returns its result; throws a KvmError if it fails. */
  protected call(name: string, request: number, arg?: number | bigint | ArrayBufferView): number {
    const result = this.tryCall(name, request, arg);
    if (result < 0) {
      throw new KvmError(name, -result);
    }
    return result;
  }

  /** The same, but a failure is returned as -errno. */
  protected tryCall(name: string, request: number, arg?: number | bigint | ArrayBufferView): number {
    if (this.#fd < 0) {
      throw new KvmError(name, 0, `the ${this.#what} is closed`);
    }
    return addon().ioctl(this.#fd, request, arg);
  }
}
