import { getSystemErrorName } from 'node:util';

// The few numbers that are looked at; node:os would have to be loaded for them.
export const EINTR = 4;
export const E2BIG = 7;
export const EAGAIN = 11;

/** A call to KVM that failed. */
export class KvmError extends Error {
  override readonly name = 'KvmError';
  /** The request's name in linux/kvm.h, such as 'KVM_CREATE_VM'; 'open', 'mmap', 'eventfd' for other calls. */
  readonly ioctl: string;
  /** Positive, 0 where no system call failed. */
  readonly errno: number;
  /** The errno's name, such as 'ENOENT'; undefined where errno is 0. */
  readonly code: string | undefined;

  constructor(ioctl: string, errno: number, detail?: string) {
    const code = errno > 0 ? getSystemErrorName(-errno) : undefined;
    const reason = [code, detail].filter((part) => part !== undefined).join(': ');
    super(`${ioctl}: ${reason}`);
    this.ioctl = ioctl;
    this.errno = errno;
    this.code = code;
  }
}

/** The error of an open(2) of `path` that failed with `errno`, with the remedy. */
export function openError(path: string, errno: number): KvmError {
  const code = getSystemErrorName(-errno);
  const remedies: Record<string, string> = {
    ENOENT:
      `there is no ${path}: load the module kvm_intel or kvm_amd (modprobe), and enable virtualization in the ` +
      'firmware, or nested virtualization in the settings of the virtual machine that this host is',
    EACCES: `no rights to ${path}: join the group kvm (usermod -aG kvm USER, then log in again)`,
    EPERM: `no rights to ${path}: this container or sandbox forbids the device`,
    ENXIO: `${path} has no driver behind it: load the module kvm_intel or kvm_amd`,
    ENODEV: `${path} has no driver behind it: load the module kvm_intel or kvm_amd`,
  };
  return new KvmError('open', errno, remedies[code] ?? `cannot open ${path}`);
}
