import { ANNOTATION_PREFIX, KATA_PREFIX } from './config/annotations.js';
import { KNOWN_CAPABILITIES } from './spec/capabilities.js';
import { OCI_VERSION_MAX, OCI_VERSION_MIN } from './spec/version.js';

const words = (text: string): string[] => text.trim().split(/\s+/);

/** What the runtime in the guest takes (crun 1.8); idmap is refused by src/runtime/guest-mounts.ts. */
const MOUNT_OPTIONS = words(`
  async atime bind copy-symlink defaults dev diratime dirsync exec mand noatime nodev nodiratime noexec nomand norelatime
  nostrictatime nosuid private ratime rbind rdev rdiratime relatime remount rexec rmand rnoatime rnodev rnodiratime rnoexec
  rnomand rnorelatime rnostrictatime rnosuid ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid runbindable rw
  shared slave strictatime suid sync tmpcopyup unbindable`);

/** The features document (runtime specification, features.md and features-linux.md). */
export function features(version: string): Readonly<Record<string, unknown>> {
  const prefixed = (prefix: string, names: string): string[] => words(names).map((name) => prefix + name);
  return {
    ociVersionMin: OCI_VERSION_MIN,
    ociVersionMax: OCI_VERSION_MAX,
    hooks: words('prestart createRuntime createContainer startContainer poststart poststop'),
    mountOptions: MOUNT_OPTIONS,
    linux: {
      namespaces: words('cgroup ipc mount network pid user uts'),
      capabilities: [...KNOWN_CAPABILITIES],
      cgroup: { v1: false, v2: true, systemd: false, systemdUser: false, rdma: false },
      seccomp: {
        enabled: true,
        actions: prefixed('SCMP_ACT_', 'ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG TRACE TRAP'),
        operators: prefixed('SCMP_CMP_', 'EQ GE GT LE LT MASKED_EQ NE'),
        archs: prefixed('SCMP_ARCH_', 'X32 X86 X86_64'),
        knownFlags: prefixed('SECCOMP_FILTER_FLAG_', 'TSYNC SPEC_ALLOW LOG'),
        supportedFlags: prefixed('SECCOMP_FILTER_FLAG_', 'TSYNC SPEC_ALLOW LOG'),
      },
      apparmor: { enabled: false },
      selinux: { enabled: false },
      intelRdt: { enabled: false },
      mountExtensions: { idmap: { enabled: false } },
      netDevices: { enabled: false },
    },
    annotations: {
      'org.opencontainers.runc.checkpoint.enabled': 'false',
      'io.tsvmm.version': version,
    },
    // A kernel and an initramfs are files of the host that a bundle chooses.
    potentiallyUnsafeConfigAnnotations: [ANNOTATION_PREFIX, KATA_PREFIX],
  };
}
